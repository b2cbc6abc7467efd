//! One direction of a connection: reads from one socket and writes to the other. I/O only.
//!
//! The worker copies small amounts of data through its buffer, and splices large amounts through a pipe. A direction
//! reads the next bytes only after it has written the previous bytes. The sender therefore cannot be faster than a slow
//! receiver. An idle direction has neither a buffer nor a pipe.

use rustix::net::RecvFlags;

use super::io_context::{BUFFER_LENGTH, IoContext};
use super::peer::Peer;
use super::pipe_pool::Pipe;

/// Maximum number of bytes in one copy. After a read of this many bytes, the direction splices.
const COPY_CHUNK_LENGTH: usize = 32 << 10;
/// If a splice moves fewer bytes than this number, the worker copies the next bytes of this direction.
const MIN_SPLICE_LENGTH: usize = 8 << 10;
/// Number of bytes that one direction may move before other connections continue.
const FAIRNESS_BUDGET: usize = 1 << 20;

/// Bytes that the direction has received and not yet sent.
#[derive(Debug, Default)]
enum PendingBytes {
    #[default]
    None,
    Buffer {
        bytes: Box<[u8]>,
        sent_length: usize,
    },
    Pipe {
        pipe: Pipe,
        length: usize,
    },
}

/// The result of an attempt to move bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// One of the sockets must become ready first.
    Blocked,
    /// More bytes could be moved, but the fairness budget is spent.
    BudgetSpent,
    /// All bytes are sent, and no more bytes will come.
    Finished,
}

/// The socket that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TransferError {
    /// Reading failed.
    SourceFailed,
    /// Sending failed.
    SinkFailed,
}

/// One direction of a connection.
#[derive(Debug)]
pub(super) struct Transfer {
    pending_bytes: PendingBytes,
    /// True if the direction splices whenever a pipe is available.
    uses_splice: bool,
    /// True if the source has ended its stream.
    has_source_ended: bool,
    is_finished: bool,
    /// Number of moved bytes that are not yet in the metrics.
    moved_bytes: u64,
}

impl Transfer {
    pub(super) const fn new() -> Self {
        Self {
            pending_bytes: PendingBytes::None,
            uses_splice: false,
            has_source_ended: false,
            is_finished: false,
            moved_bytes: 0,
        }
    }

    /// Returns true if this direction does not move bytes any more.
    pub(super) const fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// Returns true if the direction has received bytes that it has not sent yet.
    pub(super) const fn has_pending_bytes(&self) -> bool {
        !matches!(self.pending_bytes, PendingBytes::None)
    }

    /// Returns the number of moved bytes that are not yet in the metrics.
    pub(super) const fn moved_bytes(&self) -> u64 {
        self.moved_bytes
    }

    /// Returns the number of bytes moved since the last call.
    pub(super) const fn take_moved_bytes(&mut self) -> u64 {
        std::mem::replace(&mut self.moved_bytes, 0)
    }

    /// Moves bytes until a socket blocks, the budget is spent, or the stream ends.
    pub(super) fn move_bytes(
        &mut self,
        source: &mut Peer,
        sink: &mut Peer,
        io: &mut IoContext,
    ) -> Result<Progress, TransferError> {
        let mut budget = FAIRNESS_BUDGET;
        loop {
            while !matches!(self.pending_bytes, PendingBytes::None) {
                if !sink.is_writable() {
                    return Ok(Progress::Blocked);
                }
                self.flush(sink, io)?;
            }
            if self.has_source_ended {
                self.is_finished = true;
                return Ok(Progress::Finished);
            }
            if !source.is_readable() || !sink.is_writable() {
                return Ok(Progress::Blocked);
            }
            if budget == 0 {
                return Ok(Progress::BudgetSpent);
            }
            let pipe = if self.uses_splice { io.pipes.lease(io.now_ms) } else { None };
            let read_length = match pipe {
                Some(pipe) => self.fill_pipe(pipe, source, io)?,
                None if io.is_buffer_limit_reached() => self.copy_with_peek(source, sink, io)?,
                None => self.copy(source, sink, io)?,
            };
            budget = budget.saturating_sub(read_length);
        }
    }

    /// Sends `header` before all other bytes. If the source has already sent bytes, the header and these bytes are sent
    /// together.
    pub(super) fn send_header(
        &mut self,
        header: &[u8],
        source: &mut Peer,
        sink: &mut Peer,
        io: &mut IoContext,
    ) -> Result<(), TransferError> {
        let read_length = self.read_chunk(source, io)?;
        let sent_length = sink
            .send_with_header(header, &io.buffer[..read_length])
            .map_err(|_| TransferError::SinkFailed)?;
        self.store_unsent_bytes(header, read_length, sent_length, io);
        self.moved_bytes += read_length as u64;
        Ok(())
    }

    /// Copies one chunk. Returns the number of bytes that were read.
    fn copy(
        &mut self,
        source: &mut Peer,
        sink: &mut Peer,
        io: &mut IoContext,
    ) -> Result<usize, TransferError> {
        let read_length = self.read_chunk(source, io)?;
        if read_length > 0 {
            let sent_length = sink.send(&io.buffer[..read_length]).map_err(|_| TransferError::SinkFailed)?;
            self.store_unsent_bytes(&[], read_length, sent_length, io);
            self.moved_bytes += read_length as u64;
        }
        Ok(read_length)
    }

    /// Copies one chunk. Bytes that the sink does not accept stay in the source's kernel buffer. Returns the length of
    /// the chunk.
    fn copy_with_peek(
        &mut self,
        source: &mut Peer,
        sink: &mut Peer,
        io: &mut IoContext,
    ) -> Result<usize, TransferError> {
        let peeked_length = self.receive(source, io, RecvFlags::PEEK)?;
        if peeked_length == 0 {
            return Ok(0);
        }
        let sent_length = sink.send(&io.buffer[..peeked_length]).map_err(|_| TransferError::SinkFailed)?;
        if sent_length > 0 {
            // With TRUNC, TCP removes the bytes from its buffer and copies nothing (tcp(7)).
            source
                .receive(&mut io.buffer[..sent_length], RecvFlags::TRUNC)
                .map_err(|_| TransferError::SourceFailed)?;
        }
        if sent_length == peeked_length && !self.uses_splice {
            source.record_all_bytes_read();
        }
        self.moved_bytes += sent_length as u64;
        Ok(peeked_length)
    }

    /// Reads one chunk into the worker's buffer. Returns the length of the chunk.
    fn read_chunk(&mut self, source: &mut Peer, io: &mut IoContext) -> Result<usize, TransferError> {
        let read_length = self.receive(source, io, RecvFlags::empty())?;
        if read_length > 0 && !self.uses_splice {
            source.record_all_bytes_read();
        }
        Ok(read_length)
    }

    /// Reads into the worker's buffer. Records whether the stream has ended, and whether the next read splices.
    fn receive(
        &mut self,
        source: &mut Peer,
        io: &mut IoContext,
        flags: RecvFlags,
    ) -> Result<usize, TransferError> {
        let chunk_length = if self.uses_splice { BUFFER_LENGTH } else { COPY_CHUNK_LENGTH };
        let received_length =
            source.receive(&mut io.buffer[..chunk_length], flags).map_err(|_| TransferError::SourceFailed)?;
        self.has_source_ended = received_length == Some(0);
        self.uses_splice = received_length == Some(chunk_length);
        Ok(received_length.unwrap_or(0))
    }

    /// Stores the bytes that the sink did not accept. The caller tried to send `header`, followed by the first
    /// `read_length` bytes of the worker's buffer. The sink accepted `sent_length` bytes in total.
    fn store_unsent_bytes(
        &mut self,
        header: &[u8],
        read_length: usize,
        sent_length: usize,
        io: &mut IoContext,
    ) {
        if sent_length < header.len() + read_length {
            let unsent_header = header.get(sent_length..).unwrap_or_default();
            let unsent_content = &io.buffer[sent_length.saturating_sub(header.len())..read_length];
            let bytes = [unsent_header, unsent_content].concat().into_boxed_slice();
            io.buffered_bytes += bytes.len();
            self.pending_bytes = PendingBytes::Buffer { bytes, sent_length: 0 };
        }
    }

    /// Fills a pipe. Returns the number of bytes that were read.
    fn fill_pipe(
        &mut self,
        pipe: Pipe,
        source: &mut Peer,
        io: &mut IoContext,
    ) -> Result<usize, TransferError> {
        match source.splice_into(&pipe) {
            Ok(None) => {
                io.pipes.release(pipe);
                Ok(0)
            }
            Ok(Some(0)) => {
                self.has_source_ended = true;
                io.pipes.release(pipe);
                Ok(0)
            }
            Ok(Some(length)) => {
                self.uses_splice = length >= MIN_SPLICE_LENGTH;
                self.moved_bytes += length as u64;
                self.pending_bytes = PendingBytes::Pipe { pipe, length };
                Ok(length)
            }
            Err(_) => {
                io.pipes.release(pipe);
                Err(TransferError::SourceFailed)
            }
        }
    }

    /// Sends as many pending bytes as the sink accepts.
    fn flush(&mut self, sink: &mut Peer, io: &mut IoContext) -> Result<(), TransferError> {
        match std::mem::take(&mut self.pending_bytes) {
            PendingBytes::None => {}
            PendingBytes::Buffer { bytes, sent_length } => match sink.send(&bytes[sent_length..]) {
                Ok(newly_sent_length) if sent_length + newly_sent_length < bytes.len() => {
                    self.pending_bytes =
                        PendingBytes::Buffer { bytes, sent_length: sent_length + newly_sent_length };
                }
                Ok(_) => io.buffered_bytes -= bytes.len(),
                Err(_) => {
                    io.buffered_bytes -= bytes.len();
                    return Err(TransferError::SinkFailed);
                }
            },
            PendingBytes::Pipe { pipe, length } => match sink.splice_from(&pipe, length) {
                Ok(sent_length) if sent_length < length => {
                    self.pending_bytes = PendingBytes::Pipe { pipe, length: length - sent_length };
                }
                Ok(_) => io.pipes.release(pipe),
                Err(_) => {
                    io.pipes.discard(pipe);
                    return Err(TransferError::SinkFailed);
                }
            },
        }
        Ok(())
    }

    /// Drops the pending bytes. After this call, the direction does not move bytes any more.
    pub(super) fn abandon(&mut self, io: &mut IoContext) {
        self.is_finished = true;
        match std::mem::take(&mut self.pending_bytes) {
            PendingBytes::None => {}
            PendingBytes::Buffer { bytes, .. } => io.buffered_bytes -= bytes.len(),
            PendingBytes::Pipe { pipe, .. } => io.pipes.discard(pipe),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    const HEADER: &[u8] = b"header";
    const CONTENT: &[u8] = b"question";

    /// A client and a target, and the proxy's sockets to both.
    struct Sockets {
        /// Stays open, because closing this socket would end the source's stream.
        _client: UnixStream,
        source: Peer,
        /// The socket of `sink`. The tests use this socket to fill the buffer, and to create `sink` again.
        sink_stream: UnixStream,
        sink: Peer,
        target: UnixStream,
    }

    impl Sockets {
        /// Creates the sockets. The client has sent [`CONTENT`], and the buffer of the sink is full.
        fn with_full_sink() -> Self {
            let (mut client, source) = UnixStream::pair().unwrap();
            let (mut sink_stream, target) = UnixStream::pair().unwrap();
            for socket in [&source, &sink_stream, &target] {
                socket.set_nonblocking(true).unwrap();
            }
            client.write_all(CONTENT).unwrap();
            while sink_stream.write(&[0; 4096]).is_ok() {}
            let sink = Peer::new(sink_stream.try_clone().unwrap().into());
            Self { _client: client, source: Peer::new(source.into()), sink_stream, sink, target }
        }

        /// Returns the bytes that the target received, except the zero bytes that filled the buffer. Makes the sink
        /// writable again.
        fn receive(&mut self) -> Vec<u8> {
            let mut bytes = Vec::new();
            let result = self.target.read_to_end(&mut bytes);
            assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
            bytes.retain(|byte| *byte != 0);
            self.sink = Peer::new(self.sink_stream.try_clone().unwrap().into());
            bytes
        }
    }

    #[test]
    fn header_waits_until_the_sink_is_writable_and_precedes_the_content() {
        let mut sockets = Sockets::with_full_sink();
        let (mut transfer, mut io) = (Transfer::new(), IoContext::new());
        transfer.send_header(HEADER, &mut sockets.source, &mut sockets.sink, &mut io).unwrap();
        assert_eq!(io.buffered_bytes, HEADER.len() + CONTENT.len());
        assert!(sockets.receive().is_empty());
        let progress = transfer.move_bytes(&mut sockets.source, &mut sockets.sink, &mut io);
        assert_eq!((progress, io.buffered_bytes), (Ok(Progress::Blocked), 0));
        assert_eq!(sockets.receive(), [HEADER, CONTENT].concat());
        assert_eq!(transfer.take_moved_bytes(), CONTENT.len() as u64);
    }

    #[test]
    fn bytes_stay_in_the_kernel_above_the_buffer_limit() {
        let mut sockets = Sockets::with_full_sink();
        let (mut transfer, mut io) = (Transfer::new(), IoContext::new());
        io.buffered_bytes = usize::MAX;
        assert!(io.is_buffer_limit_reached());
        let progress = transfer.move_bytes(&mut sockets.source, &mut sockets.sink, &mut io);
        assert_eq!((progress, transfer.take_moved_bytes()), (Ok(Progress::Blocked), 0));
        assert!(matches!(transfer.pending_bytes, PendingBytes::None));
        assert!(sockets.receive().is_empty());
        let progress = transfer.move_bytes(&mut sockets.source, &mut sockets.sink, &mut io);
        assert_eq!((progress, transfer.take_moved_bytes()), (Ok(Progress::Blocked), CONTENT.len() as u64));
        assert_eq!(sockets.receive(), CONTENT);
    }

    #[test]
    fn stored_bytes_are_the_unsent_part_of_header_and_content() {
        let whole_stream = [HEADER, CONTENT].concat();
        for sent_length in 0..=whole_stream.len() {
            let (mut transfer, mut io) = (Transfer::new(), IoContext::new());
            io.buffer[..CONTENT.len()].copy_from_slice(CONTENT);
            transfer.store_unsent_bytes(HEADER, CONTENT.len(), sent_length, &mut io);
            let unsent_bytes = match &transfer.pending_bytes {
                PendingBytes::Buffer { bytes, sent_length: 0 } => &bytes[..],
                _ => &[],
            };
            assert_eq!(
                (unsent_bytes, io.buffered_bytes),
                (&whole_stream[sent_length..], whole_stream.len() - sent_length)
            );
        }
    }
}
