//! The port and the HTTP paths of a proxy pod's readiness probe. Pure.

/// The HTTP path of the health check. The answer is 200 while the process works, even if the proxy drains or does not
/// forward. The answer is 503 if the process does not work.
pub const HEALTH_PATH: &str = "/healthz";

/// The HTTP path of the readiness probe. The answer is 200 while the proxy forwards, and 503 while the proxy does
/// not forward.
pub const READY_PATH: &str = "/readyz";

/// The HTTP path of the proxy's metrics, in Prometheus' text format.
pub const METRICS_PATH: &str = "/metrics";

/// The preferred port of the probe and the metrics. Every TCP port that the pod does not forward is also
/// possible.
pub const PREFERRED_PROBE_PORT: u16 = 10_290;

/// Chooses the probe port of a pod: the highest port up to [`PREFERRED_PROBE_PORT`] that is not in
/// `forwarded_tcp_ports`. Returns `None` if no port is free.
///
/// If no TCP port of the Service has the preferred number, the pod uses the preferred port.
#[must_use]
pub fn choose_probe_port(forwarded_tcp_ports: &[u16]) -> Option<u16> {
    (1024..=PREFERRED_PROBE_PORT).rev().find(|port| !forwarded_tcp_ports.contains(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probe_port_is_not_a_forwarded_port() {
        assert_eq!(choose_probe_port(&[80, 443]), Some(PREFERRED_PROBE_PORT));
        assert_eq!(
            choose_probe_port(&[PREFERRED_PROBE_PORT, PREFERRED_PROBE_PORT - 1]),
            Some(PREFERRED_PROBE_PORT - 2)
        );
    }
}
