//! The limits and timeouts of the userspace path. Reads and raises the limit of file descriptors.

use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};

/// Largest number of workers. One worker forwards several Gbit/s, and the node's other pods need processors too.
const MAX_WORKERS: usize = 4;
/// Largest number of TCP connections, if there are enough file descriptors.
const MAX_CONNECTIONS: usize = 65_536;
/// Largest number of UDP sessions.
const MAX_UDP_SESSIONS: usize = 16_384;
/// Number of file descriptors that a worker needs for epoll and pipes.
const DESCRIPTORS_PER_WORKER: usize = 80;
/// Number of file descriptors that the process needs for probes, signals and logs.
const DESCRIPTORS_PER_PROCESS: usize = 100;

/// The limits and timeouts of the userspace path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Number of worker threads.
    pub workers: usize,
    /// Largest number of TCP connections. Further clients wait in the kernel's queue.
    pub connections: usize,
    /// Largest number of UDP sessions. A new session replaces the oldest session that the target never answered.
    pub udp_sessions: usize,
    /// Time in which a target must accept a TCP connection.
    pub connect_timeout: Duration,
    /// A TCP connection is closed after this time of silence. If the other host is gone, keep-alive probes end the
    /// connection much earlier.
    pub idle_timeout: Duration,
    /// A UDP session expires after this time of silence if the target has never answered. conntrack has the same
    /// default.
    pub unanswered_udp_timeout: Duration,
    /// A UDP session expires after this time of silence if the target has answered. conntrack has the same default.
    pub answered_udp_timeout: Duration,
    /// While draining: the process may exit after all UDP sessions have been silent for this time.
    pub udp_drain_idle_time: Duration,
}

impl Settings {
    /// Returns the settings for this host and this container's limits. Raises the soft limit of file descriptors.
    #[must_use]
    pub fn for_this_host(tcp_ports: usize, udp_ports: usize) -> Self {
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS);
        Self::for_descriptor_limit(raise_descriptor_limit(), workers, tcp_ports, udp_ports)
    }

    fn for_descriptor_limit(descriptors: usize, workers: usize, tcp_ports: usize, udp_ports: usize) -> Self {
        let reserved_descriptors =
            DESCRIPTORS_PER_PROCESS + workers * (DESCRIPTORS_PER_WORKER + tcp_ports + udp_ports);
        let free_descriptors = descriptors.saturating_sub(reserved_descriptors);
        let udp_sessions = match (tcp_ports, udp_ports) {
            (_, 0) => 0,
            (0, _) => free_descriptors.saturating_sub(2).min(MAX_UDP_SESSIONS),
            _ => (free_descriptors / 4).min(MAX_UDP_SESSIONS),
        };
        Self {
            workers,
            // A connection has two descriptors.
            connections: ((free_descriptors - udp_sessions) / 2).clamp(1, MAX_CONNECTIONS),
            udp_sessions,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_hours(1),
            unanswered_udp_timeout: Duration::from_secs(30),
            answered_udp_timeout: Duration::from_mins(2),
            udp_drain_idle_time: Duration::from_secs(3),
        }
    }
}

/// Returns a duration in milliseconds, the unit of a worker's clock.
pub(super) fn to_milliseconds(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

/// Raises the soft limit of file descriptors to the hard limit. Returns the limit.
fn raise_descriptor_limit() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let soft_limit = limit.current;
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, current = ?soft_limit, "cannot raise the limit of file descriptors (RLIMIT_NOFILE)");
            limit.current = soft_limit;
        }
    }
    limit.current.and_then(|limit| limit.try_into().ok()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_and_udp_sessions_fit_into_the_descriptor_limit() {
        for descriptors in [1_024, 4_096, 65_536, 1 << 20] {
            for (workers, tcp_ports, udp_ports) in [(1, 1, 0), (2, 0, 1), (4, 100, 20)] {
                let settings = Settings::for_descriptor_limit(descriptors, workers, tcp_ports, udp_ports);
                let needed_descriptors = DESCRIPTORS_PER_PROCESS
                    + workers * (DESCRIPTORS_PER_WORKER + tcp_ports + udp_ports)
                    + 2 * settings.connections
                    + settings.udp_sessions;
                assert!(
                    needed_descriptors <= descriptors,
                    "{needed_descriptors} of {descriptors} descriptors: {settings:?}"
                );
            }
        }
        assert_eq!(Settings::for_descriptor_limit(1 << 20, 4, 1, 1).connections, MAX_CONNECTIONS);
        assert_eq!(Settings::for_descriptor_limit(0, 4, 1, 1).connections, 1);
    }
}
