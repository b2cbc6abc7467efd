//! One direction of a connection: moves bytes from one socket to the other, copying few and splicing many. I/O only.
//!
//! Nothing is read before what was read is written, so that a slow reader slows its writer down, and an idle
//! direction holds neither a buffer nor a pipe.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::pipe::{SpliceFlags, splice};

use super::pipes::{CAPACITY, Pipe, Pipes};
use super::poller::Readiness;

/// Bytes that are copied at a time. A read that finds as many makes the direction splice.
const COPY_CHUNK: usize = 32 << 10;
/// A splice of fewer bytes makes the direction copy again.
const SPLICE_MIN: usize = 8 << 10;
/// Bytes that one direction moves before others have their turn.
const FAIRNESS_BUDGET: usize = 1 << 20;
/// Bytes of one worker that may wait in buffers for slow readers; beyond that they wait in the kernel, at the
/// price of one more system call each time.
const MAX_BUFFERED: usize = 4 << 20;

/// A socket, and what is known of it: what is not known to block is tried.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) socket: OwnedFd,
    readable: bool,
    writable: bool,
    ending: bool,
}

impl Side {
    pub(super) const fn new(socket: OwnedFd) -> Self {
        Self { socket, readable: true, writable: true, ending: false }
    }

    pub(super) const fn note(&mut self, happened: Readiness) {
        self.readable |= happened.readable();
        self.writable |= happened.writable();
        self.ending |= happened.ending();
    }
}

/// What all directions of a worker share.
#[derive(Debug)]
pub(super) struct IoContext {
    pub(super) pipes: Pipes,
    pub(super) buffer: Box<[u8]>,
    /// Bytes in the buffers of all directions.
    waiting: usize,
    /// Milliseconds since the worker began.
    pub(super) now: u64,
}

impl IoContext {
    pub(super) fn new() -> Self {
        let buffer = vec![0; 64 << 10].into_boxed_slice();
        Self { pipes: Pipes::default(), buffer, waiting: 0, now: 0 }
    }
}

/// Bytes that have been read and not yet written.
#[derive(Debug, Default)]
enum Held {
    #[default]
    Nothing,
    Bytes {
        bytes: Box<[u8]>,
        written: usize,
    },
    Pipe {
        pipe: Pipe,
        len: usize,
    },
}

/// How far a direction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It goes on when one of the sockets is ready.
    Waits,
    /// It has had its turn, and could go on.
    Again,
    /// All is written, and no more comes.
    Ended,
}

/// Why a direction can't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// What comes from there is lost.
    Source,
    /// What goes there is lost.
    Sink,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Direction {
    held: Held,
    many: bool,
    ended: bool,
    /// Bytes moved and not yet counted.
    pub(super) moved: u64,
}

impl Direction {
    /// Moves what can be moved.
    pub(super) fn pump(
        &mut self,
        from: &mut Side,
        to: &mut Side,
        tools: &mut IoContext,
    ) -> Result<Progress, Broken> {
        let mut turn = FAIRNESS_BUDGET;
        loop {
            while !matches!(self.held, Held::Nothing) {
                if !to.writable {
                    return Ok(Progress::Waits);
                }
                self.flush(to, tools).map_err(|_| Broken::Sink)?;
            }
            if self.ended {
                return Ok(Progress::Ended);
            }
            if !from.readable || !to.writable {
                return Ok(Progress::Waits);
            }
            if turn == 0 {
                return Ok(Progress::Again);
            }
            let pipe = if self.many { tools.pipes.lease(tools.now) } else { None };
            let read = match pipe {
                Some(pipe) => self.fill(pipe, from, tools)?,
                None => self.copy(&[], from, to, tools)?,
            };
            turn = turn.saturating_sub(read);
        }
    }

    /// Writes `head` before everything else, together with what is there already.
    pub(super) fn begin(
        &mut self,
        head: &[u8],
        from: &mut Side,
        to: &mut Side,
        tools: &mut IoContext,
    ) -> Result<(), Broken> {
        self.copy(head, from, to, tools).map(drop)
    }

    /// Reads some bytes and writes them after `head`; returns how many were read.
    fn copy(
        &mut self,
        head: &[u8],
        from: &mut Side,
        to: &mut Side,
        tools: &mut IoContext,
    ) -> Result<usize, Broken> {
        let limit = if self.many { tools.buffer.len() } else { COPY_CHUNK };
        let Some((before, buffer)) = tools.buffer[..limit].split_at_mut_checked(head.len()) else {
            return Ok(0);
        };
        before.copy_from_slice(head);
        // Where much waits already, bytes stay in the kernel until they are written.
        let stay = head.is_empty() && tools.waiting >= MAX_BUFFERED;
        let how = if stay { RecvFlags::PEEK } else { RecvFlags::empty() };
        let read = match recv(&from.socket, &mut *buffer, how) {
            Ok((0, _)) => {
                self.ended = true;
                0
            }
            Ok((read, _)) => read,
            Err(Errno::AGAIN) => {
                from.readable = false;
                0
            }
            Err(Errno::INTR) => 0,
            Err(_) => return Err(Broken::Source),
        };
        self.many = read == buffer.len();
        let emptied = read > 0 && !self.many && !from.ending;
        let all = head.len() + read;
        let written = if all > 0 { put(&tools.buffer[..all], to)? } else { 0 };
        if stay {
            // Into the buffer, but nothing is copied.
            if written > 0 {
                recv(&from.socket, &mut tools.buffer[..written], RecvFlags::TRUNC)
                    .map_err(|_| Broken::Source)?;
            }
        } else if written < all {
            let bytes: Box<[u8]> = tools.buffer[written..all].into();
            tools.waiting += bytes.len();
            self.held = Held::Bytes { bytes, written: 0 };
        }
        if emptied && (!stay || written == all) {
            from.readable = false;
        }
        self.moved += read.min(if stay { written } else { read }) as u64;
        Ok(read)
    }

    /// Fills a pipe; returns with how many bytes.
    fn fill(&mut self, pipe: Pipe, from: &mut Side, tools: &mut IoContext) -> Result<usize, Broken> {
        match splice(&from.socket, None, &pipe.write, None, CAPACITY, FLAGS) {
            Ok(0) => self.ended = true,
            Ok(len) => {
                self.many = len >= SPLICE_MIN;
                self.moved += len as u64;
                self.held = Held::Pipe { pipe, len };
                return Ok(len);
            }
            Err(Errno::AGAIN) => from.readable = false,
            Err(Errno::INTR) => {}
            Err(_) => {
                tools.pipes.give_back(pipe);
                return Err(Broken::Source);
            }
        }
        tools.pipes.give_back(pipe);
        Ok(0)
    }

    /// Writes what is held, as far as the socket takes it.
    fn flush(&mut self, to: &mut Side, tools: &mut IoContext) -> Result<(), Errno> {
        match std::mem::take(&mut self.held) {
            Held::Nothing => {}
            Held::Bytes { bytes, mut written } => {
                match send(&to.socket, &bytes[written..], SendFlags::NOSIGNAL) {
                    Ok(sent) => written += sent,
                    Err(Errno::AGAIN) => to.writable = false,
                    Err(Errno::INTR) => {}
                    Err(error) => {
                        tools.waiting -= bytes.len();
                        return Err(error);
                    }
                }
                if written < bytes.len() {
                    self.held = Held::Bytes { bytes, written };
                } else {
                    tools.waiting -= bytes.len();
                }
            }
            Held::Pipe { pipe, mut len } => {
                match splice(&pipe.read, None, &to.socket, None, len, FLAGS) {
                    Ok(sent) => len -= sent,
                    Err(Errno::AGAIN) => to.writable = false,
                    Err(Errno::INTR) => {}
                    Err(error) => {
                        tools.pipes.discard(pipe);
                        return Err(error);
                    }
                }
                if len > 0 {
                    self.held = Held::Pipe { pipe, len };
                } else {
                    tools.pipes.give_back(pipe);
                }
            }
        }
        Ok(())
    }

    /// Gives up what is held.
    pub(super) fn release(&mut self, tools: &mut IoContext) {
        match std::mem::take(&mut self.held) {
            Held::Nothing => {}
            Held::Bytes { bytes, .. } => tools.waiting -= bytes.len(),
            Held::Pipe { pipe, .. } => tools.pipes.discard(pipe),
        }
    }
}

const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);

/// Writes as many bytes as the socket takes.
fn put(bytes: &[u8], to: &mut Side) -> Result<usize, Broken> {
    let sent = match send(&to.socket, bytes, SendFlags::NOSIGNAL) {
        Ok(sent) => sent,
        Err(Errno::AGAIN) => 0,
        Err(Errno::INTR) => return Ok(0),
        Err(_) => return Err(Broken::Sink),
    };
    if sent < bytes.len() {
        to.writable = false;
    }
    Ok(sent)
}
