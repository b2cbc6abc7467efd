//! The pipes of a worker, through which bytes are spliced. I/O only.
//!
//! A direction of a connection leases a pipe only while the pipe contains bytes.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

/// Capacity of a pipe in bytes. Linux limits pipe memory to 64 MiB per user id (fs.pipe-user-pages-soft). All pods of a
/// node whose processes have the same user id share this limit.
pub(super) const PIPE_CAPACITY: usize = 256 << 10;
/// Largest number of leased pipes per worker.
const MAX_LEASED_PIPES: usize = 32;
/// Delay before the next attempt to create a pipe after a failed attempt, in milliseconds.
const PIPE_RETRY_DELAY_MS: u64 = 1_000;

/// Both ends of a pipe.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) read_end: OwnedFd,
    pub(super) write_end: OwnedFd,
}

impl Pipe {
    fn new() -> Result<Self, Errno> {
        let (read_end, write_end) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // If the user has reached the limit of pipe memory, the kernel creates a smaller pipe, and this call fails.
        // Copying is faster than splicing through a small pipe.
        fcntl_setpipe_size(&write_end, PIPE_CAPACITY)?;
        Ok(Self { read_end, write_end })
    }
}

/// The pipes of one worker.
#[derive(Debug, Default)]
pub(super) struct PipePool {
    idle_pipes: Vec<Pipe>,
    leased_count: usize,
    /// Earliest time of the next attempt to create a pipe: milliseconds since the worker's start.
    retry_at_ms: u64,
}

impl PipePool {
    /// Returns an empty pipe, or `None` if bytes must be copied instead. `now_ms` is the time since the worker's start.
    pub(super) fn lease(&mut self, now_ms: u64) -> Option<Pipe> {
        let pipe = match self.idle_pipes.pop() {
            Some(pipe) => pipe,
            None if self.leased_count >= MAX_LEASED_PIPES || now_ms < self.retry_at_ms => return None,
            None => match Pipe::new() {
                Ok(pipe) => pipe,
                Err(error) => {
                    tracing::debug!(%error, "cannot create a pipe: copying bytes instead of splicing them");
                    self.retry_at_ms = now_ms + PIPE_RETRY_DELAY_MS;
                    return None;
                }
            },
        };
        self.leased_count += 1;
        Some(pipe)
    }

    /// Takes back an empty pipe.
    pub(super) fn release(&mut self, pipe: Pipe) {
        self.leased_count -= 1;
        self.idle_pipes.push(pipe);
    }

    /// Closes a leased pipe that may contain bytes.
    pub(super) fn discard(&mut self, pipe: Pipe) {
        self.leased_count -= 1;
        drop(pipe);
    }

    /// Closes all idle pipes.
    pub(super) fn close_idle_pipes(&mut self) {
        self.idle_pipes = Vec::new();
    }

    /// Returns the number of idle and leased pipes.
    pub(super) const fn len(&self) -> usize {
        self.idle_pipes.len() + self.leased_count
    }
}
