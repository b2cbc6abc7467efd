//! Detects workers that no longer run their loops. No I/O.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A worker is considered stuck if it has not run for this time. The time is long, because a worker may wait for a busy
/// processor. A restart would not shorten this wait.
const STUCK_TIMEOUT: Duration = Duration::from_secs(30);

/// Checks that all workers run their loops. Each check wakes the workers, and a woken worker records that it runs.
#[derive(Debug)]
pub(super) struct Watchdog {
    /// The time at which a check last cleared the flags; `None` before the first check.
    flags_cleared_at: Mutex<Option<Instant>>,
    /// One flag per worker: true if the worker has run after the flags were cleared.
    has_run_flags: Box<[AtomicBool]>,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WatchdogResult {
    /// All workers have run. The caller must wake all workers before the next check.
    AllHaveRun,
    /// A worker has not run yet, but the flags were cleared only recently.
    Waiting,
    /// The worker with this index is stuck.
    Stuck(usize),
}

impl Watchdog {
    pub(super) fn new(worker_count: usize) -> Self {
        Self {
            flags_cleared_at: Mutex::new(None),
            has_run_flags: (0..worker_count).map(|_| AtomicBool::new(true)).collect(),
        }
    }

    /// Records that a worker runs.
    pub(super) fn record_run(&self, worker_index: usize) {
        if let Some(has_run) = self.has_run_flags.get(worker_index) {
            has_run.store(true, Relaxed);
        }
    }

    /// Checks whether all workers have run after the last check that cleared the flags. If all workers have run, clears
    /// the flags again.
    pub(super) fn check(&self, now: Instant) -> WatchdogResult {
        let mut flags_cleared_at = self.flags_cleared_at.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(worker_index) = self.has_run_flags.iter().position(|has_run| !has_run.load(Relaxed)) else {
            *flags_cleared_at = Some(now);
            self.has_run_flags.iter().for_each(|has_run| has_run.store(false, Relaxed));
            return WatchdogResult::AllHaveRun;
        };
        let is_stuck = flags_cleared_at
            .is_some_and(|flags_cleared_at| now.duration_since(flags_cleared_at) >= STUCK_TIMEOUT);
        if is_stuck { WatchdogResult::Stuck(worker_index) } else { WatchdogResult::Waiting }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worker_that_has_not_run_for_thirty_seconds_is_stuck() {
        let (watchdog, start) = (Watchdog::new(2), Instant::now());
        let check_at = |seconds| watchdog.check(start + Duration::from_secs(seconds));
        assert_eq!(check_at(0), WatchdogResult::AllHaveRun);
        // The two checks have the same time, so the workers had no time to run between the checks.
        assert_eq!(check_at(0), WatchdogResult::Waiting);
        watchdog.record_run(0);
        assert_eq!([check_at(1), check_at(29)], [WatchdogResult::Waiting; 2]);
        assert_eq!(check_at(30), WatchdogResult::Stuck(1));
        watchdog.record_run(1);
        assert_eq!(check_at(100), WatchdogResult::AllHaveRun);
        assert_eq!(check_at(101), WatchdogResult::Waiting);
    }
}
