//! The limits and timeouts of the userspace path. Reads and raises the limit of file descriptors.

use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};

/// Largest number of workers. One worker forwards several Gbit/s, and the node's other pods need processors too.
const MAX_WORKERS: usize = 4;
/// Largest number of TCP connections, if there are enough file descriptors.
const MAX_CONNECTIONS: usize = 65_536;
/// Largest number of UDP sessions.
const MAX_UDP_SESSIONS: usize = 16_384;
/// The limit of one source address is the limit of all UDP sessions divided by this number.
const UDP_SESSIONS_PER_SOURCE_DIVISOR: usize = 4;
/// Smallest possible value of [`Settings::max_udp_sessions_per_source`].
const MIN_UDP_SESSIONS_PER_SOURCE: usize = 16;
/// Number of file descriptors that a worker needs for epoll and pipes. Listeners, connections and UDP sessions are
/// counted separately.
const DESCRIPTORS_PER_WORKER: usize = 80;
/// Number of file descriptors that the process needs for probes, signals and logs.
const DESCRIPTORS_PER_PROCESS: usize = 100;

/// The limits and timeouts of the userspace path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Number of worker threads.
    pub worker_count: usize,
    /// Largest number of TCP connections. Further clients wait in the kernel's queue.
    pub max_connections: usize,
    /// Largest number of UDP sessions. At the limit, a new session replaces the session that has been silent longest.
    /// Assured sessions are kept while at least a quarter of all sessions are unassured.
    pub max_udp_sessions: usize,
    /// Largest number of UDP sessions of one source address. At the limit, a new session replaces a session of the same
    /// address.
    pub max_udp_sessions_per_source: usize,
    /// Time in which a target must accept a TCP connection.
    pub connect_timeout: Duration,
    /// Silence after which a TCP connection is closed. Keep-alive probes detect vanished peers much earlier. The
    /// default value equals the default of conntrack's sysctl `nf_conntrack_tcp_timeout_established`.
    pub idle_timeout: Duration,
    /// Silence after which a TCP connection is closed if clients wait because the connection limit is reached.
    pub idle_timeout_at_connection_limit: Duration,
    /// Silence after which an unassured UDP session expires. The default value equals the default of conntrack's sysctl
    /// `nf_conntrack_udp_timeout`.
    pub udp_timeout: Duration,
    /// Silence after which an assured UDP session expires. A session is assured if the client has sent a datagram after
    /// an answer. The default value equals the default of conntrack's sysctl `nf_conntrack_udp_timeout_stream`.
    pub udp_stream_timeout: Duration,
    /// Longest time of the draining phase, in which the proxy still accepts new clients.
    pub drain_timeout: Duration,
    /// Silence after which the draining phase no longer waits for the UDP sessions.
    pub drain_udp_idle_timeout: Duration,
    /// Longest time of the closing phase, in which connections may finish.
    pub close_timeout: Duration,
    /// Silence after which the closing phase no longer waits for the remaining connections.
    pub close_idle_timeout: Duration,
}

impl Settings {
    /// Returns the settings for this host and this container's limits. Raises the soft limit of file descriptors.
    #[must_use]
    pub fn for_this_host(tcp_port_count: usize, udp_port_count: usize) -> Self {
        let worker_count = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS);
        Self::for_descriptor_limit(raise_descriptor_limit(), worker_count, tcp_port_count, udp_port_count)
    }

    fn for_descriptor_limit(
        descriptor_limit: usize,
        worker_count: usize,
        tcp_port_count: usize,
        udp_port_count: usize,
    ) -> Self {
        let reserved_descriptors = DESCRIPTORS_PER_PROCESS
            + worker_count * (DESCRIPTORS_PER_WORKER + tcp_port_count + udp_port_count);
        let free_descriptors = descriptor_limit.saturating_sub(reserved_descriptors);
        let udp_sessions = match (tcp_port_count, udp_port_count) {
            (_, 0) => 0,
            (0, _) => free_descriptors.saturating_sub(2).min(MAX_UDP_SESSIONS),
            _ => (free_descriptors / 4).min(MAX_UDP_SESSIONS),
        };
        Self {
            worker_count,
            // A connection needs two descriptors.
            max_connections: ((free_descriptors - udp_sessions) / 2).clamp(1, MAX_CONNECTIONS),
            max_udp_sessions: udp_sessions,
            max_udp_sessions_per_source: (udp_sessions / UDP_SESSIONS_PER_SOURCE_DIVISOR)
                .max(MIN_UDP_SESSIONS_PER_SOURCE),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_hours(5 * 24),
            idle_timeout_at_connection_limit: Duration::from_hours(1),
            udp_timeout: Duration::from_secs(30),
            udp_stream_timeout: Duration::from_mins(2),
            // The draining and the closing phase together must be shorter than `USERSPACE_GRACE_PERIOD`.
            drain_timeout: Duration::from_secs(20),
            drain_udp_idle_timeout: Duration::from_secs(3),
            close_timeout: Duration::from_secs(5),
            close_idle_timeout: Duration::from_secs(1),
        }
    }
}

/// Returns a duration in milliseconds, the unit of a worker's clock.
pub(super) fn to_milliseconds(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

/// Raises the soft limit of file descriptors to the hard limit. Returns the new soft limit.
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
    use akrobateo_core::data_path::USERSPACE_GRACE_PERIOD;

    use super::*;

    #[test]
    fn drain_ends_before_the_kubelet_kills_the_proxy() {
        let settings = Settings::for_descriptor_limit(4_096, 1, 1, 1);
        // The process needs some time to start the drain, and to end after the drain.
        let margin = Duration::from_secs(2);
        assert!(settings.drain_timeout + settings.close_timeout + margin < USERSPACE_GRACE_PERIOD);
    }

    #[test]
    fn connections_and_udp_sessions_fit_into_the_descriptor_limit() {
        for descriptor_limit in [1_024, 4_096, 65_536, 1 << 20] {
            for (worker_count, tcp_port_count, udp_port_count) in [(1, 1, 0), (2, 0, 1), (4, 100, 20)] {
                let settings = Settings::for_descriptor_limit(
                    descriptor_limit,
                    worker_count,
                    tcp_port_count,
                    udp_port_count,
                );
                let needed_descriptors = DESCRIPTORS_PER_PROCESS
                    + worker_count * (DESCRIPTORS_PER_WORKER + tcp_port_count + udp_port_count)
                    + 2 * settings.max_connections
                    + settings.max_udp_sessions;
                assert!(
                    needed_descriptors <= descriptor_limit,
                    "{needed_descriptors} of {descriptor_limit} descriptors: {settings:?}"
                );
            }
        }
        assert_eq!(Settings::for_descriptor_limit(1 << 20, 4, 1, 1).max_connections, MAX_CONNECTIONS);
        assert_eq!(Settings::for_descriptor_limit(0, 4, 1, 1).max_connections, 1);
    }
}
