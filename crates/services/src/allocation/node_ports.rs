//! The ports that kube-proxy itself uses on every node: nodePorts and healthCheckNodePorts. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU16;

use akrobateo_core::{Family, Frontend, Protocol};
use k8s_openapi::api::core::v1::ServiceSpec;

use crate::key::ServiceKey;
use crate::parsed_services::ParsedService;

/// The field of a Service that makes kube-proxy use a port on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodePortKind {
    NodePort,
    HealthCheckNodePort,
}

impl fmt::Display for NodePortKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NodePort => "nodePort",
            Self::HealthCheckNodePort => "healthCheckNodePort",
        })
    }
}

/// The Service that has a port as its nodePort or healthCheckNodePort.
type NodePortOwner = (ServiceKey, NodePortKind);

/// The nodePorts and healthCheckNodePorts of all Services.
#[derive(Clone, Debug, Default)]
pub(super) struct NodePorts(BTreeMap<Frontend, NodePortOwner>);

impl NodePorts {
    pub(super) fn from_services<'a>(services: impl Iterator<Item = &'a ParsedService>) -> Self {
        let mut node_ports = Self::default();
        for ParsedService { key, service, .. } in services {
            let Some(spec) = &service.spec else { continue };
            for frontend in spec_node_ports(spec) {
                node_ports.insert(frontend, (key.clone(), NodePortKind::NodePort));
            }
            // kube-proxy answers health checks on this port, on the addresses of both families.
            if let Some(port) = spec.health_check_node_port.and_then(port_number) {
                for family in Family::ALL {
                    let frontend = Frontend { family, protocol: Protocol::Tcp, port };
                    node_ports.insert(frontend, (key.clone(), NodePortKind::HealthCheckNodePort));
                }
            }
        }
        node_ports
    }

    /// Inserts an owner. If a port has several owners, the owner with the first key remains, regardless of the order of
    /// the Services.
    fn insert(&mut self, frontend: Frontend, owner: NodePortOwner) {
        self.0
            .entry(frontend)
            .and_modify(|current| {
                if owner < *current {
                    current.clone_from(&owner);
                }
            })
            .or_insert(owner);
    }

    /// Returns the Service other than `claimant` that has a nodePort with this number.
    pub(super) fn get_other_owner(
        &self,
        frontend: Frontend,
        claimant: &ServiceKey,
    ) -> Option<&NodePortOwner> {
        self.0.get(&frontend).filter(|(owner, _)| owner != claimant)
    }
}

fn spec_node_ports(spec: &ServiceSpec) -> Vec<Frontend> {
    let families: Vec<_> =
        spec.ip_families.iter().flatten().filter_map(|name| Family::from_name(name)).collect();
    let mut frontends = Vec::new();
    for port in spec.ports.iter().flatten() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP").parse();
        if let (Ok(protocol), Some(port)) = (protocol, port.node_port.and_then(port_number)) {
            frontends.extend(families.iter().map(|&family| Frontend { family, protocol, port }));
        }
    }
    frontends
}

fn port_number(port: i32) -> Option<NonZeroU16> {
    u16::try_from(port).ok().and_then(NonZeroU16::new)
}
