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
    /// The version of the PROXY protocol header that the target expects; `None` if it expects no header.
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

    /// Returns the labels of the port's metrics.
    pub(super) fn labels(&self) -> [(&'static str, &dyn Display); 3] {
        [("protocol", &self.protocol), ("port", &self.number), ("family", &self.family)]
    }
}
