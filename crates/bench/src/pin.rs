//! Keeps threads on one processor, so that it is the path that is measured, and not where the scheduler puts whom.
//! I/O only.

use std::io;
use std::net::TcpStream;

use rustix::net::sockopt::socket_incoming_cpu;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The calling thread stays where it is until this ends.
pub(crate) struct Pinned {
    before: CpuSet,
}

impl Pinned {
    /// To one of the processors that it may use: threads with subsequent numbers to subsequent ones.
    pub(crate) fn by_number(number: usize) -> io::Result<Self> {
        let before = sched_getaffinity(None)?;
        let allowed: Vec<_> = (0..CpuSet::MAX_CPU).filter(|&cpu| before.is_set(cpu)).collect();
        let cpu = allowed.get(number % allowed.len().max(1)).ok_or(io::ErrorKind::NotFound)?;
        Self::to(*cpu, before)
    }

    /// To where the packets of a connection come in: packets are forwarded where their sender runs.
    pub(crate) fn where_it_arrives(stream: &TcpStream) -> io::Result<Self> {
        let cpu = usize::try_from(socket_incoming_cpu(stream)?).map_err(io::Error::other)?;
        Self::to(cpu, sched_getaffinity(None)?)
    }

    fn to(cpu: usize, before: CpuSet) -> io::Result<Self> {
        let mut only = CpuSet::new();
        only.set(cpu);
        sched_setaffinity(None, &only)?;
        Ok(Self { before })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // It was allowed before.
        let _ = sched_setaffinity(None, &self.before);
    }
}
