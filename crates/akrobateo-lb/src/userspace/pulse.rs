//! Detects workers that no longer run their loops. No I/O.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The time after which a worker without a sign of life counts as stuck. A worker may wait long for a busy processor, and
/// a restart would not help then.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// The signs of life that the workers give when they are woken.
#[derive(Debug)]
pub(super) struct Pulse {
    /// The time at which the workers were asked for a sign of life; `None` if they have never been asked.
    asked_at: Mutex<Option<Instant>>,
    /// One flag per worker: the worker has run after the last request.
    has_run: Box<[AtomicBool]>,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PulseCheck {
    /// All workers have run. The caller wakes them for the next check.
    Alive,
    /// A worker has not run yet, but has had little time.
    Waiting,
    /// The worker with this index is stuck.
    Stuck(usize),
}

impl Pulse {
    pub(super) fn new(workers: usize) -> Self {
        Self { asked_at: Mutex::new(None), has_run: (0..workers).map(|_| AtomicBool::new(true)).collect() }
    }

    /// Records that a worker runs.
    pub(super) fn record(&self, worker: usize) {
        if let Some(has_run) = self.has_run.get(worker) {
            has_run.store(true, Relaxed);
        }
    }

    /// Checks whether all workers have run since the last check that asked them.
    pub(super) fn check(&self, now: Instant) -> PulseCheck {
        let mut asked_at = self.asked_at.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(worker) = self.has_run.iter().position(|has_run| !has_run.load(Relaxed)) else {
            *asked_at = Some(now);
            self.has_run.iter().for_each(|has_run| has_run.store(false, Relaxed));
            return PulseCheck::Alive;
        };
        let is_stuck = asked_at.is_some_and(|asked_at| now.duration_since(asked_at) >= STUCK_AFTER);
        if is_stuck { PulseCheck::Stuck(worker) } else { PulseCheck::Waiting }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worker_is_stuck_if_it_does_not_run_for_long_after_it_was_asked() {
        let (pulse, start) = (Pulse::new(2), Instant::now());
        let check_at = |seconds| pulse.check(start + Duration::from_secs(seconds));
        assert_eq!(check_at(0), PulseCheck::Alive);
        // Many checks in a short time prove nothing.
        assert_eq!(check_at(0), PulseCheck::Waiting);
        pulse.record(0);
        assert_eq!([check_at(1), check_at(29)], [PulseCheck::Waiting; 2]);
        assert_eq!(check_at(30), PulseCheck::Stuck(1));
        pulse.record(1);
        assert_eq!(check_at(100), PulseCheck::Alive);
        assert_eq!(check_at(101), PulseCheck::Waiting);
    }
}
