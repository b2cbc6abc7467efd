//! Polls a check until the check succeeds, or requires that a check always succeeds for some time. Does no I/O itself.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::failure::Failure;

/// The default deadline. A rollout on all nodes of a busy machine takes less time.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(90);
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Polls `check` until it succeeds. `expected` is the expected state as a clause, for example "the pod is ready".
pub async fn eventually<T>(
    expected: &str,
    check: impl AsyncFnMut() -> Result<T, Failure>,
) -> Result<T, Failure> {
    eventually_within(DEFAULT_DEADLINE, expected, check).await
}

/// Polls like [`eventually`], but with this deadline.
pub async fn eventually_within<T>(
    deadline: Duration,
    expected: &str,
    mut check: impl AsyncFnMut() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut last_failure =
        Failure::UnexpectedState("none, because the first check did not finish".to_owned());
    let polling = async {
        loop {
            match check().await {
                Ok(value) => return value,
                Err(failure) => last_failure = failure,
            }
            sleep(POLL_INTERVAL).await;
        }
    };
    let started_at = Instant::now();
    let result = timeout(deadline, polling).await;
    // Rust prints this output if the test fails. The output shows which steps passed, and how long each step took.
    if started_at.elapsed() > POLL_INTERVAL {
        eprintln!("{:5.1} s until {expected}", started_at.elapsed().as_secs_f32());
    }
    result.map_err(|_| Failure::TimedOut(expected.to_owned(), deadline, Box::new(last_failure)))
}

/// Polls `check` for the whole `duration`. Returns an error as soon as the check fails.
pub async fn consistently(
    duration: Duration,
    expected: &str,
    mut check: impl AsyncFnMut() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let started_at = Instant::now();
    while started_at.elapsed() < duration {
        check().await.map_err(|failure| {
            let elapsed = started_at.elapsed().as_secs_f32();
            Failure::UnexpectedState(format!(
                "expected for {duration:?}: {expected}; the check after {elapsed:.1} s failed: {failure}"
            ))
        })?;
        sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::ensure;

    #[tokio::test]
    async fn timeout_message_has_the_last_result() {
        let mut calls = 0;
        let result = eventually_within(POLL_INTERVAL * 2, "the pod is ready", async || {
            calls += 1;
            Err::<(), _>(Failure::UnexpectedState(format!("call {calls}")))
        });
        let message = result.await.unwrap_err().to_string();
        assert!(message.contains("until the pod is ready; last result: call "), "{message}");
    }

    #[tokio::test]
    async fn consistently_fails_when_the_check_fails_before_the_end() {
        let mut calls = 0;
        let result = consistently(POLL_INTERVAL * 4, "the value is there", async || {
            calls += 1;
            ensure(calls < 2, || "it is gone".to_owned())
        });
        assert!(result.await.unwrap_err().to_string().ends_with("it is gone"));
    }
}
