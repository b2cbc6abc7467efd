//! The facts that decide which Service gets a port of this node. Pure.

use std::collections::BTreeSet;

use akrobateo_core::Frontend;
use akrobateo_services::allocation::{Observations, OccupiedPorts, RecentEndpoints};
use akrobateo_services::key::ServiceKey;
use akrobateo_services::node_info::NodeInfo;
use akrobateo_services::parsed_services::ParsedService;
use akrobateo_services::published::has_node_address;
use akrobateo_services::spec::LoadBalancerSpec;

use super::template::Templates;

/// The facts about one node that the allocation of ports needs.
pub(super) struct NodeObservations<'a> {
    node: &'a NodeInfo,
    /// The Services that the node serves now.
    current_services: &'a Templates,
    recent_endpoints: &'a RecentEndpoints,
}

impl<'a> NodeObservations<'a> {
    pub(super) const fn new(
        node: &'a NodeInfo,
        current_services: &'a Templates,
        recent_endpoints: &'a RecentEndpoints,
    ) -> Self {
        Self { node, current_services, recent_endpoints }
    }
}

impl Observations for NodeObservations<'_> {
    fn needed_frontends(&self, spec: &LoadBalancerSpec) -> BTreeSet<Frontend> {
        spec.frontends()
    }

    fn occupied_ports(&self, key: &ServiceKey) -> OccupiedPorts {
        self.current_services.get(key).map_or_else(OccupiedPorts::default, |template| OccupiedPorts {
            frontends: template.frontends(),
            nodes: [self.node.name.clone()].into(),
            is_assumed: false,
        })
    }

    fn recent_endpoint_nodes(&self, key: &ServiceKey) -> BTreeSet<String> {
        self.recent_endpoints.nodes(key)
    }

    fn endpoint_nodes(&self, key: &ServiceKey) -> BTreeSet<String> {
        self.recent_endpoints.current_nodes(key)
    }

    fn published_nodes(&self, service: &ParsedService) -> BTreeSet<String> {
        let is_published = has_node_address(&service.published_addresses, self.node);
        is_published.then(|| self.node.name.clone()).into_iter().collect()
    }
}
