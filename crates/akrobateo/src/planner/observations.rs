//! The observations of the port allocation, from the cache. No I/O.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use akrobateo_core::Frontend;
use akrobateo_services::allocation::{Observations, OccupiedPorts, RecentEndpoints};
use akrobateo_services::key::ServiceKey;
use akrobateo_services::node_info::NodeInfo;
use akrobateo_services::parsed_services::{ParsedService, ParsedServices};
use akrobateo_services::published::nodes_with_addresses;
use akrobateo_services::spec::LoadBalancerSpec;

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
    key: &ServiceKey,
    nodes: &[NodeInfo],
    agent_states: &AgentStates,
) -> OccupiedPorts {
    let OccupiedPorts { mut frontends, nodes: mut node_names } = stores.occupied_ports(key, nodes);
    if let Some(service) = services.get(key).filter(|_| !agent_states.is_empty()) {
        let defaults = services.defaults();
        let occupied_by_agents = agents.occupied_ports(service, defaults, nodes, agent_states);
        frontends.extend(occupied_by_agents.frontends);
        node_names.extend(occupied_by_agents.nodes);
    }
    OccupiedPorts { frontends, nodes: node_names }
}
