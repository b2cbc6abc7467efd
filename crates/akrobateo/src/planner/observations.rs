//! The observations of the port allocation, from the cache. No I/O.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use akrobateo_core::Frontend;
use akrobateo_services::allocation::{Observations, OccupiedPorts, PortAllocations, RecentEndpoints};
use akrobateo_services::key::ServiceKey;
use akrobateo_services::node_info::NodeInfo;
use akrobateo_services::parsed_services::{ParsedService, ParsedServices};
use akrobateo_services::published::nodes_with_addresses;
use akrobateo_services::spec::LoadBalancerSpec;

use super::agent_facts::ports_of_rejected_service;
use super::agents::Agents;
use crate::cache::Stores;
use crate::decide::{AgentStates, needed_frontends};

/// Reads the observations of the allocation from the cache, and records the occupied ports that the allocation read.
pub(super) struct StoreObservations<'a> {
    read_occupied_ports: &'a dyn Fn(&ServiceKey) -> OccupiedPorts,
    nodes: &'a [NodeInfo],
    recent_endpoints: &'a RecentEndpoints,
    occupied_ports: RefCell<HashMap<ServiceKey, OccupiedPorts>>,
}

impl<'a> StoreObservations<'a> {
    pub(super) fn new(
        read_occupied_ports: &'a dyn Fn(&ServiceKey) -> OccupiedPorts,
        nodes: &'a [NodeInfo],
        recent_endpoints: &'a RecentEndpoints,
    ) -> Self {
        Self { read_occupied_ports, nodes, recent_endpoints, occupied_ports: RefCell::default() }
    }

    /// Returns the occupied ports that the allocation read.
    pub(super) fn into_occupied_ports(self) -> HashMap<ServiceKey, OccupiedPorts> {
        self.occupied_ports.into_inner()
    }
}

impl Observations for StoreObservations<'_> {
    fn needed_frontends(&self, spec: &LoadBalancerSpec) -> BTreeSet<Frontend> {
        needed_frontends(spec, self.nodes)
    }

    fn occupied_ports(&self, key: &ServiceKey) -> OccupiedPorts {
        let mut occupied_ports = self.occupied_ports.borrow_mut();
        occupied_ports.entry(key.clone()).or_insert_with(|| (self.read_occupied_ports)(key)).clone()
    }

    fn recent_endpoint_nodes(&self, key: &ServiceKey) -> BTreeSet<String> {
        self.recent_endpoints.nodes(key)
    }

    fn endpoint_nodes(&self, key: &ServiceKey) -> BTreeSet<String> {
        self.recent_endpoints.current_nodes(key)
    }

    fn published_nodes(&self, service: &ParsedService) -> BTreeSet<String> {
        nodes_with_addresses(&service.published_addresses, self.nodes)
    }
}

/// Returns the ports that the Service's workload and the node agents use for the Service on these nodes.
pub(super) fn read_occupied_ports(
    stores: &Stores,
    agents: &Agents,
    services: &ParsedServices,
    previous_allocations: &PortAllocations,
    key: &ServiceKey,
    nodes: &[NodeInfo],
    agent_states: &AgentStates,
) -> OccupiedPorts {
    let mut ports = stores.occupied_ports(key, nodes);
    let Some(parsed) = services.get(key).filter(|_| !agent_states.is_empty()) else { return ports };
    match &parsed.spec {
        Some(Ok(spec)) => {
            let ports_of_agents = agents.occupied_ports(parsed, spec, nodes, agent_states);
            ports.frontends.extend(ports_of_agents.frontends);
            ports.nodes.extend(ports_of_agents.nodes);
            ports
        }
        // The workload shows the last valid ports of the Service.
        Some(Err(_)) if ports.frontends.is_empty() => {
            let previous_ports =
                previous_allocations.previous_ports(key, parsed.service.metadata.uid.as_ref(), nodes);
            ports_of_rejected_service(parsed, services.defaults(), nodes, agent_states, previous_ports)
        }
        Some(Err(_)) | None => ports,
    }
}
