//! Limits the share of time that responses with metrics take. Waits, and does no other I/O.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// The pause after a response with metrics, as a multiple of the time that it took.
const PAUSE_FACTOR: u32 = 9;
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_millis(200);

/// Lets one response with metrics be written at a time, with a pause after it.
///
/// Metrics cost much more than a probe, and every pod can request them. So they take at most a tenth of the time, and a
/// probe waits for at most one of them.
#[derive(Debug)]
pub(crate) struct MetricsPace {
    next_start: Mutex<Option<Instant>>,
}

impl MetricsPace {
    pub(crate) fn new() -> Self {
        Self { next_start: Mutex::new(None) }
    }

    /// Waits for the responses before it and for the pause, and returns the result of `write`.
    pub(crate) async fn run<T>(&self, write: impl FnOnce() -> T) -> T {
        let mut next_start = self.next_start.lock().await;
        if let Some(time) = *next_start {
            sleep_until(time).await;
        }
        let start = std::time::Instant::now();
        let result = write();
        let pause = (start.elapsed() * PAUSE_FACTOR).min(MAX_PAUSE);
        *next_start = Some(Instant::now() + pause);
        result
    }
}
