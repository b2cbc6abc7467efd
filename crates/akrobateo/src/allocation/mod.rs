//! Allocates the ports of the nodes to all Services together. Pure.

mod claims;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use akrobateo_core::HostPort;
use k8s_openapi::api::core::v1::Service;

use crate::key::ServiceKey;
use crate::node_info::NodeInfo;
use crate::spec::{LoadBalancerSpec, ServiceDefaults, SpecError, is_eligible};
pub(crate) use claims::{Allocation, Conflict};
use claims::{NodePortOwners, NodeSet, PortClaim, Precedence, allocate_claims};

/// The result of validation and allocation for one eligible Service.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AllocationResult {
    /// The spec is invalid.
    Rejected(SpecError),
    /// The spec is valid. The allocation says on which nodes the Service gets its ports.
    Accepted(Arc<LoadBalancerSpec>, Allocation),
}

/// The ports and nodes that the running proxies of a Service occupy.
#[derive(Clone, Debug, Default)]
pub(crate) struct OccupiedPorts {
    pub(crate) ports: BTreeSet<HostPort>,
    pub(crate) nodes: BTreeSet<String>,
}

/// The allocation results of all eligible Services.
#[derive(Clone, Debug, Default)]
pub(crate) struct PortAllocations {
    allocation_results: HashMap<ServiceKey, AllocationResult>,
}

impl PortAllocations {
    /// Validates all Services and allocates their ports.
    ///
    /// The previous proxies of a rejected Service keep running. `occupied_ports` returns their ports and nodes.
    pub(crate) fn allocate(
        services: &[Arc<Service>],
        nodes: &[NodeInfo],
        defaults: &ServiceDefaults,
        occupied_ports: impl Fn(&ServiceKey) -> OccupiedPorts,
    ) -> Self {
        let eligible_services =
            services.iter().filter(|service| is_eligible(service, defaults.default_class));
        let specs: Vec<_> = eligible_services
            .map(|service| (service, LoadBalancerSpec::from_service(service, defaults).map(Arc::new)))
            .collect();
        let claims: Vec<_> = specs
            .iter()
            .map(|(service, spec)| {
                let key = ServiceKey::from_service(service);
                let (ports, nodes) = if let Ok(spec) = spec {
                    (spec.host_ports(), NodeSet::SelectedNodes(spec.nodes.clone()))
                } else {
                    let OccupiedPorts { ports, nodes } = occupied_ports(&key);
                    (ports, NodeSet::NodesWithProxies(nodes))
                };
                PortClaim { key, precedence: Precedence::from_service(service), ports, nodes }
            })
            .collect();
        let mut allocations = allocate_claims(&claims, nodes, &node_port_owners(services));
        let allocation_results = specs.into_iter().map(|(service, spec)| {
            let key = ServiceKey::from_service(service);
            let allocation = allocations.remove(&key).unwrap_or_default();
            let accept = |spec| AllocationResult::Accepted(spec, allocation);
            (key, spec.map_or_else(AllocationResult::Rejected, accept))
        });
        Self { allocation_results: allocation_results.collect() }
    }

    /// Returns the allocation result of one Service, or `None` if the Service does not exist or is not eligible.
    pub(crate) fn get(&self, key: &ServiceKey) -> Option<&AllocationResult> {
        self.allocation_results.get(key)
    }

    /// Returns the Services whose allocation result differs from the result in `previous`.
    pub(crate) fn services_changed_since(&self, previous: &Self) -> Vec<ServiceKey> {
        let changed_results = self
            .allocation_results
            .iter()
            .filter(|(key, allocation_result)| previous.get(key) != Some(allocation_result));
        let removed_keys =
            previous.allocation_results.keys().filter(|key| !self.allocation_results.contains_key(key));
        changed_results.map(|(key, _)| key).chain(removed_keys).cloned().collect()
    }
}

fn node_port_owners(services: &[Arc<Service>]) -> NodePortOwners {
    let mut node_port_owners = NodePortOwners::new();
    for service in services {
        for port in service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()) {
            let protocol = port.protocol.as_deref().unwrap_or("TCP").parse();
            let number = port.node_port.and_then(|number| u16::try_from(number).ok());
            if let (Ok(protocol), Some(port)) = (protocol, number.filter(|number| *number > 0)) {
                node_port_owners.insert(HostPort { protocol, port }, ServiceKey::from_service(service));
            }
        }
    }
    node_port_owners
}
