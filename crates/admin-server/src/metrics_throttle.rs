//! Limits the share of the time that is spent on responses with metrics. Waits, and does no other I/O.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// The pause after a response with metrics, as a multiple of the time that the response took.
const PAUSE_FACTOR: u32 = 9;
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_millis(200);

/// Writes one response with metrics at a time, and makes a pause after each response.
///
/// A response with metrics costs much more than a probe, and every pod can request metrics. With the pauses, the
/// responses with metrics take at most a tenth of the time, and a probe waits for at most one of these responses.
#[derive(Debug)]
pub(crate) struct MetricsThrottle {
    next_response_start: Mutex<Option<Instant>>,
}

impl MetricsThrottle {
    pub(crate) fn new() -> Self {
        Self { next_response_start: Mutex::new(None) }
    }

    /// Waits until the earlier responses are written and the pause is over, then calls `write` and returns the result
    /// of `write`.
    pub(crate) async fn run<T>(&self, write: impl FnOnce() -> T) -> T {
        let mut next_response_start = self.next_response_start.lock().await;
        if let Some(time) = *next_response_start {
            sleep_until(time).await;
        }
        let start = std::time::Instant::now();
        let result = write();
        let pause = (start.elapsed() * PAUSE_FACTOR).min(MAX_PAUSE);
        *next_response_start = Some(Instant::now() + pause);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pause_after_a_slow_response_is_limited() {
        let throttle = MetricsThrottle::new();
        throttle.run(|| std::thread::sleep(Duration::from_millis(50))).await;
        // The test's clock advances only while the throttle sleeps.
        let start = Instant::now();
        throttle.run(|| ()).await;
        let pause = start.elapsed();
        assert!(pause >= MAX_PAUSE && pause < MAX_PAUSE + Duration::from_millis(10), "{pause:?}");
    }
}
