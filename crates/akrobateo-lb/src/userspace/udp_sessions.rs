//! Flows of datagrams: which client's datagrams go out through which socket, and for how long. I/O on their sockets only.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{SocketType, connect, socket_with};

use super::listen::{FLAGS, family};
use super::slab::{Key, Slab};

/// The datagrams between one client and a port's target.
#[derive(Debug)]
pub(super) struct Flow {
    /// The place, in the worker's list, of the socket on which the client's datagrams arrive.
    pub(super) at: u32,
    pub(super) client: SocketAddr,
    /// Connected to the target.
    pub(super) socket: OwnedFd,
    /// Milliseconds since the worker began, when the last datagram went through.
    pub(super) since: u64,
    /// Whether the target has answered.
    pub(super) answered: bool,
}

impl Flow {
    pub(super) fn dial(at: u32, client: SocketAddr, target: SocketAddr, now: u64) -> Result<Self, Errno> {
        let socket = socket_with(family(target), SocketType::DGRAM, FLAGS, None)?;
        connect(&socket, &target)?;
        Ok(Self { at, client, socket, since: now, answered: false })
    }
}

/// The flows of one worker.
#[derive(Debug)]
pub(super) struct Flows {
    entries: Slab<Flow>,
    by_client: HashMap<(u32, SocketAddr), Key>,
    /// Each flow once, with when it was last known to be used. What has happened since is looked at when its
    /// turn comes.
    unanswered: BTreeSet<(u64, Key)>,
    answered: BTreeSet<(u64, Key)>,
    /// How long flows live, in milliseconds.
    unanswered_for: u64,
    answered_for: u64,
}

impl Flows {
    pub(super) fn new(unanswered_for: u64, answered_for: u64) -> Self {
        Self {
            entries: Slab::new(),
            by_client: HashMap::new(),
            unanswered: BTreeSet::new(),
            answered: BTreeSet::new(),
            unanswered_for,
            answered_for,
        }
    }

    pub(super) fn insert(&mut self, flow: Flow) -> Key {
        let (client, since) = ((flow.at, flow.client), flow.since);
        let key = self.entries.insert(flow);
        self.by_client.insert(client, key);
        self.unanswered.insert((since, key));
        key
    }

    pub(super) fn get(&mut self, key: Key) -> Option<&mut Flow> {
        self.entries.get_mut(key)
    }

    /// The flow of a client whose datagrams arrive there.
    pub(super) fn of(&self, at: u32, client: SocketAddr) -> Option<Key> {
        self.by_client.get(&(at, client)).copied()
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Flow> {
        let flow = self.forget(key)?;
        self.unanswered.retain(|(_, other)| *other != key);
        self.answered.retain(|(_, other)| *other != key);
        Some(flow)
    }

    /// Removes the flow that has been silent for longest of those that were never answered.
    pub(super) fn evict(&mut self) -> Option<Flow> {
        self.oldest_unanswered()?;
        let (_, key) = self.unanswered.pop_first()?;
        self.forget(key)
    }

    /// Removes a flow whose time is over, if there is one.
    pub(super) fn expire(&mut self, now: u64) -> Option<Flow> {
        if self.oldest_unanswered().is_some_and(|since| since + self.unanswered_for <= now) {
            let (_, key) = self.unanswered.pop_first()?;
            return self.forget(key);
        }
        if self.oldest_answered().is_some_and(|since| since + self.answered_for <= now) {
            let (_, key) = self.answered.pop_first()?;
            return self.forget(key);
        }
        None
    }

    /// When the next flow's time could be over.
    pub(super) fn next_expiry(&self) -> Option<u64> {
        let unanswered = self.unanswered.first().map(|(since, _)| since + self.unanswered_for);
        let answered = self.answered.first().map(|(since, _)| since + self.answered_for);
        unanswered.into_iter().chain(answered).min()
    }

    /// When the last datagram went through.
    pub(super) fn last_used(&self) -> Option<u64> {
        self.entries.iter().map(|(_, flow)| flow.since).max()
    }

    fn forget(&mut self, key: Key) -> Option<Flow> {
        let flow = self.entries.remove(key)?;
        self.by_client.remove(&(flow.at, flow.client));
        Some(flow)
    }

    /// Brings the flow to the front that has been silent for longest; returns since when.
    fn oldest_unanswered(&mut self) -> Option<u64> {
        loop {
            let (seen, key) = *self.unanswered.first()?;
            let flow = self.entries.get_mut(key)?;
            if !flow.answered && flow.since == seen {
                return Some(seen);
            }
            self.unanswered.pop_first();
            let queue = if flow.answered { &mut self.answered } else { &mut self.unanswered };
            queue.insert((flow.since, key));
        }
    }

    fn oldest_answered(&mut self) -> Option<u64> {
        loop {
            let (seen, key) = *self.answered.first()?;
            let flow = self.entries.get_mut(key)?;
            if flow.since == seen {
                return Some(seen);
            }
            self.answered.pop_first();
            self.answered.insert((flow.since, key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: fn(u16) -> SocketAddr = |port| SocketAddr::from(([192, 0, 2, 1], port));

    fn flows(numbers: std::ops::Range<u16>) -> (Flows, Vec<Key>) {
        let mut flows = Flows::new(30, 120);
        let dial = |number| Flow::dial(0, CLIENT(number), "127.0.0.1:9".parse().unwrap(), number.into());
        let keys = numbers.map(|number| flows.insert(dial(number).unwrap())).collect();
        (flows, keys)
    }

    #[test]
    fn the_longest_silent_of_the_unanswered_makes_way() {
        let (mut flows, keys) = flows(1..5);
        flows.get(keys[0]).unwrap().answered = true;
        flows.get(keys[1]).unwrap().since = 9;
        let evicted: Vec<_> = std::iter::from_fn(|| flows.evict()).map(|flow| flow.client.port()).collect();
        assert_eq!(evicted, [3, 4, 2]);
        assert!(flows.of(0, CLIENT(1)).is_some() && flows.of(0, CLIENT(2)).is_none());
        assert_eq!(flows.entries.len(), 1);
    }

    #[test]
    fn answered_flows_live_longer_and_use_renews_both() {
        let (mut flows, keys) = flows(0..3);
        flows.get(keys[1]).unwrap().answered = true;
        let mut expired =
            |now| std::iter::from_fn(|| flows.expire(now)).map(|flow| flow.client.port()).collect::<Vec<_>>();
        assert!(expired(29).is_empty());
        assert_eq!(expired(31), [0]);
        assert_eq!(expired(100), [2]);
        assert!(expired(120).is_empty());
        assert_eq!(expired(121), [1]);
        assert_eq!((flows.entries.len(), flows.next_expiry()), (0, None));
    }
}
