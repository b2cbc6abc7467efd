//! Decides when the thread applies the configuration, and when it reads notifications. Pure: the caller supplies the
//! time.

use std::time::{Duration, Instant};

/// The time after which a failed change is tried again, and a failed watch is opened again.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The minimum time between a change and the next restoration. Without this pause, the agent and another program that
/// changes the same objects could use all of the processor's time.
const MIN_RESTORE_INTERVAL: Duration = Duration::from_millis(200);

/// The times of the next steps.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    /// The time at which the configuration must be applied; `None` after it was applied.
    apply_at: Option<Instant>,
    /// The time of the last attempt to apply the configuration.
    last_applied_at: Option<Instant>,
    /// True if the last attempt failed.
    last_attempt_failed: bool,
    /// The time at which a failed watch is opened again; `None` if the watch has not failed.
    reopen_watch_at: Option<Instant>,
}

impl Schedule {
    /// Creates the schedule of a thread that applies its configuration at once.
    pub(super) const fn new(now: Instant) -> Self {
        Self { apply_at: Some(now), last_applied_at: None, last_attempt_failed: false, reopen_watch_at: None }
    }

    /// Schedules the configuration for now, because the configuration has changed.
    pub(super) const fn on_config_change(&mut self, now: Instant) {
        self.apply_at = Some(now);
    }

    /// Schedules the configuration for a time in the near future, because another program may have changed the data
    /// path. After a failed attempt, the time of the next attempt does not change.
    pub(super) fn on_foreign_change(&mut self, now: Instant) {
        let restore_at = self.last_applied_at.map_or(now, |applied| now.max(applied + MIN_RESTORE_INTERVAL));
        match self.apply_at {
            Some(apply_at) if self.last_attempt_failed || apply_at <= restore_at => {}
            _ => self.apply_at = Some(restore_at),
        }
    }

    /// Stops the use of the watch for some time. During this time the agent may miss changes by other programs.
    pub(super) fn on_watch_failure(&mut self, now: Instant) {
        self.reopen_watch_at = Some(now + RETRY_INTERVAL);
        self.on_foreign_change(now);
    }

    /// Returns true if a failed watch must be opened again. In this case, [`Self::uses_watch`] returns true from now
    /// on.
    pub(super) fn must_reopen_watch(&mut self, now: Instant) -> bool {
        let is_due = self.reopen_watch_at.is_some_and(|until| until <= now);
        if is_due {
            self.reopen_watch_at = None;
        }
        is_due
    }

    /// Returns true if the watch has not failed.
    pub(super) const fn uses_watch(&self) -> bool {
        self.reopen_watch_at.is_none()
    }

    /// Returns true if the configuration must be applied.
    pub(super) fn must_apply_config(&self, now: Instant) -> bool {
        self.apply_at.is_some_and(|apply_at| apply_at <= now)
    }

    /// Records the end of an attempt to apply the configuration. After a success, `repeat_at` is the time at which a
    /// part of the change must be repeated.
    pub(super) fn on_applied(&mut self, now: Instant, is_successful: bool, repeat_at: Option<Instant>) {
        self.last_applied_at = Some(now);
        self.last_attempt_failed = !is_successful;
        self.apply_at = if is_successful { repeat_at } else { Some(now + RETRY_INTERVAL) };
    }

    /// Returns the time of the next step; `None` if the thread only waits for events.
    pub(super) fn next_step_at(&self) -> Option<Instant> {
        [self.apply_at, self.reopen_watch_at].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule_after_success(now: Instant) -> Schedule {
        let mut schedule = Schedule::new(now);
        assert!(schedule.must_apply_config(now));
        schedule.on_applied(now, true, None);
        assert_eq!(schedule.next_step_at(), None);
        schedule
    }

    #[test]
    fn foreign_changes_are_reverted_at_once_but_not_continuously() {
        let start = Instant::now();
        let mut schedule = schedule_after_success(start);
        let restore_time = start + Duration::from_secs(9);
        schedule.on_foreign_change(restore_time);
        assert!(schedule.must_apply_config(restore_time));
        schedule.on_applied(restore_time, true, None);
        schedule.on_foreign_change(restore_time);
        assert!(!schedule.must_apply_config(restore_time));
        assert!(schedule.must_apply_config(restore_time + MIN_RESTORE_INTERVAL));
        // A new configuration is applied without this pause.
        schedule.on_config_change(restore_time);
        assert!(schedule.must_apply_config(restore_time));
    }

    #[test]
    fn foreign_change_does_not_shorten_the_pause_after_a_failure() {
        let now = Instant::now();
        let mut schedule = schedule_after_success(now);
        schedule.on_applied(now, false, None);
        schedule.on_foreign_change(now + MIN_RESTORE_INTERVAL);
        assert_eq!(schedule.next_step_at(), Some(now + RETRY_INTERVAL));
        // After a success, the agent reverts a foreign change at once, and does not wait for the time `repeat_at`.
        let restore_time = now + Duration::from_secs(20);
        schedule.on_applied(now, true, Some(now + Duration::from_secs(30)));
        schedule.on_foreign_change(restore_time);
        assert!(schedule.must_apply_config(restore_time));
    }

    #[test]
    fn failed_watch_is_opened_again_after_a_pause() {
        let now = Instant::now();
        let mut schedule = schedule_after_success(now);
        schedule.on_watch_failure(now);
        assert!(!schedule.uses_watch());
        assert!(!schedule.must_reopen_watch(now));
        let restore_time = now + RETRY_INTERVAL;
        assert!(schedule.must_apply_config(restore_time));
        schedule.on_applied(now, true, None);
        // The thread wakes up when it must open the watch again.
        assert_eq!(schedule.next_step_at(), Some(restore_time));
        assert!(schedule.must_reopen_watch(restore_time));
        assert!(schedule.uses_watch());
        assert!(!schedule.must_reopen_watch(restore_time));
    }
}
