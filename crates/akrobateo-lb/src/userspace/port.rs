//! A forwarded port of the userspace path. Pure.

use std::fmt::Display;
use std::net::SocketAddr;
use std::num::NonZeroU16;

use akrobateo_core::{Family, Protocol, ProxyVersion};

use crate::forwarding_config::ForwardingConfig;

/// A forwarded port of one address family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) protocol: Protocol,
    pub(super) family: Family,
    pub(super) number: NonZeroU16,
    pub(super) target: SocketAddr,
    /// The version of the PROXY protocol header that the target expects; `None` if the target expects no header.
    pub(super) proxy_protocol: Option<ProxyVersion>,
}

impl Port {
    /// Returns all ports of the configuration.
    pub(super) fn from_config(config: &ForwardingConfig) -> Vec<Self> {
        let ports_of_family = |family| {
            config.forwards(family).map(move |(protocol, number, target)| {
                let proxy_protocol =
                    if protocol == Protocol::Tcp { config.proxy_protocol_for(number) } else { None };
                Self { protocol, family, number, target, proxy_protocol }
            })
        };
        Family::ALL.into_iter().flat_map(ports_of_family).collect()
    }

    /// Returns the ports that the proxy can serve. If the host has no IPv6, a proxy with a dual-stack configuration
    /// serves only its IPv4 ports.
    pub(super) fn filter_servable(ports: Vec<Self>, host_has_ipv6: bool) -> Vec<Self> {
        let is_ipv4 = |port: &Self| port.family == Family::V4;
        if host_has_ipv6 || !ports.iter().any(is_ipv4) {
            return ports;
        }
        ports.into_iter().filter(is_ipv4).collect()
    }

    /// Returns the labels of the port's metrics.
    pub(super) fn labels(&self) -> [(&'static str, &dyn Display); 3] {
        [("protocol", &self.protocol), ("port", &self.number), ("family", &self.family)]
    }
}

#[cfg(test)]
mod tests {
    use akrobateo_core::{DataPath, ProxyArgs};

    use super::*;

    #[test]
    fn proxy_on_host_without_ipv6_serves_ipv4_ports() {
        let families = |targets: &[&str], host_has_ipv6| {
            let forwards =
                targets.iter().map(|target| format!("tcp/80={target}:80").parse().unwrap()).collect();
            let args = ProxyArgs { data_path: DataPath::Userspace, ..ProxyArgs::new(forwards) };
            let ports = Port::from_config(&ForwardingConfig::new(args).unwrap());
            let ports = Port::filter_servable(ports, host_has_ipv6);
            ports.iter().map(|port| port.family).collect::<Vec<_>>()
        };
        let dual_stack = ["10.96.3.7", "[fd00::7]"];
        assert_eq!(families(&dual_stack, true), [Family::V4, Family::V6]);
        assert_eq!(families(&dual_stack, false), [Family::V4]);
        assert_eq!(
            families(&dual_stack[1..], false),
            [Family::V6],
            "the proxy must try to bind the IPv6 port, and fail with a message"
        );
    }
}
