//! Finds, evicts and expires the UDP sessions of a worker. No I/O.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use super::slab::{Key, Slab};

/// The datagrams between one client and the target of a port.
#[derive(Debug)]
pub(super) struct UdpSession {
    /// Index of the worker's socket that receives the client's datagrams.
    pub(super) socket_index: u32,
    pub(super) client: SocketAddr,
    /// The socket that is connected to the target.
    pub(super) target_socket: OwnedFd,
    /// Time of the last forwarded datagram: milliseconds since the worker's start.
    pub(super) last_activity: u64,
    /// The target has answered.
    pub(super) is_answered: bool,
}

/// The UDP sessions of one worker.
#[derive(Debug)]
pub(super) struct UdpSessionTable {
    sessions: Slab<UdpSession>,
    keys_by_client: HashMap<(u32, SocketAddr), Key>,
    /// Each session is in one of the two queues. A queue is ordered by the last activity of its sessions. A datagram
    /// does not move its session in the queue: the order is updated only when a session reaches the front.
    unanswered_queue: BTreeSet<(u64, Key)>,
    answered_queue: BTreeSet<(u64, Key)>,
    /// Silence after which a session expires, in milliseconds.
    unanswered_timeout: u64,
    answered_timeout: u64,
}

impl UdpSessionTable {
    pub(super) fn new(unanswered_timeout: u64, answered_timeout: u64) -> Self {
        Self {
            sessions: Slab::new(),
            keys_by_client: HashMap::new(),
            unanswered_queue: BTreeSet::new(),
            answered_queue: BTreeSet::new(),
            unanswered_timeout,
            answered_timeout,
        }
    }

    /// Returns true if there are no sessions.
    pub(super) const fn is_empty(&self) -> bool {
        self.sessions.len() == 0
    }

    pub(super) fn insert(&mut self, session: UdpSession) -> Key {
        let client = (session.socket_index, session.client);
        let last_activity = session.last_activity;
        let key = self.sessions.insert(session);
        self.keys_by_client.insert(client, key);
        self.unanswered_queue.insert((last_activity, key));
        key
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut UdpSession> {
        self.sessions.get_mut(key)
    }

    /// Returns the session of a client that sends to the socket.
    pub(super) fn find(&self, socket_index: u32, client: SocketAddr) -> Option<Key> {
        self.keys_by_client.get(&(socket_index, client)).copied()
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<UdpSession> {
        let session = self.remove_from_map(key)?;
        self.unanswered_queue.retain(|(_, queued)| *queued != key);
        self.answered_queue.retain(|(_, queued)| *queued != key);
        Some(session)
    }

    /// Removes the unanswered session that has been silent longest.
    pub(super) fn evict(&mut self) -> Option<UdpSession> {
        self.update_unanswered_queue()?;
        let (_, key) = self.unanswered_queue.pop_first()?;
        self.remove_from_map(key)
    }

    /// Removes one expired session, if there is one.
    pub(super) fn remove_expired(&mut self, now: u64) -> Option<UdpSession> {
        let is_expired = |last_activity: Option<u64>, timeout: u64| {
            last_activity.is_some_and(|last_activity| last_activity + timeout <= now)
        };
        let (_, key) = if is_expired(self.update_unanswered_queue(), self.unanswered_timeout) {
            self.unanswered_queue.pop_first()?
        } else if is_expired(self.update_answered_queue(), self.answered_timeout) {
            self.answered_queue.pop_first()?
        } else {
            return None;
        };
        self.remove_from_map(key)
    }

    /// Returns the earliest time at which a session can expire.
    pub(super) fn next_expiry(&self) -> Option<u64> {
        let expiry = |queue: &BTreeSet<(u64, Key)>, timeout: u64| {
            queue.first().map(|(last_activity, _)| last_activity + timeout)
        };
        let unanswered_expiry = expiry(&self.unanswered_queue, self.unanswered_timeout);
        let answered_expiry = expiry(&self.answered_queue, self.answered_timeout);
        unanswered_expiry.into_iter().chain(answered_expiry).min()
    }

    fn remove_from_map(&mut self, key: Key) -> Option<UdpSession> {
        let session = self.sessions.remove(key)?;
        self.keys_by_client.remove(&(session.socket_index, session.client));
        Some(session)
    }

    /// Moves the unanswered session that has been silent longest to the front. Returns its last activity.
    fn update_unanswered_queue(&mut self) -> Option<u64> {
        loop {
            let (queued_at, key) = *self.unanswered_queue.first()?;
            let session = self.sessions.get_mut(key)?;
            if !session.is_answered && session.last_activity == queued_at {
                return Some(queued_at);
            }
            self.unanswered_queue.pop_first();
            let queue =
                if session.is_answered { &mut self.answered_queue } else { &mut self.unanswered_queue };
            queue.insert((session.last_activity, key));
        }
    }

    /// Moves the answered session that has been silent longest to the front. Returns its last activity.
    fn update_answered_queue(&mut self) -> Option<u64> {
        loop {
            let (queued_at, key) = *self.answered_queue.first()?;
            let session = self.sessions.get_mut(key)?;
            if session.last_activity == queued_at {
                return Some(queued_at);
            }
            self.answered_queue.pop_first();
            self.answered_queue.insert((session.last_activity, key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    /// Returns a table with one session per client port. The last activity of each session is set to the port number of
    /// its client.
    fn table_with_sessions(ports: std::ops::Range<u16>) -> (UdpSessionTable, Vec<Key>) {
        let mut table = UdpSessionTable::new(30, 120);
        let session = |port: u16| UdpSession {
            socket_index: 0,
            client: client(port),
            target_socket: std::fs::File::open("/dev/null").unwrap().into(),
            last_activity: port.into(),
            is_answered: false,
        };
        let keys = ports.map(|port| table.insert(session(port))).collect();
        (table, keys)
    }

    #[test]
    fn evict_removes_the_unanswered_session_with_the_oldest_activity() {
        let (mut table, keys) = table_with_sessions(1..5);
        table.get_mut(keys[0]).unwrap().is_answered = true;
        table.get_mut(keys[1]).unwrap().last_activity = 9;
        let evicted: Vec<_> =
            std::iter::from_fn(|| table.evict()).map(|session| session.client.port()).collect();
        assert_eq!(evicted, [3, 4, 2]);
        assert!(table.find(0, client(1)).is_some() && table.find(0, client(2)).is_none());
        assert_eq!(table.sessions.len(), 1);
    }

    #[test]
    fn answered_sessions_expire_later_and_activity_delays_expiry() {
        let (mut table, keys) = table_with_sessions(0..3);
        table.get_mut(keys[1]).unwrap().is_answered = true;
        let mut expire_all = |now| {
            let expired_sessions = std::iter::from_fn(|| table.remove_expired(now));
            expired_sessions.map(|session| session.client.port()).collect::<Vec<_>>()
        };
        assert!(expire_all(29).is_empty());
        assert_eq!(expire_all(31), [0]);
        assert_eq!(expire_all(100), [2]);
        assert!(expire_all(120).is_empty());
        assert_eq!(expire_all(121), [1]);
        assert!(table.is_empty());
        assert_eq!(table.next_expiry(), None);
    }
}
