//! Waiting for something to be so, or to stay so: by asking again, with a deadline.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::Failure;

/// Long enough for a rollout over all nodes of a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
const INTERVAL: Duration = Duration::from_millis(250);

/// Waits until a check holds, and says what it last saw if it never does.
pub async fn eventually<T>(what: &str, check: impl AsyncFnMut() -> Result<T, Failure>) -> Result<T, Failure> {
    within(PATIENCE, what, check).await
}

/// As [`eventually`], with a deadline of one's own.
pub async fn within<T>(
    limit: Duration,
    what: &str,
    mut check: impl AsyncFnMut() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut last = Failure::Unmet("nothing, for the first check did not come to its end".to_owned());
    let polling = async {
        loop {
            match check().await {
                Ok(value) => return value,
                Err(failure) => last = failure,
            }
            sleep(INTERVAL).await;
        }
    };
    let started = Instant::now();
    let outcome = timeout(limit, polling).await;
    // A test's output is shown when it fails: how far it came, and how long each step took.
    if started.elapsed() > INTERVAL {
        eprintln!("{:5.1} s for this: {what}", started.elapsed().as_secs_f32());
    }
    outcome.map_err(|_| Failure::GaveUp(what.to_owned(), limit, Box::new(last)))
}

/// Checks again and again that something is, and stays, so.
pub async fn stays(
    span: Duration,
    what: &str,
    mut check: impl AsyncFnMut() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let end = Instant::now() + span;
    while Instant::now() < end {
        let checked = check().await;
        checked.map_err(|failure| Failure::Unmet(format!("{what} is not, or no longer, so: {failure}")))?;
        sleep(INTERVAL).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_says_what_was_last_seen() {
        let mut seen = 0;
        let outcome = within(INTERVAL * 2, "never", async || {
            seen += 1;
            Err::<(), _>(Failure::Unmet(format!("look {seen}")))
        });
        let failure = outcome.await.unwrap_err().to_string();
        assert!(failure.contains("never; last seen: look "), "{failure}");
    }

    #[tokio::test]
    async fn what_ends_too_early_does_not_stay() {
        let mut looks = 0;
        let outcome = stays(INTERVAL * 4, "it", async || {
            looks += 1;
            crate::ensure(looks < 2, || "gone".to_owned())
        });
        assert!(outcome.await.unwrap_err().to_string().ends_with("gone"));
    }
}
