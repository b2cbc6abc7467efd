//! An rtnetlink socket: sends requests and reads the kernel's answers. I/O only.

use std::io;

use netlink_packet_core::{DecodeError, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// The kernel's answers to one read have at most 32 KiB (`netlink_recvmsg` in the kernel).
const BUFFER_LENGTH: usize = 32 * 1024;
/// The kernel's error number for an unknown option (`ENOPROTOOPT`).
const ENOPROTOOPT: i32 = 92;

/// The reason why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The kernel does not allow this process to open a socket.
    #[error("cannot open a socket to the kernel's routing (rtnetlink): {0}")]
    OpenFailed(io::Error),
    /// The request did not reach the kernel, or the answer was lost.
    #[error("cannot exchange messages with the kernel's routing (rtnetlink): {0}")]
    TransportFailed(io::Error),
    /// The kernel rejected the request.
    #[error("the kernel rejected the request: {0}")]
    Rejected(io::Error),
    /// The objects changed while the kernel listed them. The caller should try again.
    #[error("the kernel's list changed during the read")]
    DumpInterrupted,
    /// An answer of the kernel has an unknown form.
    #[error("cannot decode the kernel's answer: {0}")]
    Undecodable(DecodeError),
}

/// A socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct RouteSocket {
    socket: Socket,
    last_sequence_number: u32,
}

impl RouteSocket {
    pub(crate) fn open() -> Result<Self, SocketError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(SocketError::OpenFailed)?;
        socket.bind_auto().map_err(SocketError::OpenFailed)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(SocketError::OpenFailed)?;
        // With this option, the kernel lists only the objects that a request names. Kernels before 4.20 list all
        // objects.
        match socket.set_netlink_get_strict_chk(true) {
            Err(error) if error.raw_os_error() != Some(ENOPROTOOPT) => Err(SocketError::OpenFailed(error)),
            _ => Ok(Self { socket, last_sequence_number: 0 }),
        }
    }

    /// Sends a request and returns the kernel's answers. Answers that cannot be decoded are ignored, because objects of
    /// other programs may have unknown settings.
    ///
    /// `flags` must contain `NLM_F_ACK` or `NLM_F_DUMP`.
    pub(crate) fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, SocketError> {
        self.last_sequence_number = self.last_sequence_number.wrapping_add(1);
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags | NLM_F_REQUEST;
        request.header.sequence_number = self.last_sequence_number;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map_err(SocketError::TransportFailed)?;
        self.read_answers()
    }

    fn read_answers(&self) -> Result<Vec<RouteNetlinkMessage>, SocketError> {
        let mut answers = Vec::new();
        let mut is_interrupted = false;
        loop {
            let mut datagram = Vec::with_capacity(BUFFER_LENGTH);
            self.socket.recv(&mut datagram, 0).map_err(SocketError::TransportFailed)?;
            for bytes in split_messages(&datagram) {
                let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) else {
                    continue;
                };
                // Answers to an earlier request remain in the socket if that request failed.
                if message.header.sequence_number != self.last_sequence_number {
                    continue;
                }
                is_interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(SocketError::Rejected(error.to_io()));
                    }
                    NetlinkPayload::Done(done) if done.code != 0 => {
                        return Err(SocketError::Rejected(io::Error::from_raw_os_error(done.code.abs())));
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => {
                        return if is_interrupted { Err(SocketError::DumpInterrupted) } else { Ok(answers) };
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Returns the messages in a datagram, up to the first malformed message.
pub(crate) fn split_messages(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut remaining_bytes = datagram;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(*remaining_bytes.first_chunk()?)).ok()?;
        let message = remaining_bytes.get(..length).filter(|message| !message.is_empty())?;
        remaining_bytes = remaining_bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}
