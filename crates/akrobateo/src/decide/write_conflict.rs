//! Limits how often the operator restores an object that another program keeps changing. Pure.

use std::collections::VecDeque;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// The start of each message about a conflict. The administrator's commands look for it.
pub(super) const CONFLICT_PREFIX: &str = "another program (";

/// The limits for one kind of object.
#[derive(Debug)]
pub(super) struct ConflictPolicy {
    /// The number of changes within `window` that the operator reverts at once.
    pub(super) prompt_restores: usize,
    window: SignedDuration,
    /// The delay before the first restore in a conflict. Each further restore doubles the delay.
    min_backoff: SignedDuration,
    max_backoff: SignedDuration,
    /// A conflict ends if nothing was changed and nothing was restored for this time.
    quiet_period: SignedDuration,
}

/// Restoring a status is cheap, and its addresses are wrong until it is restored.
pub(super) const STATUS_POLICY: ConflictPolicy = ConflictPolicy {
    prompt_restores: 3,
    window: SignedDuration::from_mins(1),
    min_backoff: SignedDuration::from_secs(10),
    max_backoff: SignedDuration::from_mins(5),
    quiet_period: SignedDuration::from_mins(1),
};

/// Restoring a workload may replace all proxies of the Service. Some programs look at workloads only once in an hour.
pub(super) const WORKLOAD_POLICY: ConflictPolicy = ConflictPolicy {
    prompt_restores: 2,
    window: SignedDuration::from_hours(24),
    min_backoff: SignedDuration::from_hours(6),
    max_backoff: SignedDuration::from_hours(24),
    quiet_period: SignedDuration::from_mins(10),
};

/// Another program keeps changing the object.
#[derive(Clone, Debug)]
struct Conflict {
    /// The message for the user. It stays the same as long as the conflict lasts.
    message: String,
    backoff: SignedDuration,
    /// The time from which on the operator may restore the object.
    restore_at: Timestamp,
    /// The operator's last write in this conflict.
    written_at: Option<Timestamp>,
}

/// The changes of one object by other programs.
#[derive(Debug)]
pub(super) struct ConflictTracker {
    policy: &'static ConflictPolicy,
    /// The newest version of the object that the operator has written or counted.
    version: Option<u64>,
    /// True if a change has been counted since the operator's last write.
    is_counted: bool,
    /// The times of the changes in the policy's window.
    changes: VecDeque<Timestamp>,
    conflict: Option<Conflict>,
}

impl ConflictTracker {
    /// Returns a tracker that has seen no change.
    pub(super) const fn new(policy: &'static ConflictPolicy) -> Self {
        Self { policy, version: None, is_counted: false, changes: VecDeque::new(), conflict: None }
    }

    /// Records that the object differs from the last write of the operator. One change counts for each write, and a
    /// version of the object from before that write does not count.
    pub(super) fn on_foreign_change(
        &mut self,
        version: Option<&str>,
        now: Timestamp,
        message: impl FnOnce() -> String,
    ) {
        let version = parse_version(version);
        if self.is_counted || (version.is_some() && version <= self.version) {
            return;
        }
        self.is_counted = true;
        self.version = version.max(self.version);
        let start = now - self.policy.window;
        self.changes.retain(|change| *change > start);
        // More changes decide nothing.
        self.changes.truncate(self.policy.prompt_restores);
        self.changes.push_front(now);
        if self.conflict.is_none() && self.changes.len() > self.policy.prompt_restores {
            self.conflict = Some(Conflict {
                message: message(),
                backoff: self.policy.min_backoff,
                restore_at: now + self.policy.min_backoff,
                written_at: None,
            });
        }
    }

    /// Records that the object is as the operator wrote it. The conflict ends after the quiet period.
    pub(super) fn on_intact(&mut self, now: Timestamp) {
        if self.ends_at().is_some_and(|end| end <= now) {
            self.conflict = None;
        }
    }

    /// Records a successful write of the operator. `is_restore` is true if the desired object has not changed.
    pub(super) fn on_write(&mut self, version: Option<&str>, is_restore: bool, now: Timestamp) {
        self.version = parse_version(version).max(self.version);
        self.is_counted = false;
        if let Some(conflict) = &mut self.conflict {
            if is_restore {
                conflict.backoff = (conflict.backoff * 2).min(self.policy.max_backoff);
            }
            conflict.restore_at = now + conflict.backoff;
            conflict.written_at = Some(now);
        }
    }

    /// Returns the message about the conflict.
    pub(super) fn message(&self) -> Option<&str> {
        self.conflict.as_ref().map(|conflict| conflict.message.as_str())
    }

    /// Returns the time before which the operator must not write, if there is one after `now`. In a conflict, the
    /// operator also writes its own changes, but not more often than it restores at first.
    pub(super) fn delay(&self, is_restore: bool, now: Timestamp) -> Option<Timestamp> {
        let conflict = self.conflict.as_ref()?;
        let write_at = if is_restore {
            Some(conflict.restore_at)
        } else {
            conflict.written_at.map(|written_at| written_at + self.policy.min_backoff)
        };
        write_at.filter(|write_at| *write_at > now)
    }

    /// Returns the time at which the conflict ends if no program changes the object until then.
    pub(super) fn ends_at(&self) -> Option<Timestamp> {
        let conflict = self.conflict.as_ref()?;
        let last = self.changes.front().copied().max(conflict.written_at)?;
        Some(last + self.policy.quiet_period)
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

    /// Simulates a program that changes the object every second from `from` to `until`, and returns the times of the
    /// operator's restores. The operator also writes once when the conflict begins, because its message changes.
    fn restores(tracker: &mut ConflictTracker, from: i64, until: i64) -> Vec<i64> {
        let mut restores = Vec::new();
        for second in from..until {
            let (now, had_conflict) = (at(second), tracker.message().is_some());
            tracker.on_foreign_change(Some(&(2 * second).to_string()), now, || format!("since {second}"));
            let written = Some((2 * second + 1).to_string());
            if tracker.message().is_some() && !had_conflict {
                assert_eq!(tracker.delay(false, now), None);
                tracker.on_write(written.as_deref(), false, now);
            } else if tracker.delay(true, now).is_none() {
                tracker.on_write(written.as_deref(), true, now);
                restores.push(second);
            }
        }
        restores
    }

    #[test]
    fn restores_of_a_status_slow_down_to_the_maximum_and_the_message_stays() {
        let mut tracker = ConflictTracker::new(&STATUS_POLICY);
        let times = restores(&mut tracker, 0, 2000);
        assert_eq!(times, [0, 1, 2, 13, 33, 73, 153, 313, 613, 913, 1213, 1513, 1813]);
        assert_eq!(tracker.message(), Some("since 3"));
    }

    #[test]
    fn conflict_ends_after_the_quiet_period() {
        let mut tracker = ConflictTracker::new(&STATUS_POLICY);
        restores(&mut tracker, 0, 20);
        assert_eq!(tracker.delay(true, at(32)), Some(at(33)));
        tracker.on_write(Some("1000"), true, at(33));
        assert_eq!(tracker.ends_at(), Some(at(93)));
        tracker.on_intact(at(92));
        assert!(tracker.message().is_some());
        tracker.on_intact(at(93));
        assert_eq!((tracker.message(), tracker.ends_at(), tracker.delay(true, at(93))), (None, None, None));
    }

    #[test]
    fn rare_changes_are_restored_at_once() {
        let mut tracker = ConflictTracker::new(&STATUS_POLICY);
        for change in 0..100 {
            let now = at(change * 21);
            tracker.on_foreign_change(Some(&(2 * change).to_string()), now, || unreachable!());
            assert_eq!(tracker.delay(true, now), None);
            tracker.on_write(Some(&(2 * change + 1).to_string()), true, now);
        }
    }

    #[test]
    fn one_change_counts_for_each_write_and_old_versions_do_not_count() {
        let mut tracker = ConflictTracker::new(&STATUS_POLICY);
        tracker.on_write(Some("10"), false, at(0));
        for (version, count) in [("9", 0), ("10", 0), ("11", 1), ("11", 1), ("12", 1), ("9", 1)] {
            tracker.on_foreign_change(Some(version), at(1), || unreachable!());
            assert_eq!(tracker.changes.len(), count, "{version}");
        }
        // The cache may still have the version before a deletion, which has no version.
        tracker.on_write(None, true, at(1));
        tracker.on_foreign_change(Some("11"), at(1), || unreachable!());
        assert_eq!(tracker.changes.len(), 1);
    }

    #[test]
    fn workload_is_restored_twice_and_then_left_alone_for_hours() {
        let mut tracker = ConflictTracker::new(&WORKLOAD_POLICY);
        let day = 24 * 3600;
        assert_eq!(restores(&mut tracker, 0, day), [0, 1, 2 + 6 * 3600, 2 + 18 * 3600]);
    }

    #[test]
    fn own_changes_are_written_during_a_conflict_but_not_all_at_once() {
        let mut tracker = ConflictTracker::new(&STATUS_POLICY);
        restores(&mut tracker, 0, 20);
        assert_eq!(tracker.delay(false, at(22)), Some(at(23)));
        assert_eq!(tracker.delay(false, at(23)), None);
        tracker.on_write(Some("1000"), false, at(23));
        assert_eq!(tracker.delay(false, at(24)), Some(at(33)));
        assert_eq!(tracker.delay(true, at(24)), Some(at(43)));
    }
}
