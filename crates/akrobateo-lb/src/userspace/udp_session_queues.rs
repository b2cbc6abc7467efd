//! The order in which the UDP sessions of a worker are replaced and expire. Pure.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use super::slab::Key;

/// The lowest and the highest key.
const MIN_KEY: Key = Key { index: 0, generation: 0 };
const MAX_KEY: Key = Key { index: u32::MAX, generation: u32::MAX };
/// The minimum share of unassured sessions, as a divisor: a quarter. If the share is lower, a new session replaces an
/// assured session. Without this rule, assured sessions of forged source addresses could fill the table. Each new
/// session would then replace the previous new session before the target has answered.
const UNASSURED_SHARE_DIVISOR: usize = 4;

/// The position of a session in a queue. Each queue is sorted by this value: first the unassured sessions, then the
/// assured sessions. Each part is sorted by the time of the last activity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct QueuePosition {
    pub(super) is_assured: bool,
    /// Milliseconds since the worker's start.
    pub(super) last_activity_ms: u64,
}

/// The number of all sessions in a queue, and of the unassured sessions among them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SessionCount {
    pub(super) total_count: usize,
    /// The number of sessions whose [`QueuePosition`] is not assured.
    unassured_count: usize,
}

impl SessionCount {
    /// Returns true if at least a quarter of the sessions are unassured.
    pub(super) const fn has_enough_unassured_sessions(self) -> bool {
        self.unassured_count * UNASSURED_SHARE_DIVISOR >= self.total_count
    }
}

/// The queue of all sessions, and one queue for each source address.
///
/// A parameter `source` selects the queue of one source address; `None` selects the queue of all sessions.
#[derive(Debug, Default)]
pub(super) struct UdpSessionQueues {
    /// Each session has two entries: one in the queue of all sessions, and one in the queue of its source address.
    entries: BTreeSet<(Option<IpAddr>, QueuePosition, Key)>,
    /// The number of sessions in each queue that is not empty.
    session_counts: HashMap<Option<IpAddr>, SessionCount>,
}

impl UdpSessionQueues {
    /// Returns the number of sessions in a queue.
    pub(super) fn count_sessions(&self, source: Option<IpAddr>) -> SessionCount {
        self.session_counts.get(&source).copied().unwrap_or_default()
    }

    /// Adds a session to the queue of all sessions, and to the queue of its source address.
    pub(super) fn insert(&mut self, source: IpAddr, position: QueuePosition, key: Key) {
        for source in [None, Some(source)] {
            self.entries.insert((source, position, key));
            let count = self.session_counts.entry(source).or_default();
            count.total_count += 1;
            count.unassured_count += usize::from(!position.is_assured);
        }
    }

    /// Removes a session that was added with the same arguments.
    pub(super) fn remove(&mut self, source: IpAddr, position: QueuePosition, key: Key) {
        for source in [None, Some(source)] {
            self.entries.remove(&(source, position, key));
            if let Some(count) = self.session_counts.get_mut(&source) {
                count.total_count -= 1;
                count.unassured_count -= usize::from(!position.is_assured);
                if count.total_count == 0 {
                    self.session_counts.remove(&source);
                }
            }
        }
    }

    /// Returns the first session of one part of a queue: the assured sessions if `is_assured` is true, and otherwise
    /// the unassured sessions.
    pub(super) fn first(&self, source: Option<IpAddr>, is_assured: bool) -> Option<(QueuePosition, Key)> {
        let first_position = QueuePosition { is_assured, last_activity_ms: 0 };
        let last_position = QueuePosition { is_assured, last_activity_ms: u64::MAX };
        let range = (source, first_position, MIN_KEY)..=(source, last_position, MAX_KEY);
        self.entries.range(range).next().map(|(_, position, key)| (*position, *key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_of_a_source_has_only_sessions_of_this_source() {
        let mut queues = UdpSessionQueues::default();
        let sources = [1, 2].map(|host| IpAddr::from([192, 0, 2, host]));
        let sessions = [(sources[0], 7, true), (sources[1], 5, false), (sources[0], 6, false)];
        for (index, (source, last_activity_ms, is_assured)) in (0..).zip(sessions) {
            let key = Key { index, generation: 0 };
            queues.insert(source, QueuePosition { is_assured, last_activity_ms }, key);
        }
        let first = |queues: &UdpSessionQueues, source, is_assured| {
            queues.first(source, is_assured).map(|(position, key)| (position.last_activity_ms, key.index))
        };
        assert_eq!(first(&queues, None, false), Some((5, 1)));
        assert_eq!(first(&queues, Some(sources[0]), false), Some((6, 2)));
        assert_eq!(first(&queues, Some(sources[1]), true), None);
        assert_eq!(queues.count_sessions(Some(sources[0])).total_count, 2);
        for (index, (source, last_activity_ms, is_assured)) in (0..).zip(sessions) {
            let key = Key { index, generation: 0 };
            queues.remove(source, QueuePosition { is_assured, last_activity_ms }, key);
        }
        assert!(queues.entries.is_empty() && queues.session_counts.is_empty());
    }
}
