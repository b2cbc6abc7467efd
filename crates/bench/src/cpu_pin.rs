//! Pins threads to processors, so that samples do not depend on the scheduler's choices. Does I/O.

use std::io;
use std::net::TcpStream;

use rustix::net::sockopt::socket_incoming_cpu;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Pins the calling thread to one processor until it is dropped.
pub(crate) struct CpuPin {
    previous: CpuSet,
}

impl CpuPin {
    /// Pins to one of the allowed processors, which `thread_number` selects in turn.
    pub(crate) fn by_thread_number(thread_number: usize) -> io::Result<Self> {
        let previous = sched_getaffinity(None)?;
        let allowed: Vec<_> = (0..CpuSet::MAX_CPU).filter(|&cpu| previous.is_set(cpu)).collect();
        let cpu = allowed.get(thread_number % allowed.len().max(1)).ok_or(io::ErrorKind::NotFound)?;
        Self::pin(*cpu, previous)
    }

    /// Pins to the processor on which the packets of a connection arrive.
    ///
    /// The kernel forwards packets on the processor of their sender.
    pub(crate) fn by_incoming_cpu(stream: &TcpStream) -> io::Result<Self> {
        let cpu = usize::try_from(socket_incoming_cpu(stream)?).map_err(io::Error::other)?;
        Self::pin(cpu, sched_getaffinity(None)?)
    }

    fn pin(cpu: usize, previous: CpuSet) -> io::Result<Self> {
        let mut only = CpuSet::new();
        only.set(cpu);
        sched_setaffinity(None, &only)?;
        Ok(Self { previous })
    }
}

impl Drop for CpuPin {
    fn drop(&mut self) {
        // This set was allowed before, so it cannot fail.
        let _ = sched_setaffinity(None, &self.previous);
    }
}
