//! The limits of a rollout: how many proxies at a time, and how long one may take. Pure.

use k8s_openapi::jiff::SignedDuration;

/// The time in which a proxy is replaced, in most cases in a second or two.
const REPLACEMENT_TIME: SignedDuration = SignedDuration::from_secs(60);
/// The additional time for each hostPort. The network plugin needs up to 180 ms for each port on a busy node.
const REPLACEMENT_TIME_PER_PORT: SignedDuration = SignedDuration::from_millis(250);

/// Most nodes on which the new proxies may fail before one of them has become ready on any node.
pub(super) const MAX_FAILED_ATTEMPTS: usize = 3;

/// Returns how many of the available proxies a rollout may replace at the same time.
pub(super) fn max_simultaneous_replacements(proxies: usize) -> usize {
    (proxies / 10).max(1)
}

/// Returns the time in which a proxy with this number of hostPorts is replaced.
pub(super) fn replacement_time(host_ports: usize) -> SignedDuration {
    let for_ports = REPLACEMENT_TIME_PER_PORT.saturating_mul(i32::try_from(host_ports).unwrap_or(i32::MAX));
    REPLACEMENT_TIME.saturating_add(for_ports)
}
