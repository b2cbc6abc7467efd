//! Converts times of the monotonic clock into wall-clock times. The planner measures with the monotonic clock, and
//! decisions contain wall-clock times. Pure.

use std::time::{Duration, Instant};

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// The current time on the monotonic clock and on the wall clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) now: Instant,
    pub(super) wall_clock: Timestamp,
}

impl Clock {
    /// Returns a clock whose wall clock is the Unix epoch, for callers that do not read wall-clock times.
    pub(super) const fn at(now: Instant) -> Self {
        Self { now, wall_clock: Timestamp::UNIX_EPOCH }
    }

    /// Converts a time of the monotonic clock.
    pub(super) fn to_timestamp(self, time: Instant) -> Timestamp {
        let duration = |duration: Duration| SignedDuration::try_from(duration).unwrap_or_default();
        let time_until = duration(time.saturating_duration_since(self.now));
        let time_since = duration(self.now.saturating_duration_since(time));
        self.wall_clock + time_until - time_since
    }
}
