//! Pipes through which bytes are spliced, leased only while bytes are in them. I/O only.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

/// What a pipe holds, in bytes. Those beyond 64 KiB count against a limit of 64 MiB per user id, which all pods of
/// that user on a node share.
pub(super) const CAPACITY: usize = 256 << 10;
/// Pipes of one worker at a time.
const LIMIT: usize = 32;
/// When to try again after the kernel refused a pipe, in milliseconds.
const RETRY: u64 = 1_000;

/// An empty pipe, or one that its holder fills and empties.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) read: OwnedFd,
    pub(super) write: OwnedFd,
}

impl Pipe {
    fn new() -> Result<Self, Errno> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A smaller one, which the kernel gives to users beyond their limit, would be slower than copying.
        fcntl_setpipe_size(&write, CAPACITY)?;
        Ok(Self { read, write })
    }
}

/// The pipes of one worker.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    free: Vec<Pipe>,
    leased: usize,
    retry_at: u64,
}

impl Pipes {
    /// An empty pipe, if there is one; otherwise bytes are to be copied. `now` is in milliseconds.
    pub(super) fn lease(&mut self, now: u64) -> Option<Pipe> {
        let pipe = match self.free.pop() {
            Some(pipe) => pipe,
            None if self.leased >= LIMIT || now < self.retry_at => return None,
            None => match Pipe::new() {
                Ok(pipe) => pipe,
                Err(error) => {
                    tracing::debug!(%error, "no pipe: copying instead");
                    self.retry_at = now + RETRY;
                    return None;
                }
            },
        };
        self.leased += 1;
        Some(pipe)
    }

    /// Takes back a pipe that is empty.
    pub(super) fn give_back(&mut self, pipe: Pipe) {
        self.leased -= 1;
        self.free.push(pipe);
    }

    /// Closes a pipe that may have bytes in it.
    pub(super) fn discard(&mut self, pipe: Pipe) {
        self.leased -= 1;
        drop(pipe);
    }

    /// Closes the pipes that nobody leases.
    pub(super) fn shrink(&mut self) {
        self.free = Vec::new();
    }

    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.free.len() + self.leased
    }
}
