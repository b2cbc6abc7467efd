//! The netlink socket: sends requests to the kernel and reads its answers. I/O only.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol as RawProtocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink,
    recv, send, socket_with, sockopt,
};

use super::message::{self, Message, Messages};

/// The kernel fills answers of up to 32 KiB (`netlink_recvmsg` in the kernel).
const RECEIVE_LEN: usize = 32 * 1024;

/// Why the kernel didn't do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel has no such netlink protocol, or gives this process no socket.
    #[error("no netlink socket: {0}")]
    Socket(Errno),
    /// The request didn't reach the kernel, or the answer was lost.
    #[error("netlink: {0}")]
    Transport(Errno),
    /// The kernel refused the message with this number, counted from 1.
    #[error("the kernel refused: {errno}")]
    Refused {
        /// The number of the refused message.
        seq: u32,
        /// What the kernel says.
        errno: Errno,
    },
    /// No acknowledgement.
    #[error("the kernel gave no answer")]
    Silent,
    /// What was being listed changed meanwhile: ask again.
    #[error("the list changed while it was read")]
    Interrupted,
}

/// What a netlink socket is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Interfaces (`NETLINK_ROUTE`).
    Route,
    /// nftables and connection tracking (`NETLINK_NETFILTER`).
    Netfilter,
}

impl Protocol {
    fn raw(self) -> Option<RawProtocol> {
        match self {
            // Number 0, which stands for the family's default.
            Self::Route => None,
            Self::Netfilter => Some(netlink::NETFILTER),
        }
    }
}

/// A netlink socket.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// Opens a socket of `protocol` in this thread's network namespace.
    pub fn open(protocol: Protocol) -> Result<Self, NetlinkError> {
        let flags = SocketFlags::CLOEXEC;
        socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol.raw())
            .map(Self)
            .map_err(NetlinkError::Socket)
    }

    /// Opens a socket that hears what is proxy_protocol_for to `groups`, one bit per multicast group.
    pub fn listen(protocol: Protocol, groups: u32) -> Result<Self, NetlinkError> {
        let socket = Self::open(protocol)?;
        bind(&socket.0, &netlink::SocketAddrNetlink::new(0, groups)).map_err(NetlinkError::Socket)?;
        Ok(socket)
    }

    /// Sends the messages as one and hands the answers to `each`. At least one must ask for an answer in
    /// any case, with `ACK` or `DUMP`.
    pub fn request(
        &self,
        messages: &Messages,
        mut each: impl FnMut(&Message<'_>),
    ) -> Result<(), NetlinkError> {
        // What is left of the answers to a request that failed.
        self.drain();
        self.send(messages.bytes())?;
        let mut buffer = vec![0; RECEIVE_LEN];
        let mut refused: Option<NetlinkError> = None;
        let mut finished = false;
        let mut interrupted = false;
        // The kernel works while it is called, so that all answers are there when `send` returns.
        while let Some(datagram) = self.receive(&mut buffer)? {
            for message in Message::all(datagram) {
                interrupted |= message.flags & message::DUMP_INTERRUPTED != 0;
                match outcome(&message) {
                    Some(Err(errno)) => {
                        refused.get_or_insert(NetlinkError::Refused { seq: message.seq, errno });
                    }
                    Some(Ok(())) => finished |= message.seq == messages.awaited(),
                    None => each(&message),
                }
            }
        }
        match refused {
            Some(error) => Err(error),
            None if interrupted => Err(NetlinkError::Interrupted),
            None if finished => Ok(()),
            None => Err(NetlinkError::Silent),
        }
    }

    /// Discards what has come so far.
    pub fn drain(&self) {
        // Cut short by the buffer, or lost for lack of room: either way it is gone.
        let mut buffer = [0; 16];
        while matches!(recv(&self.0, &mut buffer[..], RecvFlags::DONTWAIT), Ok(_) | Err(Errno::NOBUFS)) {}
    }

    fn send(&self, bytes: &[u8]) -> Result<(), NetlinkError> {
        // One datagram must hold it all, to be one transaction. The kernel wants 32 bytes on top.
        let room = bytes.len() + 4096;
        if sockopt::socket_send_buffer_size(&self.0).is_ok_and(|size| size < room) {
            // Beyond the limit net.core.wmem_max where that is allowed; the kernel doubles either.
            if sockopt::set_socket_send_buffer_size_force(&self.0, room).is_err() {
                let _ = sockopt::set_socket_send_buffer_size(&self.0, room);
            }
        }
        send(&self.0, bytes, SendFlags::empty()).map(drop).map_err(NetlinkError::Transport)
    }

    fn receive<'a>(&self, buffer: &'a mut [u8]) -> Result<Option<&'a [u8]>, NetlinkError> {
        match recv(&self.0, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((len, _)) => Ok(Some(&buffer[..len])),
            Err(Errno::AGAIN) => Ok(None),
            Err(errno) => Err(NetlinkError::Transport(errno)),
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// How a request ended, if `message` says so.
fn outcome(message: &Message<'_>) -> Option<Result<(), Errno>> {
    let code = || message.payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    match message.kind {
        message::ERROR | message::DONE if code() < 0 => Some(Err(Errno::from_raw_os_error(-code()))),
        message::ERROR | message::DONE => Some(Ok(())),
        _ => None,
    }
}
