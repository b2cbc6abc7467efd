//! Limits how often the operator restores an object that another program changes repeatedly. Pure.

use std::collections::VecDeque;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// The start of each message about a conflict. The administrator's commands search for this text.
pub(super) const CONFLICT_PREFIX: &str = "another program (";

/// The limits for one kind of object.
#[derive(Debug)]
pub(super) struct ConflictPolicy {
    /// The maximum number of changes within `counting_window` that the operator reverts immediately.
    pub(super) max_immediate_restores: usize,
    counting_window: SignedDuration,
    /// The delay before the first restore in a conflict. Each restore doubles the delay of the next restore.
    min_backoff: SignedDuration,
    max_backoff: SignedDuration,
    /// The conflict ends if neither the other program nor the operator writes the object for this time.
    quiet_period: SignedDuration,
}

/// The limits for a status. A restore of a status is cheap, and the addresses are wrong until the restore.
pub(super) const STATUS_POLICY: ConflictPolicy = ConflictPolicy {
    max_immediate_restores: 3,
    counting_window: SignedDuration::from_mins(1),
    min_backoff: SignedDuration::from_secs(10),
    max_backoff: SignedDuration::from_mins(5),
    quiet_period: SignedDuration::from_mins(1),
};

/// The limits for a workload. A restore of a workload may replace all proxies of the Service. Some programs change a
/// workload only once in an hour.
pub(super) const WORKLOAD_POLICY: ConflictPolicy = ConflictPolicy {
    max_immediate_restores: 2,
    counting_window: SignedDuration::from_hours(24),
    min_backoff: SignedDuration::from_hours(6),
    max_backoff: SignedDuration::from_hours(24),
    quiet_period: SignedDuration::from_mins(10),
};

/// A conflict with another program that changes the object repeatedly.
#[derive(Clone, Debug)]
struct WriteConflict {
    /// The message for the user. The message does not change during the conflict.
    message: String,
    backoff: SignedDuration,
    /// The earliest time at which the operator may restore the object.
    earliest_restore_at: Timestamp,
    /// The time of the operator's last write in this conflict.
    last_written_at: Option<Timestamp>,
}

/// The changes of one object by other programs.
#[derive(Debug)]
pub(super) struct ConflictTracker {
    policy: &'static ConflictPolicy,
    /// The newest resourceVersion that the tracker knows. The version belongs to a write by the operator, or to a
    /// counted change by another program.
    newest_version: Option<u64>,
    /// True if the tracker has counted a change after the operator's last write.
    has_counted_change: bool,
    /// The times of the changes in the policy's counting window, the newest first.
    change_times: VecDeque<Timestamp>,
    conflict: Option<WriteConflict>,
}

impl ConflictTracker {
    /// Returns a tracker without any recorded change.
    pub(super) const fn new(policy: &'static ConflictPolicy) -> Self {
        Self {
            policy,
            newest_version: None,
            has_counted_change: false,
            change_times: VecDeque::new(),
            conflict: None,
        }
    }

    /// Records that the object differs from the last write of the operator. The tracker counts at most one change after
    /// each write. The tracker ignores a version of the object that is older than the write.
    pub(super) fn on_change_by_other_program(
        &mut self,
        version: Option<&str>,
        now: Timestamp,
        message: impl FnOnce() -> String,
    ) {
        let version = parse_version(version);
        if self.has_counted_change || (version.is_some() && version <= self.newest_version) {
            return;
        }
        self.has_counted_change = true;
        self.newest_version = version.max(self.newest_version);
        let window_start = now - self.policy.counting_window;
        self.change_times.retain(|time| *time > window_start);
        // Older changes have no effect on the limits.
        self.change_times.truncate(self.policy.max_immediate_restores);
        self.change_times.push_front(now);
        if self.conflict.is_none() && self.change_times.len() > self.policy.max_immediate_restores {
            self.conflict = Some(WriteConflict {
                message: message(),
                backoff: self.policy.min_backoff,
                earliest_restore_at: now + self.policy.min_backoff,
                last_written_at: None,
            });
        }
    }

    /// Records that the object has the content of the operator's last write. The conflict ends after the quiet period.
    pub(super) fn on_unchanged(&mut self, now: Timestamp) {
        if self.conflict_ends_at().is_some_and(|end| end <= now) {
            self.conflict = None;
        }
    }

    /// Records a successful write of the operator. `is_restore` is true if the operator's previous write had this
    /// content.
    pub(super) fn on_write(&mut self, version: Option<&str>, is_restore: bool, now: Timestamp) {
        self.newest_version = parse_version(version).max(self.newest_version);
        self.has_counted_change = false;
        if let Some(conflict) = &mut self.conflict {
            if is_restore {
                conflict.backoff = (conflict.backoff * 2).min(self.policy.max_backoff);
            }
            conflict.earliest_restore_at = now + conflict.backoff;
            conflict.last_written_at = Some(now);
        }
    }

    /// Returns the message about the conflict.
    pub(super) fn message(&self) -> Option<&str> {
        self.conflict.as_ref().map(|conflict| conflict.message.as_str())
    }

    /// Returns the time until which the operator must not write; `None` if the operator may write now. In a conflict,
    /// two writes of changed content are at least `min_backoff` apart.
    pub(super) fn delayed_until(&self, is_restore: bool, now: Timestamp) -> Option<Timestamp> {
        let conflict = self.conflict.as_ref()?;
        let write_at = if is_restore {
            Some(conflict.earliest_restore_at)
        } else {
            conflict.last_written_at.map(|written_at| written_at + self.policy.min_backoff)
        };
        write_at.filter(|write_at| *write_at > now)
    }

    /// Returns the time at which the conflict ends if no program changes the object until then.
    pub(super) fn conflict_ends_at(&self) -> Option<Timestamp> {
        let conflict = self.conflict.as_ref()?;
        let last_activity = self.change_times.front().copied().max(conflict.last_written_at)?;
        Some(last_activity + self.policy.quiet_period)
    }
}

/// Parses a resourceVersion. Versions of one kind of object can be compared
/// (<https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>).
fn parse_version(version: Option<&str>) -> Option<u64> {
    version?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixtures::at;

    /// Simulates a program that changes the object every second from `start_second` to `end_second`. Returns the times
    /// of the operator's restores. When the conflict begins, the operator writes the new message once.
    fn simulate_restore_times(tracker: &mut ConflictTracker, start_second: i64, end_second: i64) -> Vec<i64> {
        let mut restore_times = Vec::new();
        for second in start_second..end_second {
            let (now, had_conflict) = (at(second), tracker.message().is_some());
            tracker.on_change_by_other_program(Some(&(2 * second).to_string()), now, || {
                format!("since {second}")
            });
            let written_version = Some((2 * second + 1).to_string());
            if tracker.message().is_some() && !had_conflict {
                assert_eq!(tracker.delayed_until(false, now), None);
                tracker.on_write(written_version.as_deref(), false, now);
            } else if tracker.delayed_until(true, now).is_none() {
                tracker.on_write(written_version.as_deref(), true, now);
                restore_times.push(second);
            }
        }
        restore_times
    }

    #[test]
    fn status_is_restored_rarely_during_a_conflict() {
        let mut tracker = ConflictTracker::new(&STATUS_POLICY);
        let restore_times = simulate_restore_times(&mut tracker, 0, 2000);
        assert_eq!(restore_times, [0, 1, 2, 13, 33, 73, 153, 313, 613, 913, 1213, 1513, 1813]);
        assert_eq!(tracker.message(), Some("since 3"));
    }

    #[test]
    fn conflict_ends_after_the_quiet_period() {
        let mut tracker = ConflictTracker::new(&STATUS_POLICY);
        simulate_restore_times(&mut tracker, 0, 20);
        assert_eq!(tracker.delayed_until(true, at(32)), Some(at(33)));
        tracker.on_write(Some("1000"), true, at(33));
        assert_eq!(tracker.conflict_ends_at(), Some(at(93)));
        tracker.on_unchanged(at(92));
        assert!(tracker.message().is_some());
        tracker.on_unchanged(at(93));
        assert_eq!(
            (tracker.message(), tracker.conflict_ends_at(), tracker.delayed_until(true, at(93))),
            (None, None, None)
        );
    }

    #[test]
    fn operator_reverts_rare_changes_immediately() {
        let mut tracker = ConflictTracker::new(&STATUS_POLICY);
        for change in 0..100 {
            let now = at(change * 21);
            tracker.on_change_by_other_program(Some(&(2 * change).to_string()), now, || unreachable!());
            assert_eq!(tracker.delayed_until(true, now), None);
            tracker.on_write(Some(&(2 * change + 1).to_string()), true, now);
        }
    }

    #[test]
    fn tracker_counts_one_change_after_each_write() {
        let mut tracker = ConflictTracker::new(&STATUS_POLICY);
        tracker.on_write(Some("10"), false, at(0));
        for (version, count) in [("9", 0), ("10", 0), ("11", 1), ("11", 1), ("12", 1), ("9", 1)] {
            tracker.on_change_by_other_program(Some(version), at(1), || unreachable!());
            assert_eq!(tracker.change_times.len(), count, "{version}");
        }
        // A deletion has no version. The cache may still have the version from before the deletion.
        tracker.on_write(None, true, at(1));
        tracker.on_change_by_other_program(Some("11"), at(1), || unreachable!());
        assert_eq!(tracker.change_times.len(), 1);
    }

    #[test]
    fn operator_restores_a_workload_twice_and_then_waits_for_hours() {
        let mut tracker = ConflictTracker::new(&WORKLOAD_POLICY);
        let day_seconds = 24 * 3600;
        assert_eq!(simulate_restore_times(&mut tracker, 0, day_seconds), [0, 1, 2 + 6 * 3600, 2 + 18 * 3600]);
    }

    #[test]
    fn conflict_limits_the_rate_of_writes_with_new_content() {
        let mut tracker = ConflictTracker::new(&STATUS_POLICY);
        simulate_restore_times(&mut tracker, 0, 20);
        assert_eq!(tracker.delayed_until(false, at(22)), Some(at(23)));
        assert_eq!(tracker.delayed_until(false, at(23)), None);
        tracker.on_write(Some("1000"), false, at(23));
        assert_eq!(tracker.delayed_until(false, at(24)), Some(at(33)));
        assert_eq!(tracker.delayed_until(true, at(24)), Some(at(43)));
    }
}
