//! The phases of a proxy's life, from forwarding to its end. No I/O.
//!
//! While a proxy in userspace drains, no other proxy of the node can have its ports. So it goes on accepting as long as
//! earlier connections need it. The proxy moves all workers to the next phase together, because the kernel distributes
//! clients among the sockets of all workers.

use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::{Acquire, Release};

/// A phase of a proxy's life. The phases follow one another in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Phase {
    /// The proxy serves all clients.
    Forwarding,
    /// The proxy still serves new clients, until the connections end that it had at the phase's begin.
    Draining,
    /// The proxy refuses new clients. Existing connections may finish.
    Closing,
    /// The workers end, and reset the connections that are left.
    Stopped,
}

impl Phase {
    const ALL: [Self; 4] = [Self::Forwarding, Self::Draining, Self::Closing, Self::Stopped];

    fn load(phase: &AtomicU8) -> Self {
        let number = usize::from(phase.load(Acquire));
        Self::ALL.get(number).copied().unwrap_or(Self::Stopped)
    }
}

/// The proxy's phase, and the progress of its workers.
#[derive(Debug)]
pub(super) struct DrainState {
    phase: AtomicU8,
    /// For each worker the last phase in which it had nothing left to wait for.
    settled: Box<[AtomicU8]>,
}

impl DrainState {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            phase: AtomicU8::new(Phase::Forwarding as u8),
            settled: (0..workers).map(|_| AtomicU8::new(Phase::Forwarding as u8)).collect(),
        }
    }

    /// Returns the proxy's phase.
    pub(super) fn phase(&self) -> Phase {
        Phase::load(&self.phase)
    }

    /// Begins a phase.
    pub(super) fn begin(&self, phase: Phase) {
        self.phase.store(phase as u8, Release);
    }

    /// Records whether a worker has nothing left to wait for in `phase`.
    pub(super) fn record(&self, worker: usize, phase: Phase, is_settled: bool) {
        if let Some(settled) = self.settled.get(worker) {
            let phase = if is_settled { phase } else { Phase::Forwarding };
            settled.store(phase as u8, Release);
        }
    }

    /// Returns whether no worker has anything left to wait for in `phase`.
    pub(super) fn is_settled(&self, phase: Phase) -> bool {
        self.settled.iter().all(|settled| Phase::load(settled) == phase)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phase_is_settled_when_every_worker_says_so_for_that_phase() {
        let drain = DrainState::new(2);
        drain.begin(Phase::Draining);
        assert_eq!(drain.phase(), Phase::Draining);
        drain.record(0, Phase::Draining, true);
        assert!(!drain.is_settled(Phase::Draining));
        drain.record(1, Phase::Draining, true);
        assert!(drain.is_settled(Phase::Draining) && !drain.is_settled(Phase::Closing));
        drain.record(0, Phase::Closing, true);
        drain.record(1, Phase::Closing, true);
        assert!(drain.is_settled(Phase::Closing));
        drain.record(1, Phase::Closing, false);
        assert!(!drain.is_settled(Phase::Closing));
    }
}
