//! Decides which conntrack entries contradict the forwarding configuration. Pure.

use std::num::NonZeroU16;

use akrobateo_core::{Family, Protocol};
use netfilter::conntrack::Flow;

use crate::forwarding_config::ForwardingConfig;

/// Returns whether a flow must end because the rules would now treat a new flow like it differently.
///
/// A TCP connection keeps its target, as with any load balancer.
pub(crate) fn is_stale(flow: &Flow, plan: &ForwardingConfig) -> bool {
    let family = Family::from_ip(flow.original_destination.ip());
    let port = NonZeroU16::new(flow.original_destination.port());
    let target = port.and_then(|port| plan.target((family, flow.protocol, port)));
    let forwarded = flow.reply_source != flow.original_destination;
    if !forwarded && target.is_none() {
        return false;
    }
    let refused = !plan.allows(flow.client.ip());
    let elsewhere = target.unwrap_or(flow.original_destination) != flow.reply_source;
    refused || (elsewhere && flow.protocol == Protocol::Udp)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use akrobateo_core::ProxyArgs;

    use super::*;

    fn plan(sources: &[&str]) -> ForwardingConfig {
        let forwards = ["tcp/80=10.96.0.1:8080", "udp/53=10.96.0.1:53"].map(|text| text.parse().unwrap());
        let sources = sources.iter().map(|text| text.parse().unwrap()).collect();
        ForwardingConfig::new(ProxyArgs { sources, ..ProxyArgs::new(forwards.into()) }).unwrap()
    }

    fn flow(protocol: Protocol, port: u16, reply_source: &str) -> Flow {
        Flow {
            protocol,
            client: "192.0.2.7:4000".parse().unwrap(),
            original_destination: SocketAddr::from(([10, 244, 0, 5], port)),
            reply_source: reply_source.parse().unwrap(),
        }
    }

    #[test]
    fn udp_flows_follow_the_target_and_tcp_connections_stay() {
        let plan = plan(&[]);
        for (flow, stale) in [
            (flow(Protocol::Udp, 53, "10.96.0.1:53"), false),
            (flow(Protocol::Udp, 53, "10.96.0.2:53"), true),
            (flow(Protocol::Udp, 53, "10.244.0.5:53"), true),
            (flow(Protocol::Udp, 54, "10.96.0.1:54"), true),
            (flow(Protocol::Udp, 54, "10.244.0.5:54"), false),
            (flow(Protocol::Tcp, 80, "10.96.0.2:8080"), false),
            (flow(Protocol::Tcp, 1024, "10.244.0.5:1024"), false),
        ] {
            assert_eq!(is_stale(&flow, &plan), stale, "{flow:?}");
        }
    }

    #[test]
    fn flows_of_clients_that_are_no_longer_let_in_end_and_the_probe_stays() {
        let plan = plan(&["198.51.100.0/24"]);
        assert!(is_stale(&flow(Protocol::Tcp, 80, "10.96.0.1:8080"), &plan));
        assert!(is_stale(&flow(Protocol::Udp, 53, "10.96.0.1:53"), &plan));
        assert!(!is_stale(&flow(Protocol::Tcp, 1024, "10.244.0.5:1024"), &plan));
    }
}
