//! Finds, evicts and expires the UDP sessions of a worker. No I/O.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use super::slab::{Key, Slab};
use super::udp_session_queues::{QueuePosition, UdpSessionQueues};

/// The datagrams between one client and the target of a port.
#[derive(Debug)]
pub(super) struct UdpSession {
    /// Index of the worker's socket that receives the client's datagrams.
    pub(super) socket_index: u32,
    pub(super) client: SocketAddr,
    /// The socket that is connected to the target.
    pub(super) target_socket: OwnedFd,
    /// Time of the last forwarded datagram: milliseconds since the worker's start.
    pub(super) last_activity_ms: u64,
    /// True if the target has answered.
    pub(super) is_answered: bool,
    /// True if the client has sent a datagram after an answer. The term is from conntrack (`IPS_ASSURED`). An answer
    /// alone proves nothing, because the target also answers a forged source address.
    pub(super) is_assured: bool,
    /// True if the session was open when the proxy began to drain.
    pub(super) started_before_drain: bool,
}

impl UdpSession {
    /// Records a datagram of the client.
    pub(super) const fn on_datagram(&mut self, now_ms: u64) {
        self.last_activity_ms = now_ms;
        self.is_assured |= self.is_answered;
    }

    /// Records an answer of the target.
    pub(super) const fn on_answer(&mut self, now_ms: u64) {
        self.last_activity_ms = now_ms;
        self.is_answered = true;
    }
}

#[derive(Debug)]
struct Entry {
    session: UdpSession,
    /// The session's position in the queues. The position may be older than the session's state, because a datagram
    /// does not change the queues. The table updates the position when the session reaches the front of a queue.
    position: QueuePosition,
}

/// The UDP sessions of one worker.
#[derive(Debug)]
pub(super) struct UdpSessionTable {
    sessions: Slab<Entry>,
    keys_by_client: HashMap<(u32, SocketAddr), Key>,
    queues: UdpSessionQueues,
    /// Silence after which an unassured session expires, in milliseconds.
    unassured_timeout_ms: u64,
    /// Silence after which an assured session expires, in milliseconds.
    assured_timeout_ms: u64,
}

impl UdpSessionTable {
    pub(super) fn new(unassured_timeout_ms: u64, assured_timeout_ms: u64) -> Self {
        Self {
            sessions: Slab::new(),
            keys_by_client: HashMap::new(),
            queues: UdpSessionQueues::default(),
            unassured_timeout_ms,
            assured_timeout_ms,
        }
    }

    /// Returns true if there are no sessions.
    pub(super) const fn is_empty(&self) -> bool {
        self.sessions.len() == 0
    }

    /// Returns the number of sessions of a source address.
    pub(super) fn count_sessions_of_source(&self, source: IpAddr) -> usize {
        self.queues.count_sessions(Some(source)).total_count
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut UdpSession> {
        self.sessions.iter_mut().map(|(_, entry)| &mut entry.session)
    }

    pub(super) fn insert(&mut self, session: UdpSession) -> Key {
        let client = session.client;
        let client_key = (session.socket_index, client);
        let position =
            QueuePosition { is_assured: session.is_assured, last_activity_ms: session.last_activity_ms };
        let key = self.sessions.insert(Entry { session, position });
        self.keys_by_client.insert(client_key, key);
        self.queues.insert(client.ip(), position, key);
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
        self.queues.remove(session.client.ip(), position, key);
        Some(session)
    }

    /// Removes the session of `source` that has been silent longest; `None` means the sessions of all source addresses.
    /// Removes an assured session if less than a quarter of the sessions are unassured. If at least a quarter of the
    /// sessions are unassured, removes an unassured session.
    pub(super) fn evict_session(&mut self, source: Option<IpAddr>) -> Option<UdpSession> {
        let first_unassured_session = self.refresh_first_session(source, false);
        let (_, key) = match first_unassured_session {
            Some(first) if self.queues.count_sessions(source).has_enough_unassured_sessions() => first,
            _ => self.refresh_first_session(source, true).or(first_unassured_session)?,
        };
        self.remove(key)
    }

    /// Removes one expired session, if there is one.
    pub(super) fn remove_expired(&mut self, now_ms: u64) -> Option<UdpSession> {
        for (is_assured, timeout_ms) in [(false, self.unassured_timeout_ms), (true, self.assured_timeout_ms)]
        {
            if let Some((position, key)) = self.refresh_first_session(None, is_assured)
                && position.last_activity_ms + timeout_ms <= now_ms
            {
                return self.remove(key);
            }
        }
        None
    }

    /// Returns the earliest time at which a session can expire.
    pub(super) fn next_expiry_ms(&self) -> Option<u64> {
        let expiry = |is_assured, timeout_ms| {
            self.queues.first(None, is_assured).map(|(position, _)| position.last_activity_ms + timeout_ms)
        };
        let (first_unassured_expiry, first_assured_expiry) =
            (expiry(false, self.unassured_timeout_ms), expiry(true, self.assured_timeout_ms));
        first_unassured_expiry.into_iter().chain(first_assured_expiry).min()
    }

    /// Updates the positions of the sessions at the front of a queue, and then returns the first session as
    /// [`UdpSessionQueues::first`] does.
    fn refresh_first_session(
        &mut self,
        source: Option<IpAddr>,
        is_assured: bool,
    ) -> Option<(QueuePosition, Key)> {
        loop {
            let (position, key) = self.queues.first(source, is_assured)?;
            if self.update_position(key)? == position {
                return Some((position, key));
            }
        }
    }

    /// Moves a session to the position that belongs to its current state. Returns this position.
    fn update_position(&mut self, key: Key) -> Option<QueuePosition> {
        let entry = self.sessions.get_mut(key)?;
        let UdpSession { client, last_activity_ms, is_assured, .. } = entry.session;
        let previous_position =
            std::mem::replace(&mut entry.position, QueuePosition { is_assured, last_activity_ms });
        let position = entry.position;
        if position != previous_position {
            self.queues.remove(client.ip(), previous_position, key);
            self.queues.insert(client.ip(), position, key);
        }
        Some(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client_address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn open_session(client: SocketAddr, last_activity_ms: u64) -> UdpSession {
        UdpSession {
            socket_index: 0,
            client,
            target_socket: std::fs::File::open("/dev/null").unwrap().into(),
            last_activity_ms,
            is_answered: false,
            is_assured: false,
            started_before_drain: false,
        }
    }

    /// Returns a table with one session per client port. The time of a session's last activity is
    /// equal to the port number of the session's client.
    fn create_table(ports: std::ops::Range<u16>) -> (UdpSessionTable, Vec<Key>) {
        let mut table = UdpSessionTable::new(30, 120);
        let keys = ports.map(|port| table.insert(open_session(client_address(port), port.into()))).collect();
        (table, keys)
    }

    #[test]
    fn datagram_after_an_answer_makes_the_session_assured() {
        let mut session = open_session(client_address(1), 0);
        session.on_datagram(1);
        session.on_answer(2);
        session.on_answer(3);
        assert_eq!((session.is_assured, session.last_activity_ms), (false, 3));
        session.on_datagram(4);
        assert_eq!((session.is_assured, session.last_activity_ms), (true, 4));
    }

    /// Inserts an assured session of a forged source address: the client sends a second datagram after the answer.
    fn insert_forged_session(table: &mut UdpSessionTable, client: SocketAddr, now_ms: u64) {
        let key = table.insert(open_session(client, now_ms));
        let session = table.get_mut(key).unwrap();
        session.on_answer(now_ms);
        session.on_datagram(now_ms);
    }

    /// Fills a table with 1,000 forged sessions, and then opens a session for `new_client`. Checks that the next 239
    /// forged sessions do not replace the session of `new_client`.
    fn check_forged_sessions_do_not_evict_a_new_session(
        new_client: SocketAddr,
        forged_client: impl Fn(u16) -> SocketAddr,
        source: Option<IpAddr>,
    ) {
        let mut table = UdpSessionTable::new(30, 120);
        for number in 0..1_000 {
            insert_forged_session(&mut table, forged_client(number), number.into());
        }
        if source.is_some() {
            // The sessions of other source addresses must not influence the result.
            for port in 1..2_000 {
                table.insert(open_session(SocketAddr::from(([203, 0, 113, 1], port)), 0));
            }
        }
        table.evict_session(source).unwrap();
        let key = table.insert(open_session(new_client, 1_000));
        for number in 1_001..1_240 {
            table.evict_session(source).unwrap();
            assert!(table.get_mut(key).is_some(), "the session was replaced by forged session {number}");
            insert_forged_session(&mut table, forged_client(number), number.into());
        }
        for number in 1_240..2_500 {
            table.evict_session(source).unwrap();
            table.insert(open_session(forged_client(number), number.into()));
        }
        assert!(table.get_mut(key).is_none(), "an unassured session was never replaced");
    }

    #[test]
    fn assured_sessions_of_forged_source_addresses_do_not_evict_a_new_session() {
        let forged_client = |number: u16| {
            let [high, low] = number.to_be_bytes();
            SocketAddr::from(([198, 51, high, low], 1))
        };
        check_forged_sessions_do_not_evict_a_new_session(client_address(1), forged_client, None);
    }

    #[test]
    fn assured_sessions_of_the_same_source_address_do_not_evict_a_new_session() {
        let source = Some(client_address(1).ip());
        check_forged_sessions_do_not_evict_a_new_session(
            client_address(50_000),
            |number| client_address(1 + number),
            source,
        );
    }

    #[test]
    fn eviction_starts_with_the_unassured_session_that_is_silent_longest() {
        let (mut table, keys) = create_table(1..5);
        for (key, is_assured) in [(keys[0], true), (keys[2], false)] {
            let session = table.get_mut(key).unwrap();
            session.is_answered = true;
            session.is_assured = is_assured;
        }
        table.get_mut(keys[1]).unwrap().last_activity_ms = 9;
        let evicted_sessions: Vec<_> =
            std::iter::from_fn(|| table.evict_session(None)).map(|session| session.client.port()).collect();
        assert_eq!(evicted_sessions, [3, 4, 2, 1]);
        assert!(table.is_empty() && table.keys_by_client.is_empty());
        assert_eq!(table.next_expiry_ms(), None);
    }

    #[test]
    fn eviction_for_one_source_keeps_the_sessions_of_other_sources() {
        let (mut table, keys) = create_table(1..4);
        let other_client = SocketAddr::from(([192, 0, 2, 2], 1));
        table.insert(open_session(other_client, 0));
        table.get_mut(keys[0]).unwrap().is_assured = true;
        table.get_mut(keys[1]).unwrap().last_activity_ms = 9;
        let source = client_address(1).ip();
        assert_eq!(table.count_sessions_of_source(source), 3);
        let evicted_sessions: Vec<_> = std::iter::from_fn(|| table.evict_session(Some(source)))
            .map(|session| session.client.port())
            .collect();
        assert_eq!(evicted_sessions, [3, 2, 1]);
        assert_eq!(
            (table.count_sessions_of_source(source), table.count_sessions_of_source(other_client.ip())),
            (0, 1)
        );
        assert!(table.find(0, other_client).is_some());
    }

    #[test]
    fn assured_sessions_expire_later_and_activity_delays_expiry() {
        let (mut table, keys) = create_table(0..3);
        table.get_mut(keys[1]).unwrap().is_assured = true;
        table.get_mut(keys[2]).unwrap().is_answered = true;
        assert_eq!(table.next_expiry_ms(), Some(30));
        let expire_all = |table: &mut UdpSessionTable, now_ms| {
            let expired_sessions = std::iter::from_fn(|| table.remove_expired(now_ms));
            expired_sessions.map(|session| session.client.port()).collect::<Vec<_>>()
        };
        assert!(expire_all(&mut table, 29).is_empty());
        assert_eq!(expire_all(&mut table, 31), [0]);
        assert_eq!(table.next_expiry_ms(), Some(32));
        assert_eq!(expire_all(&mut table, 100), [2]);
        assert!(expire_all(&mut table, 120).is_empty());
        assert_eq!(expire_all(&mut table, 121), [1]);
        assert!(table.is_empty());
        assert_eq!(table.next_expiry_ms(), None);
    }
}
