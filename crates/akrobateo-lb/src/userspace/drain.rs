//! The phases of a proxy, from forwarding to its end. No I/O.
//!
//! While a userspace proxy drains, no other proxy of the node can have the same ports. The draining proxy therefore
//! accepts new clients until its earlier connections have ended. All workers enter a phase together, because the kernel
//! distributes clients among the sockets of all workers.

use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::{Acquire, Release};

/// A phase of a proxy. A proxy enters the phases in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Phase {
    /// The proxy serves all clients.
    Forwarding,
    /// The proxy still serves new clients, until the connections from before this phase have ended.
    Draining,
    /// The proxy refuses new clients. Existing connections may finish.
    Closing,
    /// The workers end, and reset the remaining connections.
    Stopped,
}

impl Phase {
    const ALL: [Self; 4] = [Self::Forwarding, Self::Draining, Self::Closing, Self::Stopped];

    fn load(phase: &AtomicU8) -> Self {
        let number = usize::from(phase.load(Acquire));
        Self::ALL.get(number).copied().unwrap_or(Self::Stopped)
    }
}

/// The phase of the proxy, and the progress of its workers.
#[derive(Debug)]
pub(super) struct DrainState {
    phase: AtomicU8,
    /// The last phase that each worker has completed. A worker completes a phase when the worker waits for no
    /// connection any more.
    last_completed_phases: Box<[AtomicU8]>,
}

impl DrainState {
    pub(super) fn new(worker_count: usize) -> Self {
        Self {
            phase: AtomicU8::new(Phase::Forwarding as u8),
            last_completed_phases: (0..worker_count)
                .map(|_| AtomicU8::new(Phase::Forwarding as u8))
                .collect(),
        }
    }

    /// Returns the proxy's phase.
    pub(super) fn phase(&self) -> Phase {
        Phase::load(&self.phase)
    }

    /// Begins a phase.
    pub(super) fn begin_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Release);
    }

    /// Records whether a worker has completed `phase`.
    pub(super) fn record_completion(&self, worker_index: usize, phase: Phase, is_complete: bool) {
        if let Some(last_completed_phase) = self.last_completed_phases.get(worker_index) {
            let phase = if is_complete { phase } else { Phase::Forwarding };
            last_completed_phase.store(phase as u8, Release);
        }
    }

    /// Returns true if all workers have completed `phase` or a later phase.
    pub(super) fn is_complete(&self, phase: Phase) -> bool {
        self.last_completed_phases
            .iter()
            .all(|last_completed_phase| Phase::load(last_completed_phase) >= phase)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phase_is_complete_when_every_worker_has_completed_the_phase() {
        let drain = DrainState::new(2);
        drain.begin_phase(Phase::Draining);
        assert_eq!(drain.phase(), Phase::Draining);
        drain.record_completion(0, Phase::Draining, true);
        assert!(!drain.is_complete(Phase::Draining));
        drain.record_completion(1, Phase::Draining, true);
        assert!(drain.is_complete(Phase::Draining) && !drain.is_complete(Phase::Closing));
        drain.record_completion(0, Phase::Closing, true);
        drain.record_completion(1, Phase::Closing, true);
        assert!(drain.is_complete(Phase::Closing) && drain.is_complete(Phase::Draining));
        drain.record_completion(1, Phase::Closing, false);
        assert!(!drain.is_complete(Phase::Closing));
    }
}
