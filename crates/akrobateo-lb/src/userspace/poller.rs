//! What a worker waits for: epoll, and what its events are about. I/O only.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use super::slab::{Key, Slab};

/// Events that are taken from the kernel at a time.
const AT_A_TIME: usize = 256;
const KIND_SHIFT: u32 = 60;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// The worker is told something by another thread.
    Wake,
    /// A listener for connections, by its place in the worker's list.
    Listener(u32),
    /// A socket on which datagrams of new flows arrive, by its place in the worker's list.
    Datagrams(u32),
    /// A connection's side towards the client.
    Client(Key),
    /// A connection's side towards the target.
    Target(Key),
    /// A flow of datagrams' side towards the target.
    Flow(Key),
}

impl Token {
    fn encode(self) -> u64 {
        let (kind, generation, index) = match self {
            Self::Wake => (0_u64, 0, 0),
            Self::Listener(at) => (1, 0, at),
            Self::Datagrams(at) => (2, 0, at),
            Self::Client(Key { index, generation }) => (3, generation, index),
            Self::Target(Key { index, generation }) => (4, generation, index),
            Self::Flow(Key { index, generation }) => (5, generation, index),
        };
        kind << KIND_SHIFT | u64::from(generation) << 32 | u64::from(index)
    }

    fn decode(bits: u64) -> Self {
        let index = u32::try_from(bits & u64::from(u32::MAX)).unwrap_or_default();
        let generation = u32::try_from(bits >> 32).unwrap_or_default() % Slab::<()>::GENERATIONS;
        let key = Key { index, generation };
        match bits >> KIND_SHIFT {
            1 => Self::Listener(index),
            2 => Self::Datagrams(index),
            3 => Self::Client(key),
            4 => Self::Target(key),
            5 => Self::Flow(key),
            _ => Self::Wake,
        }
    }
}

/// What has changed; a hint only, since whoever acts on it finds out from the socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Readiness(epoll::EventFlags);

impl Readiness {
    pub(super) const fn readable(self) -> bool {
        self.0.intersects(FAILED.union(epoll::EventFlags::IN).union(epoll::EventFlags::RDHUP))
    }

    pub(super) const fn writable(self) -> bool {
        self.0.intersects(FAILED.union(epoll::EventFlags::OUT))
    }

    /// No more bytes come after those that are there: a read that finds few of them may not conclude that it has
    /// emptied the socket.
    pub(super) const fn ending(self) -> bool {
        self.0.intersects(FAILED.union(epoll::EventFlags::RDHUP))
    }

    /// The connection failed, or is no more.
    pub(super) const fn failed(self) -> bool {
        self.0.intersects(FAILED)
    }
}

const FAILED: epoll::EventFlags = epoll::EventFlags::ERR.union(epoll::EventFlags::HUP);

/// Waits for sockets; each change is told once.
#[derive(Debug)]
pub(super) struct Poller(OwnedFd);

/// The changes that a wait found; of one thread only.
pub(super) struct Events(Vec<epoll::Event>);

impl Events {
    pub(super) fn new() -> Self {
        Self(Vec::with_capacity(AT_A_TIME))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Token, Readiness)> {
        self.0.iter().map(|event| {
            // Copied out of the packed structure.
            let (data, flags) = (event.data, event.flags);
            (Token::decode(data.u64()), Readiness(flags))
        })
    }
}

impl Poller {
    pub(super) fn new() -> Result<Self, Errno> {
        epoll::create(epoll::CreateFlags::CLOEXEC).map(Self)
    }

    /// Tells of changes from now on, beginning with what is there already, until the descriptor is closed.
    pub(super) fn add(&self, socket: impl AsFd, token: Token) -> Result<(), Errno> {
        use epoll::EventFlags as Flag;
        let flags = match token {
            Token::Client(_) | Token::Target(_) => Flag::IN | Flag::OUT | Flag::RDHUP | Flag::ET,
            Token::Wake | Token::Listener(_) | Token::Datagrams(_) | Token::Flow(_) => Flag::IN | Flag::ET,
        };
        epoll::add(&self.0, socket, epoll::EventData::new_u64(token.encode()), flags)
    }

    /// Waits for changes; at most this many milliseconds, or without a limit.
    pub(super) fn wait(&self, events: &mut Events, limit: Option<u64>) -> Result<(), Errno> {
        let limit = limit.and_then(|limit| Timespec::try_from(Duration::from_millis(limit)).ok());
        events.0.clear();
        match epoll::wait(&self.0, spare_capacity(&mut events.0), limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_as_it_was() {
        let key = Key { index: u32::MAX, generation: Slab::<()>::GENERATIONS - 1 };
        let tokens = [Token::Wake, Token::Listener(7), Token::Datagrams(u32::MAX)];
        for token in tokens.into_iter().chain([Token::Client(key), Token::Target(key), Token::Flow(key)]) {
            assert_eq!(Token::decode(token.encode()), token);
        }
    }
}
