//! Decides which conntrack entries contradict the forwarding configuration. Pure.

use std::num::NonZeroU16;

use akrobateo_core::{Family, Frontend, Protocol};
use netfilter::conntrack::Flow;

use crate::forwarding_config::ForwardingConfig;

/// Returns true if `flow` must end, because the current rules would deny this flow or give it another target.
///
/// A TCP connection is not stale if its frontend has a new target. The connection keeps its earlier target, as with any
/// load balancer.
pub(crate) fn is_stale(flow: &Flow, config: &ForwardingConfig) -> bool {
    let frontend = NonZeroU16::new(flow.original_destination.port()).map(|port| Frontend {
        family: Family::from_ip(flow.original_destination.ip()),
        protocol: flow.protocol,
        port,
    });
    let target = frontend.and_then(|frontend| config.target(frontend));
    let was_forwarded = flow.reply_source != flow.original_destination;
    if !was_forwarded && target.is_none() {
        return false;
    }
    let is_denied = !config.allows(flow.client.ip());
    let has_other_target = target.unwrap_or(flow.original_destination) != flow.reply_source;
    is_denied || (has_other_target && flow.protocol == Protocol::Udp)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use akrobateo_core::ProxyArgs;

    use super::*;

    fn build_config(sources: &[&str]) -> ForwardingConfig {
        let forwards = ["tcp/80=10.96.0.1:8080", "udp/53=10.96.0.1:53"].map(|text| text.parse().unwrap());
        let sources = sources.iter().map(|text| text.parse().unwrap()).collect();
        ForwardingConfig::new(ProxyArgs { sources, ..ProxyArgs::new(forwards.into()) }).unwrap()
    }

    fn build_flow(protocol: Protocol, port: u16, reply_source: &str) -> Flow {
        Flow {
            protocol,
            client: "192.0.2.7:4000".parse().unwrap(),
            original_destination: SocketAddr::from(([10, 244, 0, 5], port)),
            reply_source: reply_source.parse().unwrap(),
        }
    }

    #[test]
    fn udp_flow_with_another_target_is_stale_and_tcp_connection_is_not() {
        let config = build_config(&[]);
        for (flow, expected) in [
            (build_flow(Protocol::Udp, 53, "10.96.0.1:53"), false),
            (build_flow(Protocol::Udp, 53, "10.96.0.2:53"), true),
            (build_flow(Protocol::Udp, 53, "10.244.0.5:53"), true),
            (build_flow(Protocol::Udp, 54, "10.96.0.1:54"), true),
            (build_flow(Protocol::Udp, 54, "10.244.0.5:54"), false),
            (build_flow(Protocol::Tcp, 80, "10.96.0.2:8080"), false),
            (build_flow(Protocol::Tcp, 1024, "10.244.0.5:1024"), false),
        ] {
            assert_eq!(is_stale(&flow, &config), expected, "{flow:?}");
        }
    }

    #[test]
    fn flow_of_a_denied_client_is_stale_and_connection_to_the_probe_is_not() {
        let config = build_config(&["198.51.100.0/24"]);
        assert!(is_stale(&build_flow(Protocol::Tcp, 80, "10.96.0.1:8080"), &config));
        assert!(is_stale(&build_flow(Protocol::Udp, 53, "10.96.0.1:53"), &config));
        assert!(!is_stale(&build_flow(Protocol::Tcp, 1024, "10.244.0.5:1024"), &config));
    }
}
