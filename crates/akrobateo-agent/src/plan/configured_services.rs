//! The Services in the configuration of the data path, with their endpoints. A change of endpoints changes only the
//! Services of these endpoints. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use akrobateo_services::key::ServiceKey;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;

use super::endpoint_limits::{MAX_ENDPOINTS_OF_SERVICE, limit_service, limit_services};
use super::endpoint_nodes::EndpointNodes;
use super::endpoints::nodes_without_agent;
use super::node::NodeNumbers;
use super::observation::Observation;
use super::template::{ServiceTemplate, Templates};
use crate::config;
use crate::marks::NodeNumber;

/// The Services in the configuration of the data path, without their endpoints.
#[derive(Debug)]
pub(super) struct ConfiguredServices {
    /// The Services that this node serves.
    pub(super) served: Templates,
    /// The Services that only other nodes serve. Those nodes send packets to the endpoints on this node.
    pub(super) served_by_others: Templates,
    node_numbers: NodeNumbers,
    own_number: NodeNumber,
    node_names: BTreeSet<String>,
    /// The nodes without an agent that have endpoints, for each Service that needs the agents of other nodes.
    nodes_without_agent: BTreeMap<ServiceKey, BTreeSet<String>>,
    /// The maximum number of endpoints of each Service in the configuration.
    max_endpoints_of_service: usize,
}

impl ConfiguredServices {
    pub(super) fn new(
        observation: &Observation,
        node_numbers: NodeNumbers,
        served: Templates,
        served_by_others: Templates,
    ) -> Self {
        Self {
            served,
            served_by_others,
            node_numbers,
            own_number: observation.number,
            node_names: observation.nodes.iter().map(|node| node.name_any()).collect(),
            nodes_without_agent: BTreeMap::new(),
            max_endpoints_of_service: MAX_ENDPOINTS_OF_SERVICE,
        }
    }

    /// Returns all Services with their endpoints: first the served Services, then the Services of other nodes.
    pub(super) fn configure_all(
        &mut self,
        endpoint_slices: &dyn Fn(&ServiceKey) -> Vec<Arc<EndpointSlice>>,
        endpoint_nodes: &EndpointNodes,
    ) -> Vec<config::Service> {
        let keys: Vec<_> = self.served.keys().chain(self.served_by_others.keys()).cloned().collect();
        let services =
            keys.iter().filter_map(|key| self.configure(key, &endpoint_slices(key), endpoint_nodes));
        let mut services: Vec<_> = services.collect();
        self.max_endpoints_of_service = limit_services(&mut services, self.own_number);
        services
    }

    /// Returns a Service with these endpoints; `None` if the configuration does not contain the Service.
    fn configure(
        &mut self,
        key: &ServiceKey,
        slices: &[Arc<EndpointSlice>],
        endpoint_nodes: &EndpointNodes,
    ) -> Option<config::Service> {
        if let Some(template) = self.served.get(key) {
            let nodes = self.find_nodes_without_agent(template, slices);
            let service = template.to_service(slices, &self.node_numbers, endpoint_nodes, self.own_number);
            if nodes.is_empty() {
                self.nodes_without_agent.remove(key);
            } else {
                self.nodes_without_agent.insert(key.clone(), nodes);
            }
            return Some(service);
        }
        let template = self.served_by_others.get(key)?;
        template.to_service_of_other_nodes(slices, &self.node_numbers, endpoint_nodes, self.own_number)
    }

    /// Changes the endpoints of a Service in `services`, which contains the results of this type. Returns true if the
    /// Service has changed.
    pub(super) fn update_endpoints(
        &mut self,
        services: &mut Vec<config::Service>,
        key: &ServiceKey,
        slices: &[Arc<EndpointSlice>],
        endpoint_nodes: &EndpointNodes,
    ) -> bool {
        let name = key.to_string();
        let position = services.iter().position(|service| service.name == name);
        let mut configured = self.configure(key, slices, endpoint_nodes);
        if let Some(service) = &mut configured {
            limit_service(service, self.max_endpoints_of_service, self.own_number);
        }
        match (position, configured) {
            (Some(index), Some(configured)) => {
                let has_changed = services[index] != configured;
                services[index] = configured;
                has_changed
            }
            (Some(index), None) => {
                services.remove(index);
                true
            }
            // Only a Service that other nodes serve can be missing.
            (None, Some(configured)) => {
                let key = (true, key.namespace.as_str(), key.name.as_str());
                services.insert(services.partition_point(|service| sort_key(service) < key), configured);
                true
            }
            (None, None) => false,
        }
    }

    /// Returns the nodes without an agent that have endpoints. These endpoints do not see the client's address.
    pub(super) fn all_nodes_without_agent(&self) -> BTreeSet<String> {
        self.nodes_without_agent.values().flatten().cloned().collect()
    }

    /// Every tenant can write any name into an `EndpointSlice`. The report must not grow with the names of such nodes, so
    /// the result contains only nodes that exist.
    fn find_nodes_without_agent(
        &self,
        template: &ServiceTemplate,
        slices: &[Arc<EndpointSlice>],
    ) -> BTreeSet<String> {
        if !template.needs_other_agents() {
            return BTreeSet::new();
        }
        let nodes = nodes_without_agent(slices, &self.node_numbers);
        nodes.filter(|node| self.node_names.contains(*node)).map(str::to_owned).collect()
    }
}

/// Returns the key by which the Services in the configuration are sorted.
fn sort_key(service: &config::Service) -> (bool, &str, &str) {
    let (namespace, name) = service.name.split_once('/').unwrap_or_default();
    (service.families.is_empty(), namespace, name)
}
