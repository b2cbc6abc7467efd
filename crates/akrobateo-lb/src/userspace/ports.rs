//! The ports of a plan as userspace serves them. Pure.

use std::fmt::Display;
use std::net::SocketAddr;
use std::num::NonZeroU16;

use akrobateo_core::{Protocol, ProxyVersion};

use akrobateo_core::Family;

use crate::forwarding_config::ForwardingConfig;

/// A forwarded port of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) protocol: Protocol,
    pub(super) family: Family,
    pub(super) number: NonZeroU16,
    pub(super) target: SocketAddr,
    /// Whether the target is told the client's address.
    pub(super) proxy_protocol_for: Option<ProxyVersion>,
}

impl Port {
    /// All ports of the plan.
    pub(super) fn all(plan: &ForwardingConfig) -> Vec<Self> {
        let of = |family| {
            plan.forwards(family).map(move |(protocol, number, target)| Self {
                protocol,
                family,
                number,
                target,
                proxy_protocol_for: if protocol == Protocol::Tcp {
                    plan.proxy_protocol_for(number)
                } else {
                    None
                },
            })
        };
        Family::ALL.into_iter().flat_map(of).collect()
    }

    /// The labels of the port's metrics.
    pub(super) fn labels(&self) -> [(&'static str, &dyn Display); 3] {
        [("protocol", &self.protocol), ("port", &self.number), ("family", &self.family)]
    }
}
