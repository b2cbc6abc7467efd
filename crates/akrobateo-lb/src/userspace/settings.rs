//! How much a proxy takes on, and how long it waits.

use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};

/// Workers at most: each can move several Gbit/s, and each pod on a node has its own.
const WORKERS: usize = 4;
/// Connections at most, where descriptors allow as many.
const CONNECTIONS: usize = 65_536;
/// Flows of datagrams at most.
const FLOWS: usize = 16_384;
/// Descriptors of a worker for anything but listeners, connections and flows: epoll, pipes.
const PER_WORKER: usize = 80;
/// Descriptors of the process for anything but workers: probes, signals, logs.
const PER_PROCESS: usize = 100;

/// How much a proxy takes on, and how long it waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Threads that move bytes.
    pub workers: usize,
    /// Connections at a time; more wait to be accepted.
    pub connections: usize,
    /// Flows of datagrams at a time; then those that were never answered make way for new ones.
    pub flows: usize,
    /// How long the target may take to answer a dial.
    pub dial: Duration,
    /// How long a connection may be silent. Peers that vanished are found by keep-alive long before.
    pub idle: Duration,
    /// How long a flow of datagrams lives that was never answered, and one that was; as with conntrack.
    pub unanswered: Duration,
    /// See `unanswered`.
    pub answered: Duration,
    /// How long the flows of datagrams must be silent for the process to end, once it is told to.
    pub quiet: Duration,
}

impl Settings {
    /// What this machine and this container's limits allow, for so many ports of each protocol; raises the limit of
    /// descriptors.
    #[must_use]
    pub fn for_this_host(tcp: usize, udp: usize) -> Self {
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS);
        Self::for_descriptors(raise_descriptors(), workers, tcp, udp)
    }

    fn for_descriptors(descriptors: usize, workers: usize, tcp: usize, udp: usize) -> Self {
        let left = descriptors.saturating_sub(PER_PROCESS + workers * (PER_WORKER + tcp + udp));
        let flows = match (tcp, udp) {
            (_, 0) => 0,
            (0, _) => left.saturating_sub(2).min(FLOWS),
            _ => (left / 4).min(FLOWS),
        };
        Self {
            workers,
            connections: ((left - flows) / 2).clamp(1, CONNECTIONS),
            flows,
            dial: Duration::from_secs(10),
            idle: Duration::from_hours(1),
            unanswered: Duration::from_secs(30),
            answered: Duration::from_mins(2),
            quiet: Duration::from_secs(3),
        }
    }
}

/// Has the process use all descriptors that it may; returns how many.
fn raise_descriptors() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let current = limit.current;
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, ?current, "cannot raise the limit of descriptors");
            limit.current = current;
        }
    }
    limit.current.and_then(|limit| limit.try_into().ok()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_and_flows_never_need_more_descriptors_than_there_are() {
        for descriptors in [1_024, 4_096, 65_536, 1 << 20] {
            for (workers, tcp, udp) in [(1, 1, 0), (2, 0, 1), (4, 100, 20)] {
                let settings = Settings::for_descriptors(descriptors, workers, tcp, udp);
                let needed = PER_PROCESS
                    + workers * (PER_WORKER + tcp + udp)
                    + 2 * settings.connections
                    + settings.flows;
                assert!(needed <= descriptors, "{descriptors} {workers} {tcp} {udp}: {settings:?}");
            }
        }
        assert_eq!(Settings::for_descriptors(1 << 20, 4, 1, 1).connections, CONNECTIONS);
        assert_eq!(Settings::for_descriptors(0, 4, 1, 1).connections, 1);
    }
}
