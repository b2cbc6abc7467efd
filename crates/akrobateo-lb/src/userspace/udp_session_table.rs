//! The table of a worker's UDP sessions: finds, evicts and expires them. No I/O.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use super::slab::{Key, Slab};

/// The datagrams between one client and a port's target.
#[derive(Debug)]
pub(super) struct UdpSession {
    /// Index of the worker's socket that receives the client's datagrams.
    pub(super) socket_index: u32,
    pub(super) client: SocketAddr,
    /// Connected to the target.
    pub(super) target_socket: OwnedFd,
    /// When the last datagram was forwarded: milliseconds since the worker's start.
    pub(super) last_activity: u64,
    /// The target has answered.
    pub(super) answered: bool,
    /// The session was open when the proxy began to drain.
    pub(super) predates_drain: bool,
}

/// The UDP sessions of one worker.
#[derive(Debug)]
pub(super) struct UdpSessionTable {
    sessions: Slab<UdpSession>,
    by_client: HashMap<(u32, SocketAddr), Key>,
    /// Each session is in one of the two queues, ordered by its last activity. The order is updated only when a session
    /// reaches the front, so that a datagram changes no queue.
    unanswered: BTreeSet<(u64, Key)>,
    answered: BTreeSet<(u64, Key)>,
    /// Silence after which a session expires, in milliseconds.
    unanswered_timeout: u64,
    answered_timeout: u64,
}

impl UdpSessionTable {
    pub(super) fn new(unanswered_timeout: u64, answered_timeout: u64) -> Self {
        Self {
            sessions: Slab::new(),
            by_client: HashMap::new(),
            unanswered: BTreeSet::new(),
            answered: BTreeSet::new(),
            unanswered_timeout,
            answered_timeout,
        }
    }

    /// Returns whether there are no sessions.
    pub(super) const fn is_empty(&self) -> bool {
        self.sessions.len() == 0
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut UdpSession> {
        self.sessions.iter_mut().map(|(_, session)| session)
    }

    pub(super) fn insert(&mut self, session: UdpSession) -> Key {
        let client = (session.socket_index, session.client);
        let last_activity = session.last_activity;
        let key = self.sessions.insert(session);
        self.by_client.insert(client, key);
        self.unanswered.insert((last_activity, key));
        key
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut UdpSession> {
        self.sessions.get_mut(key)
    }

    /// Returns the session of a client that sends to the socket.
    pub(super) fn find(&self, socket_index: u32, client: SocketAddr) -> Option<Key> {
        self.by_client.get(&(socket_index, client)).copied()
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<UdpSession> {
        let session = self.remove_from_index(key)?;
        self.unanswered.retain(|(_, queued)| *queued != key);
        self.answered.retain(|(_, queued)| *queued != key);
        Some(session)
    }

    /// Removes the unanswered session that has been silent longest.
    pub(super) fn evict(&mut self) -> Option<UdpSession> {
        self.refresh_unanswered()?;
        let (_, key) = self.unanswered.pop_first()?;
        self.remove_from_index(key)
    }

    /// Removes one expired session, if there is one.
    pub(super) fn expire(&mut self, now: u64) -> Option<UdpSession> {
        let is_expired = |last_activity: Option<u64>, timeout: u64| {
            last_activity.is_some_and(|last_activity| last_activity + timeout <= now)
        };
        let (_, key) = if is_expired(self.refresh_unanswered(), self.unanswered_timeout) {
            self.unanswered.pop_first()?
        } else if is_expired(self.refresh_answered(), self.answered_timeout) {
            self.answered.pop_first()?
        } else {
            return None;
        };
        self.remove_from_index(key)
    }

    /// Returns the earliest time at which a session can expire.
    pub(super) fn next_expiry(&self) -> Option<u64> {
        let expiry = |queue: &BTreeSet<(u64, Key)>, timeout: u64| {
            queue.first().map(|(last_activity, _)| last_activity + timeout)
        };
        let unanswered = expiry(&self.unanswered, self.unanswered_timeout);
        let answered = expiry(&self.answered, self.answered_timeout);
        unanswered.into_iter().chain(answered).min()
    }

    fn remove_from_index(&mut self, key: Key) -> Option<UdpSession> {
        let session = self.sessions.remove(key)?;
        self.by_client.remove(&(session.socket_index, session.client));
        Some(session)
    }

    /// Moves the unanswered session that has been silent longest to the front. Returns its last activity.
    fn refresh_unanswered(&mut self) -> Option<u64> {
        loop {
            let (queued_at, key) = *self.unanswered.first()?;
            let session = self.sessions.get_mut(key)?;
            if !session.answered && session.last_activity == queued_at {
                return Some(queued_at);
            }
            self.unanswered.pop_first();
            let queue = if session.answered { &mut self.answered } else { &mut self.unanswered };
            queue.insert((session.last_activity, key));
        }
    }

    /// Moves the answered session that has been silent longest to the front. Returns its last activity.
    fn refresh_answered(&mut self) -> Option<u64> {
        loop {
            let (queued_at, key) = *self.answered.first()?;
            let session = self.sessions.get_mut(key)?;
            if session.last_activity == queued_at {
                return Some(queued_at);
            }
            self.answered.pop_first();
            self.answered.insert((session.last_activity, key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    /// Returns a table with one session per client port. A session's last activity is its client's port number.
    fn table(ports: std::ops::Range<u16>) -> (UdpSessionTable, Vec<Key>) {
        let mut table = UdpSessionTable::new(30, 120);
        let session = |port: u16| UdpSession {
            socket_index: 0,
            client: client(port),
            target_socket: std::fs::File::open("/dev/null").unwrap().into(),
            last_activity: port.into(),
            answered: false,
            predates_drain: false,
        };
        let keys = ports.map(|port| table.insert(session(port))).collect();
        (table, keys)
    }

    #[test]
    fn evict_removes_the_longest_silent_unanswered_session() {
        let (mut table, keys) = table(1..5);
        table.get_mut(keys[0]).unwrap().answered = true;
        table.get_mut(keys[1]).unwrap().last_activity = 9;
        let evicted: Vec<_> =
            std::iter::from_fn(|| table.evict()).map(|session| session.client.port()).collect();
        assert_eq!(evicted, [3, 4, 2]);
        assert!(table.find(0, client(1)).is_some() && table.find(0, client(2)).is_none());
        assert_eq!(table.sessions.len(), 1);
    }

    #[test]
    fn answered_sessions_expire_later_and_activity_delays_expiry() {
        let (mut table, keys) = table(0..3);
        table.get_mut(keys[1]).unwrap().answered = true;
        let mut expire_all = |now| {
            let expired = std::iter::from_fn(|| table.expire(now));
            expired.map(|session| session.client.port()).collect::<Vec<_>>()
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
