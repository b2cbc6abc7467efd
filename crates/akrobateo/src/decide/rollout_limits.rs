//! The limits of a rollout: the number of proxies that it replaces at the same time, and the time for one proxy. Pure.

use k8s_openapi::jiff::SignedDuration;

/// The time limit for the replacement of a proxy without ports. Most replacements take one or two seconds.
const REPLACEMENT_TIME: SignedDuration = SignedDuration::from_secs(60);
/// The additional time for each hostPort. On a busy node, the network plugin needs up to 180 ms for each port.
const REPLACEMENT_TIME_PER_PORT: SignedDuration = SignedDuration::from_millis(250);

/// The maximum number of nodes on which new proxies may fail before the first new proxy is ready.
pub(super) const MAX_FAILED_ATTEMPTS: usize = 3;

/// Returns the number of available proxies that a rollout may replace at the same time.
pub(super) fn max_simultaneous_replacements(proxy_count: usize) -> usize {
    (proxy_count / 10).max(1)
}

/// Returns the time limit for the replacement of a proxy with this number of hostPorts.
pub(super) fn replacement_time(host_port_count: usize) -> SignedDuration {
    let count = i32::try_from(host_port_count).unwrap_or(i32::MAX);
    REPLACEMENT_TIME.saturating_add(REPLACEMENT_TIME_PER_PORT.saturating_mul(count))
}
