//! Finds, evicts and expires the UDP sessions of a worker. No I/O.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use super::slab::{Key, Slab};

/// The lowest and the highest key.
const MIN_KEY: Key = Key { index: 0, generation: 0 };
const MAX_KEY: Key = Key { index: u32::MAX, generation: u32::MAX };
/// Unassured sessions may keep the table's size divided by this number: a quarter of the table. Otherwise assured sessions
/// of forged source addresses could fill the table. Then the next session would replace a new session before the target
/// has answered.
const UNASSURED_DIVISOR: usize = 4;

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
    /// The client has sent a datagram after an answer. The term is from conntrack (`IPS_ASSURED`). An answer alone proves
    /// nothing, because the target also answers a forged source address.
    pub(super) is_assured: bool,
    /// The session was open when the proxy began to drain.
    pub(super) predates_drain: bool,
}

impl UdpSession {
    /// Records a datagram of the client.
    pub(super) const fn on_datagram(&mut self, now: u64) {
        self.last_activity = now;
        self.is_assured |= self.is_answered;
    }

    /// Records an answer of the target.
    pub(super) const fn on_answer(&mut self, now: u64) {
        self.last_activity = now;
        self.is_answered = true;
    }
}

/// The position of a session in the queues. The queues are sorted by this value.
///
/// The position may be older than the session's state, because a datagram changes no queue. The table updates the position
/// when the session reaches the front of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct QueuePosition {
    is_assured: bool,
    /// Milliseconds since the worker's start.
    last_activity: u64,
}

/// A number of sessions.
#[derive(Clone, Copy, Debug, Default)]
struct SessionCount {
    total: usize,
    /// The number of sessions whose [`QueuePosition`] is not assured.
    unassured: usize,
}

impl SessionCount {
    /// Returns true if at least a quarter of the sessions are unassured.
    const fn has_unassured_quarter(self) -> bool {
        self.unassured * UNASSURED_DIVISOR >= self.total
    }
}

#[derive(Debug)]
struct Entry {
    session: UdpSession,
    position: QueuePosition,
}

/// The UDP sessions of one worker.
#[derive(Debug)]
pub(super) struct UdpSessionTable {
    sessions: Slab<Entry>,
    keys_by_client: HashMap<(u32, SocketAddr), Key>,
    /// All sessions. First the sessions that are not assured, then the assured sessions. Each part is sorted by the time
    /// of the last activity.
    queue: BTreeSet<(QueuePosition, Key)>,
    /// The same order for each source address.
    queue_by_source: BTreeSet<(IpAddr, QueuePosition, Key)>,
    /// The number of all sessions.
    count: SessionCount,
    /// The number of sessions of each source address.
    count_by_source: HashMap<IpAddr, SessionCount>,
    /// Silence after which an unassured session expires, in milliseconds.
    timeout_ms: u64,
    /// Silence after which an assured session expires, in milliseconds.
    assured_timeout_ms: u64,
}

impl UdpSessionTable {
    pub(super) fn new(timeout_ms: u64, assured_timeout_ms: u64) -> Self {
        Self {
            sessions: Slab::new(),
            keys_by_client: HashMap::new(),
            queue: BTreeSet::new(),
            queue_by_source: BTreeSet::new(),
            count: SessionCount::default(),
            count_by_source: HashMap::new(),
            timeout_ms,
            assured_timeout_ms,
        }
    }

    /// Returns true if there are no sessions.
    pub(super) const fn is_empty(&self) -> bool {
        self.sessions.len() == 0
    }

    /// Returns the number of sessions of a source address.
    pub(super) fn count_of_source(&self, source: IpAddr) -> usize {
        self.count_by_source.get(&source).map_or(0, |count| count.total)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut UdpSession> {
        self.sessions.iter_mut().map(|(_, entry)| &mut entry.session)
    }

    pub(super) fn insert(&mut self, session: UdpSession) -> Key {
        let client = session.client;
        let by_client = (session.socket_index, client);
        let position = QueuePosition { is_assured: session.is_assured, last_activity: session.last_activity };
        let key = self.sessions.insert(Entry { session, position });
        self.keys_by_client.insert(by_client, key);
        self.enqueue(client.ip(), position, key);
        key
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut UdpSession> {
        self.sessions.get_mut(key).map(|entry| &mut entry.session)
    }

    /// Returns the session of a client that sends to the socket.
    pub(super) fn find(&self, socket_index: u32, client: SocketAddr) -> Option<Key> {
        self.keys_by_client.get(&(socket_index, client)).copied()
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<UdpSession> {
        let Entry { session, position } = self.sessions.remove(key)?;
        self.keys_by_client.remove(&(session.socket_index, session.client));
        self.dequeue(session.client.ip(), position, key);
        Some(session)
    }

    /// Removes the session that has been silent longest. An assured session is removed only if less than a quarter of all
    /// sessions are unassured.
    pub(super) fn evict(&mut self) -> Option<UdpSession> {
        let unassured = self.refresh_first(false);
        let (_, key) = match unassured {
            Some(first) if self.count.has_unassured_quarter() => first,
            _ => self.refresh_first(true).or(unassured)?,
        };
        self.remove(key)
    }

    /// Removes a session as [`Self::evict`] does, but considers only the sessions of one source address.
    pub(super) fn evict_of_source(&mut self, source: IpAddr) -> Option<UdpSession> {
        let unassured = self.refresh_first_of_source(source, false);
        let count = self.count_by_source.get(&source).copied().unwrap_or_default();
        let key = match unassured {
            Some(first) if count.has_unassured_quarter() => first,
            _ => self.refresh_first_of_source(source, true).or(unassured)?,
        };
        self.remove(key)
    }

    /// Removes one expired session, if there is one.
    pub(super) fn remove_expired(&mut self, now: u64) -> Option<UdpSession> {
        for (is_assured, timeout_ms) in [(false, self.timeout_ms), (true, self.assured_timeout_ms)] {
            if let Some((position, key)) = self.refresh_first(is_assured)
                && position.last_activity + timeout_ms <= now
            {
                return self.remove(key);
            }
        }
        None
    }

    /// Returns the earliest time at which a session can expire.
    pub(super) fn next_expiry(&self) -> Option<u64> {
        let expiry = |is_assured, timeout_ms| {
            self.first(is_assured).map(|(position, _)| position.last_activity + timeout_ms)
        };
        let (first, first_assured) = (expiry(false, self.timeout_ms), expiry(true, self.assured_timeout_ms));
        first.into_iter().chain(first_assured).min()
    }

    /// Returns the first session in the part of the queue for assured, or for unassured, sessions.
    fn first(&self, is_assured: bool) -> Option<(QueuePosition, Key)> {
        let start = QueuePosition { is_assured, last_activity: 0 };
        let first = self.queue.range((start, MIN_KEY)..).next().copied();
        first.filter(|(position, _)| position.is_assured == is_assured)
    }

    /// Updates the positions of the sessions at the front of the queue, and then returns the first session as
    /// [`Self::first`] does.
    fn refresh_first(&mut self, is_assured: bool) -> Option<(QueuePosition, Key)> {
        loop {
            let (position, key) = self.first(is_assured)?;
            if self.update_position(key)? == position {
                return Some((position, key));
            }
        }
    }

    /// Does the same as [`Self::refresh_first`], but for the sessions of one source address.
    fn refresh_first_of_source(&mut self, source: IpAddr, is_assured: bool) -> Option<Key> {
        let first_position = QueuePosition { is_assured, last_activity: 0 };
        let last_position = QueuePosition { is_assured, last_activity: u64::MAX };
        loop {
            let positions = (source, first_position, MIN_KEY)..=(source, last_position, MAX_KEY);
            let (_, position, key) = *self.queue_by_source.range(positions).next()?;
            if self.update_position(key)? == position {
                return Some(key);
            }
        }
    }

    /// Moves a session to the position that belongs to its current state. Returns this position.
    fn update_position(&mut self, key: Key) -> Option<QueuePosition> {
        let entry = self.sessions.get_mut(key)?;
        let UdpSession { client, last_activity, is_assured, .. } = entry.session;
        let previous = std::mem::replace(&mut entry.position, QueuePosition { is_assured, last_activity });
        let position = entry.position;
        if position != previous {
            self.dequeue(client.ip(), previous, key);
            self.enqueue(client.ip(), position, key);
        }
        Some(position)
    }

    /// Adds a session to the queues, and counts the session.
    fn enqueue(&mut self, source: IpAddr, position: QueuePosition, key: Key) {
        self.queue.insert((position, key));
        self.queue_by_source.insert((source, position, key));
        for count in [&mut self.count, self.count_by_source.entry(source).or_default()] {
            count.total += 1;
            count.unassured += usize::from(!position.is_assured);
        }
    }

    /// Removes a session from the queues and from the counts.
    fn dequeue(&mut self, source: IpAddr, position: QueuePosition, key: Key) {
        self.queue.remove(&(position, key));
        self.queue_by_source.remove(&(source, position, key));
        for count in [&mut self.count, self.count_by_source.entry(source).or_default()] {
            count.total -= 1;
            count.unassured -= usize::from(!position.is_assured);
        }
        if self.count_of_source(source) == 0 {
            self.count_by_source.remove(&source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn session(client: SocketAddr, last_activity: u64) -> UdpSession {
        UdpSession {
            socket_index: 0,
            client,
            target_socket: std::fs::File::open("/dev/null").unwrap().into(),
            last_activity,
            is_answered: false,
            is_assured: false,
            predates_drain: false,
        }
    }

    /// Returns a table with one session per client port. A session's last activity is its client's port number.
    fn table(ports: std::ops::Range<u16>) -> (UdpSessionTable, Vec<Key>) {
        let mut table = UdpSessionTable::new(30, 120);
        let keys = ports.map(|port| table.insert(session(client(port), port.into()))).collect();
        (table, keys)
    }

    #[test]
    fn session_is_assured_by_a_datagram_after_an_answer() {
        let mut session = session(client(1), 0);
        session.on_datagram(1);
        session.on_answer(2);
        session.on_answer(3);
        assert!(!session.is_assured);
        session.on_datagram(4);
        assert!(session.is_assured);
    }

    /// Inserts the session of a forged source address: its client has sent a second datagram after the answer.
    fn insert_forged_session(table: &mut UdpSessionTable, client: SocketAddr, now: u64) {
        let key = table.insert(session(client, now));
        let session = table.get_mut(key).unwrap();
        session.on_answer(now);
        session.on_datagram(now);
    }

    /// Fills a table with 1,000 forged sessions, and then opens a session for `new_client`. Checks that the next 239 forged
    /// sessions do not replace the session of `new_client`.
    fn check_new_session_of_full_table(
        new_client: SocketAddr,
        forged_client: impl Fn(u16) -> SocketAddr,
        evict: impl Fn(&mut UdpSessionTable) -> Option<UdpSession>,
    ) {
        let mut table = UdpSessionTable::new(30, 120);
        for number in 0..1_000 {
            insert_forged_session(&mut table, forged_client(number), number.into());
        }
        evict(&mut table).unwrap();
        let key = table.insert(session(new_client, 1_000));
        for number in 1_001..1_240 {
            evict(&mut table).unwrap();
            assert!(table.get_mut(key).is_some(), "the session was replaced by forged session {number}");
            insert_forged_session(&mut table, forged_client(number), number.into());
        }
        for number in 1_240..2_500 {
            evict(&mut table).unwrap();
            table.insert(session(forged_client(number), number.into()));
        }
        assert!(table.get_mut(key).is_none(), "an unassured session was never replaced");
    }

    #[test]
    fn new_session_outlives_assured_sessions_of_forged_source_addresses() {
        let forged_client = |number: u16| {
            let [high, low] = number.to_be_bytes();
            SocketAddr::from(([198, 51, high, low], 1))
        };
        check_new_session_of_full_table(client(1), forged_client, UdpSessionTable::evict);
    }

    #[test]
    fn new_session_outlives_assured_sessions_of_its_own_forged_source_address() {
        let evict = |table: &mut UdpSessionTable| table.evict_of_source(client(1).ip());
        check_new_session_of_full_table(client(50_000), |number| client(1 + number), evict);
    }

    #[test]
    fn evict_removes_the_longest_silent_session_and_assured_sessions_last() {
        let (mut table, keys) = table(1..5);
        for (key, is_assured) in [(keys[0], true), (keys[2], false)] {
            let session = table.get_mut(key).unwrap();
            session.is_answered = true;
            session.is_assured = is_assured;
        }
        table.get_mut(keys[1]).unwrap().last_activity = 9;
        let evicted: Vec<_> =
            std::iter::from_fn(|| table.evict()).map(|session| session.client.port()).collect();
        assert_eq!(evicted, [3, 4, 2, 1]);
        assert!(table.is_empty() && table.queue.is_empty() && table.queue_by_source.is_empty());
        assert!(table.keys_by_client.is_empty() && table.count_by_source.is_empty());
    }

    #[test]
    fn evict_of_source_keeps_the_sessions_of_other_sources() {
        let (mut table, keys) = table(1..4);
        let other = SocketAddr::from(([192, 0, 2, 2], 1));
        table.insert(session(other, 0));
        table.get_mut(keys[0]).unwrap().is_assured = true;
        table.get_mut(keys[1]).unwrap().last_activity = 9;
        let source = client(1).ip();
        assert_eq!(table.count_of_source(source), 3);
        let evicted: Vec<_> = std::iter::from_fn(|| table.evict_of_source(source))
            .map(|session| session.client.port())
            .collect();
        assert_eq!(evicted, [3, 2, 1]);
        assert_eq!((table.count_of_source(source), table.count_of_source(other.ip())), (0, 1));
        assert!(table.find(0, other).is_some());
    }

    #[test]
    fn assured_sessions_expire_later_and_activity_delays_expiry() {
        let (mut table, keys) = table(0..3);
        table.get_mut(keys[1]).unwrap().is_assured = true;
        table.get_mut(keys[2]).unwrap().is_answered = true;
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
