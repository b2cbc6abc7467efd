//! One of the two sockets of a connection, and its known state. I/O only.
//!
//! Epoll reports each change once. Between two reports, the proxy considers a socket readable and writable until a
//! system call shows the opposite.

use std::io::IoSlice;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, recv, send, sendmsg, shutdown};
use rustix::pipe::{SpliceFlags, splice};

use super::pipe_pool::{PIPE_CAPACITY, Pipe};
use super::poller::Readiness;

const SPLICE_FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);

/// The client or the target of a connection.
#[derive(Debug)]
pub(super) struct Peer {
    socket: OwnedFd,
    is_readable: bool,
    is_writable: bool,
    /// True if the end of the stream, or an error, comes after the bytes that have arrived.
    is_closing: bool,
}

impl Peer {
    pub(super) const fn new(socket: OwnedFd) -> Self {
        Self { socket, is_readable: true, is_writable: true, is_closing: false }
    }

    pub(super) const fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    pub(super) const fn is_readable(&self) -> bool {
        self.is_readable
    }

    pub(super) const fn is_writable(&self) -> bool {
        self.is_writable
    }

    /// Updates the known state of the socket after epoll reported changes.
    pub(super) const fn record_readiness(&mut self, readiness: Readiness) {
        self.is_readable |= readiness.is_readable();
        self.is_writable |= readiness.is_writable();
        self.is_closing |= readiness.is_closing();
    }

    /// Records that a read returned all bytes that had arrived. The next bytes cause a new event.
    pub(super) const fn record_all_bytes_read(&mut self) {
        // Epoll may have reported the end of the stream already, and does not report the end again.
        self.is_readable = self.is_closing;
    }

    /// Reads into `buffer`. Returns `None` if no bytes are available now, and `Some(0)` at the end of the stream.
    pub(super) fn receive(&mut self, buffer: &mut [u8], flags: RecvFlags) -> Result<Option<usize>, Errno> {
        let result = recv(&self.socket, buffer, flags).map(|(length, _)| length);
        self.on_received(result)
    }

    /// Splices into `pipe`. Returns the same values as [`Peer::receive`].
    pub(super) fn splice_into(&mut self, pipe: &Pipe) -> Result<Option<usize>, Errno> {
        let result = splice(&self.socket, None, &pipe.write_end, None, PIPE_CAPACITY, SPLICE_FLAGS);
        self.on_received(result)
    }

    const fn on_received(&mut self, result: Result<usize, Errno>) -> Result<Option<usize>, Errno> {
        match result {
            Ok(length) => Ok(Some(length)),
            Err(Errno::AGAIN) => {
                self.is_readable = false;
                Ok(None)
            }
            Err(Errno::INTR) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends `bytes`. Returns the number of bytes that the kernel accepted.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let result = send(&self.socket, bytes, SendFlags::NOSIGNAL);
        self.on_sent(result, bytes.len())
    }

    /// Sends `header` and `bytes` with one system call. Returns the total number of bytes that the kernel accepted.
    pub(super) fn send_with_header(&mut self, header: &[u8], bytes: &[u8]) -> Result<usize, Errno> {
        let parts = [IoSlice::new(header), IoSlice::new(bytes)];
        let result = sendmsg(&self.socket, &parts, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL);
        self.on_sent(result, header.len() + bytes.len())
    }

    /// Splices `length` bytes out of `pipe`. Returns the number of bytes that the kernel accepted.
    pub(super) fn splice_from(&mut self, pipe: &Pipe, length: usize) -> Result<usize, Errno> {
        let result = splice(&pipe.read_end, None, &self.socket, None, length, SPLICE_FLAGS);
        // A splice may move fewer bytes than the socket can accept. A low number therefore does not mean that the
        // socket is full.
        self.on_sent(result, 0)
    }

    /// Returns the number of sent bytes. If the kernel accepted fewer than `expected_length` bytes, the kernel's buffer
    /// is full, and the socket is no longer writable.
    const fn on_sent(
        &mut self,
        result: Result<usize, Errno>,
        expected_length: usize,
    ) -> Result<usize, Errno> {
        match result {
            Ok(sent) => {
                self.is_writable = sent >= expected_length;
                Ok(sent)
            }
            Err(Errno::AGAIN) => {
                self.is_writable = false;
                Ok(0)
            }
            Err(Errno::INTR) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Ends the stream to the peer. The stream from the peer stays open.
    pub(super) fn shutdown_write(&self) {
        // The call fails if the peer is gone. This error is ignored, because the other direction reports it too.
        let _ = shutdown(&self.socket, Shutdown::Write);
    }
}
