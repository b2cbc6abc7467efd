//! The netlink socket: sends requests to the kernel, reads its answers, and receives notifications. I/O only.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol as RawProtocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, getsockname,
    netlink, recv, send, socket_with, sockopt,
};

use super::message::{self, Message, Messages};

/// The size of the receive buffer. The kernel's answers have up to 32 KiB (`netlink_recvmsg` in the kernel).
const RECEIVE_BUFFER_LENGTH: usize = 32 * 1024;
/// The space that the send buffer has in addition to the messages, in bytes. The kernel itself needs only 32 bytes.
const SEND_BUFFER_OVERHEAD: usize = 4096;
/// The maximum number of attempts to list objects. An attempt fails if objects change while the kernel lists them.
const MAX_DUMP_ATTEMPTS: u32 = 10;

/// The reason why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel lacks the netlink protocol, or this process may not open a socket.
    #[error("cannot open a netlink socket: {0}")]
    OpenFailed(Errno),
    /// The request did not reach the kernel, or the answer was lost.
    #[error("cannot exchange netlink messages with the kernel: {0}")]
    TransportFailed(Errno),
    /// The kernel rejected a message.
    #[error("the kernel rejected the request: {errno}")]
    Rejected {
        /// The sequence number of the rejected message, from 1.
        seq: u32,
        /// The kernel's error number.
        errno: Errno,
    },
    /// The kernel's acknowledgement is missing.
    #[error("the kernel did not acknowledge the request")]
    NoAcknowledgement,
    /// The objects changed during a dump. The caller should try again.
    #[error("the kernel's list changed during the read")]
    DumpInterrupted,
}

/// A netlink protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Network interfaces (`NETLINK_ROUTE`).
    Route,
    /// nftables and conntrack (`NETLINK_NETFILTER`).
    Netfilter,
    /// The sockets of all processes (`NETLINK_SOCK_DIAG`).
    SocketDiagnostics,
}

impl Protocol {
    fn to_raw_protocol(self) -> Option<RawProtocol> {
        match self {
            // `NETLINK_ROUTE` is 0, which selects the default protocol of the address family.
            Self::Route => None,
            Self::Netfilter => Some(netlink::NETFILTER),
            Self::SocketDiagnostics => Some(netlink::SOCK_DIAG),
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
        socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol.to_raw_protocol())
            .map(Self)
            .map_err(NetlinkError::OpenFailed)
    }

    /// Opens a socket that receives the notifications of `groups`, one bit per multicast group.
    pub fn listen(protocol: Protocol, groups: u32) -> Result<Self, NetlinkError> {
        let socket = Self::open(protocol)?;
        bind(&socket.0, &netlink::SocketAddrNetlink::new(0, groups)).map_err(NetlinkError::OpenFailed)?;
        Ok(socket)
    }

    /// Sets the size of the kernel's buffer for received messages, if the kernel allows this size.
    pub fn set_receive_buffer_length(&self, length: usize) {
        // The first call may exceed net.core.rmem_max, but needs a capability.
        if sockopt::set_socket_recv_buffer_size_force(&self.0, length).is_err() {
            let _ = sockopt::set_socket_recv_buffer_size(&self.0, length);
        }
    }

    /// Returns the port ID with which the kernel identifies this socket. Notifications of changes have the port ID of
    /// the socket that requested the change.
    pub fn port_id(&self) -> Result<u32, NetlinkError> {
        // The kernel gives a socket its port ID when the socket is bound. An unbound socket gets its port ID at its
        // first request.
        let port_id = || Ok(netlink::SocketAddrNetlink::try_from(getsockname(&self.0)?)?.pid());
        match port_id() {
            Ok(0) => bind(&self.0, &netlink::SocketAddrNetlink::new(0, 0)).and_then(|()| port_id()),
            result => result,
        }
        .map_err(NetlinkError::OpenFailed)
    }

    /// Passes each notification that the socket has received to `on_message`. Returns false if the kernel had to
    /// discard notifications, because the socket's buffer was full.
    pub fn receive_notifications(
        &self,
        mut on_message: impl FnMut(&Message<'_>),
    ) -> Result<bool, NetlinkError> {
        let mut buffer = vec![0; RECEIVE_BUFFER_LENGTH];
        let mut is_complete = true;
        loop {
            match self.receive(&mut buffer) {
                Ok(Some(datagram)) => Message::parse_all(datagram).for_each(|message| on_message(&message)),
                Ok(None) => return Ok(is_complete),
                Err(NetlinkError::TransportFailed(Errno::NOBUFS)) => is_complete = false,
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends the messages in one datagram and passes each message of the answer to `on_message`.
    ///
    /// At least one of the messages must have the flag `ACK` or `DUMP`.
    pub fn request(
        &self,
        messages: &Messages,
        mut on_message: impl FnMut(&Message<'_>),
    ) -> Result<(), NetlinkError> {
        // If an earlier request failed, the rest of its answer may still be in the socket.
        self.discard_received();
        self.send(messages.bytes())?;
        let mut buffer = vec![0; RECEIVE_BUFFER_LENGTH];
        let mut first_rejection: Option<NetlinkError> = None;
        let mut is_acknowledged = false;
        let mut is_dump_interrupted = false;
        // The kernel handles a request before `send` returns, so the complete answer is in the socket now.
        while let Some(datagram) = self.receive(&mut buffer)? {
            for message in Message::parse_all(datagram) {
                is_dump_interrupted |= message.flags & message::NLM_F_DUMP_INTR != 0;
                match parse_acknowledgement(&message) {
                    Some(Err(errno)) => {
                        first_rejection.get_or_insert(NetlinkError::Rejected { seq: message.seq, errno });
                    }
                    Some(Ok(())) => is_acknowledged |= message.seq == messages.awaited_seq(),
                    None => on_message(&message),
                }
            }
        }
        match first_rejection {
            Some(error) => Err(error),
            None if is_dump_interrupted => Err(NetlinkError::DumpInterrupted),
            None if is_acknowledged => Ok(()),
            None => Err(NetlinkError::NoAcknowledgement),
        }
    }

    /// Lists objects: sends the message with the flag `DUMP`, and returns the objects that `parse` finds in the
    /// answers. If the objects change during the dump, the dump starts again.
    pub fn dump<T>(
        &self,
        request: &Messages,
        mut parse: impl FnMut(&Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..MAX_DUMP_ATTEMPTS {
            let mut objects = Vec::new();
            match self.request(request, |message| objects.extend(parse(message))) {
                Err(NetlinkError::DumpInterrupted) => {}
                result => return result.map(|()| objects),
            }
        }
        Err(NetlinkError::DumpInterrupted)
    }

    /// Discards all messages that the socket has received.
    pub fn discard_received(&self) {
        // The error NOBUFS means that the kernel has already discarded messages.
        let mut buffer = [0; 16];
        while matches!(recv(&self.0, &mut buffer[..], RecvFlags::DONTWAIT), Ok(_) | Err(Errno::NOBUFS)) {}
    }

    fn send(&self, bytes: &[u8]) -> Result<(), NetlinkError> {
        // A transaction must be one datagram, so the send buffer must have space for the whole transaction.
        let needed_size = bytes.len() + SEND_BUFFER_OVERHEAD;
        if sockopt::socket_send_buffer_size(&self.0).is_ok_and(|size| size < needed_size) {
            // The first call may exceed net.core.wmem_max, but needs a capability. With both calls, the kernel reserves
            // twice the given size.
            if sockopt::set_socket_send_buffer_size_force(&self.0, needed_size).is_err() {
                let _ = sockopt::set_socket_send_buffer_size(&self.0, needed_size);
            }
        }
        send(&self.0, bytes, SendFlags::empty()).map(drop).map_err(NetlinkError::TransportFailed)
    }

    /// Returns the next datagram, or `None` if no datagram is waiting.
    fn receive<'a>(&self, buffer: &'a mut [u8]) -> Result<Option<&'a [u8]>, NetlinkError> {
        match recv(&self.0, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((length, _)) => Ok(Some(&buffer[..length])),
            Err(Errno::AGAIN) => Ok(None),
            Err(errno) => Err(NetlinkError::TransportFailed(errno)),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Returns the result of a request if `message` is its acknowledgement, its error or the end of its dump.
fn parse_acknowledgement(message: &Message<'_>) -> Option<Result<(), Errno>> {
    let error_code = || message.payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    match message.kind {
        message::NLMSG_ERROR | message::NLMSG_DONE if error_code() < 0 => {
            Some(Err(Errno::from_raw_os_error(-error_code())))
        }
        message::NLMSG_ERROR | message::NLMSG_DONE => Some(Ok(())),
        _ => None,
    }
}
