//! Pins threads to processors, so that samples do not depend on the scheduler's choices. Does I/O.

use std::io;
use std::net::TcpStream;

use rustix::net::sockopt::socket_incoming_cpu;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Pins the calling thread to one processor. When the `CpuPin` is dropped, the thread may use its previous processors
/// again.
pub(crate) struct CpuPin {
    previous_cpus: CpuSet,
}

impl CpuPin {
    /// Pins the calling thread to one of the allowed processors. Consecutive numbers select consecutive processors.
    pub(crate) fn from_thread_number(thread_number: usize) -> io::Result<Self> {
        let previous_cpus = sched_getaffinity(None)?;
        let allowed_cpus: Vec<_> = (0..CpuSet::MAX_CPU).filter(|&cpu| previous_cpus.is_set(cpu)).collect();
        let cpu =
            allowed_cpus.get(thread_number % allowed_cpus.len().max(1)).ok_or(io::ErrorKind::NotFound)?;
        Self::pin(*cpu, previous_cpus)
    }

    /// Pins the calling thread to the processor on which the packets of a connection arrive.
    ///
    /// The kernel forwards packets on the processor of their sender, so the packets arrive on the client's processor.
    pub(crate) fn from_incoming_cpu(stream: &TcpStream) -> io::Result<Self> {
        let cpu = usize::try_from(socket_incoming_cpu(stream)?).map_err(io::Error::other)?;
        Self::pin(cpu, sched_getaffinity(None)?)
    }

    fn pin(cpu: usize, previous_cpus: CpuSet) -> io::Result<Self> {
        let mut one_cpu = CpuSet::new();
        one_cpu.set(cpu);
        sched_setaffinity(None, &one_cpu)?;
        Ok(Self { previous_cpus })
    }
}

impl Drop for CpuPin {
    fn drop(&mut self) {
        // The thread was allowed to run on these processors before, so the call succeeds.
        let _ = sched_setaffinity(None, &self.previous_cpus);
    }
}
