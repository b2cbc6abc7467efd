//! Polling with a deadline. Only the polled check does I/O.

use std::time::{Duration, Instant};

/// The deadline of [`eventually`]. This time is longer than any step of a test on a busy machine.
pub const DEADLINE: Duration = Duration::from_mins(1);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Polls `check` until it returns a value, and panics with `description` after [`DEADLINE`].
pub fn eventually<T>(description: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "timeout after {DEADLINE:?}; expected: {description}");
        std::thread::sleep(POLL_INTERVAL);
    }
}
