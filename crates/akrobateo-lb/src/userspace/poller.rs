//! Waits for events of sockets with epoll, and maps each event to its object. I/O only.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::EventFlags;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use super::slab::{Key, Slab};

/// Maximum number of events that one wait returns.
const MAX_EVENTS_PER_WAIT: usize = 256;
/// Position of the token's kind in an encoded token, in bits.
const TOKEN_KIND_SHIFT: u32 = 60;
/// Flags of a connection that failed or ended in both directions.
const FAILED_OR_ENDED_FLAGS: EventFlags = EventFlags::ERR.union(EventFlags::HUP);

/// The object that an event belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// The worker's eventfd. An event means that another thread changed the shared state.
    Waker,
    /// A TCP listener, by its index in the worker's list.
    ListenerIndex(u32),
    /// A socket that receives the datagrams of a UDP port, by its index in the worker's list.
    UdpSocketIndex(u32),
    /// The client of a TCP connection.
    Client(Key),
    /// The target of a TCP connection.
    Target(Key),
    /// The target of a UDP session.
    UdpSession(Key),
}

impl Token {
    fn encode(self) -> u64 {
        let (kind, generation, index) = match self {
            Self::Waker => (0_u64, 0, 0),
            Self::ListenerIndex(index) => (1, 0, index),
            Self::UdpSocketIndex(index) => (2, 0, index),
            Self::Client(Key { index, generation }) => (3, generation, index),
            Self::Target(Key { index, generation }) => (4, generation, index),
            Self::UdpSession(Key { index, generation }) => (5, generation, index),
        };
        kind << TOKEN_KIND_SHIFT | u64::from(generation) << 32 | u64::from(index)
    }

    fn decode(bits: u64) -> Self {
        let index = u32::try_from(bits & u64::from(u32::MAX)).unwrap_or_default();
        let generation = u32::try_from(bits >> 32).unwrap_or_default() % Slab::<()>::GENERATION_COUNT;
        let key = Key { index, generation };
        match bits >> TOKEN_KIND_SHIFT {
            1 => Self::ListenerIndex(index),
            2 => Self::UdpSocketIndex(index),
            3 => Self::Client(key),
            4 => Self::Target(key),
            5 => Self::UdpSession(key),
            _ => Self::Waker,
        }
    }
}

/// The changes that epoll reports for a socket. The changes are only a hint, because only a system call shows the real
/// state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Readiness(EventFlags);

impl Readiness {
    pub(super) const fn is_readable(self) -> bool {
        self.0.intersects(FAILED_OR_ENDED_FLAGS.union(EventFlags::IN).union(EventFlags::RDHUP))
    }

    pub(super) const fn is_writable(self) -> bool {
        self.0.intersects(FAILED_OR_ENDED_FLAGS.union(EventFlags::OUT))
    }

    /// Returns true if the end of the stream, or an error, comes after the bytes that have arrived. Epoll may not
    /// report the end again, so the caller must read the socket until the end.
    pub(super) const fn is_closing(self) -> bool {
        self.0.intersects(FAILED_OR_ENDED_FLAGS.union(EventFlags::RDHUP))
    }

    /// Returns true if the connection failed or ended in both directions.
    pub(super) const fn has_failed_or_ended(self) -> bool {
        self.0.intersects(FAILED_OR_ENDED_FLAGS)
    }
}

/// An epoll instance in edge-triggered mode: it reports each change once.
#[derive(Debug)]
pub(super) struct Poller(OwnedFd);

/// The events that one wait returned.
pub(super) struct Events(Vec<epoll::Event>);

impl Events {
    pub(super) fn new() -> Self {
        Self(Vec::with_capacity(MAX_EVENTS_PER_WAIT))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Token, Readiness)> {
        self.0.iter().map(|event| {
            // The structure is packed, so its fields are copied before they are used.
            let (data, flags) = (event.data, event.flags);
            (Token::decode(data.u64()), Readiness(flags))
        })
    }
}

impl Poller {
    pub(super) fn new() -> Result<Self, Errno> {
        epoll::create(epoll::CreateFlags::CLOEXEC).map(Self)
    }

    /// Starts to report the socket's current state and each later change, until the socket is closed.
    pub(super) fn add(&self, socket: impl AsFd, token: Token) -> Result<(), Errno> {
        let flags = match token {
            Token::Client(_) | Token::Target(_) => {
                EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET
            }
            Token::Waker | Token::ListenerIndex(_) | Token::UdpSocketIndex(_) | Token::UdpSession(_) => {
                EventFlags::IN | EventFlags::ET
            }
        };
        epoll::add(&self.0, socket, epoll::EventData::new_u64(token.encode()), flags)
    }

    /// Waits for events for at most `timeout_ms` milliseconds; `None` waits without a limit.
    pub(super) fn wait(&self, events: &mut Events, timeout_ms: Option<u64>) -> Result<(), Errno> {
        let timeout =
            timeout_ms.and_then(|timeout_ms| Timespec::try_from(Duration::from_millis(timeout_ms)).ok());
        events.0.clear();
        match epoll::wait(&self.0, spare_capacity(&mut events.0), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode_reverses_encode_for_every_token() {
        let key = Key { index: u32::MAX, generation: Slab::<()>::GENERATION_COUNT - 1 };
        let tokens_with_index = [Token::Waker, Token::ListenerIndex(7), Token::UdpSocketIndex(u32::MAX)];
        let tokens_with_key = [Token::Client(key), Token::Target(key), Token::UdpSession(key)];
        for token in tokens_with_index.into_iter().chain(tokens_with_key) {
            assert_eq!(Token::decode(token.encode()), token);
        }
    }
}
