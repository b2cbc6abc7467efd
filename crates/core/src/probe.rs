//! Where a proxy pod answers probes, on a port that it does not forward.

/// The HTTP path that answers 200 while the proxy forwards, 503 otherwise.
pub const READY_PATH: &str = "/readyz";

/// The HTTP path that answers with the proxy's metrics in Prometheus' text format.
pub const METRICS_PATH: &str = "/metrics";

/// Preferred port of the probe; any other will do, for it is only ever used inside the pod.
pub const PREFERRED_PORT: u16 = 10_290;

/// The port for a pod's probes: the first from [`PREFERRED_PORT`] downwards that is not among `forwarded`,
/// so that it moves only when a Service asks for that very port. `None` when all are taken.
#[must_use]
pub fn port(forwarded: &[u16]) -> Option<u16> {
    (1024..=PREFERRED_PORT).rev().find(|port| !forwarded.contains(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_keeps_off_forwarded_ports() {
        assert_eq!(port(&[80, 443]), Some(PREFERRED_PORT));
        assert_eq!(port(&[PREFERRED_PORT, PREFERRED_PORT - 1]), Some(PREFERRED_PORT - 2));
    }
}
