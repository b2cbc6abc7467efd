//! A model of a cluster for tests of the allocation. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use akrobateo_core::Frontend;
use k8s_openapi::api::core::v1::{Node, Service};
use kube::ResourceExt;

use crate::allocation::{Allocation, AllocationResult, Observations, OccupiedPorts, PortAllocations};
use crate::fixtures::{ServiceBuilder, defaults, key, node};
use crate::key::ServiceKey;
use crate::node_info::NodeInfo;
use crate::parsed_services::ParsedService;
use crate::spec::{LoadBalancerSpec, PortSet, ServiceDefaults, is_external_policy_local, parse_tolerations};

/// The workload that the operator created for a Service after an allocation.
#[derive(Clone, Debug)]
struct AppliedWorkload {
    service_uid: Option<String>,
    spec: Arc<LoadBalancerSpec>,
    allocation: Allocation,
}

/// The rule for the published nodes of a Service without a ready endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RuleWithoutEndpoints {
    /// The Service publishes all its nodes until an endpoint is ready.
    PublishAll,
    /// The Service keeps the nodes that it published before.
    KeepPublished,
}

/// A cluster with three nodes: the Services, their observed state, and the last allocation.
#[derive(Clone, Default)]
pub(super) struct ClusterModel {
    pub(super) services: BTreeMap<ServiceKey, Arc<Service>>,
    pub(super) nodes: Vec<NodeInfo>,
    pub(super) reserved_ports: PortSet,
    workloads: BTreeMap<ServiceKey, AppliedWorkload>,
    /// The occupied ports of these Services. An entry replaces the ports of the Service's workload.
    pub(super) occupied_port_overrides: BTreeMap<ServiceKey, OccupiedPorts>,
    pub(super) nodes_with_ready_endpoint: BTreeMap<ServiceKey, BTreeSet<String>>,
    /// The Services that lost their endpoints a short time ago.
    pub(super) services_with_lost_endpoints: BTreeSet<ServiceKey>,
    pub(super) published_nodes: BTreeMap<ServiceKey, BTreeSet<String>>,
    /// The Services whose status reports that no endpoint is ready, with the rule for their published nodes.
    rules_without_endpoints: BTreeMap<ServiceKey, RuleWithoutEndpoints>,
    /// The nodes on which an operator that has just started treats a missing endpoint as recent.
    assumed_endpoints: BTreeMap<ServiceKey, BTreeSet<String>>,
    pub(super) allocations: PortAllocations,
    /// The number of earlier Services with the same key.
    pub(super) replacement_counts: BTreeMap<ServiceKey, usize>,
    /// True if the running operator has allocated ports. The operator writes nothing before its first allocation.
    has_allocated: bool,
}

impl Observations for ClusterModel {
    fn needed_frontends(&self, spec: &LoadBalancerSpec) -> BTreeSet<Frontend> {
        spec.frontends()
    }

    fn occupied_ports(&self, key: &ServiceKey) -> OccupiedPorts {
        if let Some(override_ports) = self.occupied_port_overrides.get(key) {
            return override_ports.clone();
        }
        let uid = self.services.get(key).and_then(|service| service.uid());
        let workload = self.workloads.get(key).filter(|workload| workload.service_uid == uid);
        let Some(AppliedWorkload { spec, allocation, .. }) = workload else {
            return OccupiedPorts::default();
        };
        let selected_nodes =
            self.nodes.iter().filter(|node| spec.nodes.matches(node) && allocation.allows(spec, node));
        OccupiedPorts {
            frontends: spec.frontends(),
            nodes: selected_nodes.map(|node| node.name.clone()).collect(),
            is_assumed: false,
        }
    }

    fn recent_endpoint_nodes(&self, key: &ServiceKey) -> BTreeSet<String> {
        let nodes = [&self.nodes_with_ready_endpoint, &self.assumed_endpoints];
        nodes.into_iter().filter_map(|nodes| nodes.get(key)).flatten().cloned().collect()
    }

    fn endpoint_nodes(&self, key: &ServiceKey) -> BTreeSet<String> {
        let has_lost_endpoints = self.services_with_lost_endpoints.contains(key);
        let nodes = self.nodes_with_ready_endpoint.get(key).filter(|_| !has_lost_endpoints);
        nodes.cloned().unwrap_or_default()
    }

    fn published_nodes(&self, service: &ParsedService) -> BTreeSet<String> {
        self.published_nodes.get(&service.key).cloned().unwrap_or_default()
    }
}

pub(super) fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// Returns a node whose label `name` is the name of the node.
pub(super) fn labelled_node(name: &str) -> Node {
    node(name).label("name", name).build()
}

impl ClusterModel {
    pub(super) fn new() -> Self {
        let nodes = ["n1", "n2", "n3"].map(|name| NodeInfo::from_node(&labelled_node(name)));
        Self { nodes: nodes.into(), ..Self::default() }
    }

    pub(super) fn add(&mut self, service: Service) {
        let (key, uid) = (ServiceKey::from_service(&service), service.uid());
        let previous_service = self.services.insert(key.clone(), Arc::new(service));
        if previous_service.is_some_and(|previous_service| previous_service.uid() != uid) {
            self.forget(&key);
        }
    }

    pub(super) fn delete(&mut self, key: &ServiceKey) {
        self.services.remove(key);
        self.forget(key);
    }

    /// Removes the workload of a deleted Service, and the records about its endpoints.
    fn forget(&mut self, key: &ServiceKey) {
        self.remove_workload(key);
        self.rules_without_endpoints.remove(key);
        self.assumed_endpoints.remove(key);
    }

    pub(super) fn defaults(&self) -> ServiceDefaults {
        let mut defaults = defaults();
        defaults.bounds.tolerations = parse_tolerations("[{operator: Exists}]").unwrap();
        ServiceDefaults { reserved_ports: self.reserved_ports.clone(), ..defaults }
    }

    pub(super) fn allocate(&mut self) {
        let services: Vec<_> = self.services.values().cloned().collect();
        self.allocations = self.allocations.update(&services, &self.nodes, &self.defaults(), self);
        self.has_allocated = true;
    }

    /// Adds or replaces Services, and allocates.
    pub(super) fn apply<const N: usize>(&mut self, services: [ServiceBuilder; N]) {
        for service in services {
            self.add(service.build());
        }
        self.allocate();
    }

    /// Creates the workloads of the last allocation, and deletes all other workloads.
    pub(super) fn sync_workloads(&mut self) {
        if !self.has_allocated {
            return;
        }
        let keys: Vec<_> = self.services.keys().cloned().collect();
        self.workloads.retain(|key, _| self.services.contains_key(key));
        self.occupied_port_overrides.retain(|key, _| self.services.contains_key(key));
        for key in &keys {
            self.sync_workload(key);
        }
    }

    pub(super) fn sync_workload(&mut self, key: &ServiceKey) {
        let Some(service) = self.services.get(key).filter(|_| self.has_allocated) else { return };
        match self.allocations.get(key) {
            Some(AllocationResult::Accepted(spec, allocation)) => {
                let (spec, allocation) = (spec.clone(), allocation.clone());
                self.occupied_port_overrides.remove(key);
                self.workloads
                    .insert(key.clone(), AppliedWorkload { service_uid: service.uid(), spec, allocation });
            }
            Some(AllocationResult::Rejected(_)) => {
                let occupied_frontends = self.occupied_ports(key).frontends;
                if occupied_frontends.iter().any(|port| self.reserved_ports.contains(port.host_port())) {
                    self.remove_workload(key);
                }
            }
            None => self.remove_workload(key),
        }
    }

    fn remove_workload(&mut self, key: &ServiceKey) {
        self.occupied_port_overrides.remove(key);
        self.workloads.remove(key);
    }

    /// Publishes each Service on the nodes that can answer. A Service without endpoints keeps its published nodes, or
    /// publishes all its nodes if no node is published.
    pub(super) fn publish(&mut self) {
        self.published_nodes.retain(|key, _| self.services.contains_key(key));
        for key in self.services.keys() {
            let previous_service = self.published_nodes.get(key).cloned().unwrap_or_default();
            let published_nodes = match self.allocations.get(key) {
                Some(AllocationResult::Accepted(spec, allocation)) => {
                    let endpoints = self.endpoint_nodes(key);
                    let is_published = self.nodes.iter().any(|node| previous_service.contains(&node.name));
                    let rule = (spec.is_external_traffic_policy_local && endpoints.is_empty()).then(|| {
                        let publishes_all =
                            self.rules_without_endpoints.get(key) == Some(&RuleWithoutEndpoints::PublishAll);
                        if is_published && !publishes_all {
                            RuleWithoutEndpoints::KeepPublished
                        } else {
                            RuleWithoutEndpoints::PublishAll
                        }
                    });
                    match rule {
                        Some(rule) => self.rules_without_endpoints.insert(key.clone(), rule),
                        None => self.rules_without_endpoints.remove(key),
                    };
                    let endpoints_allow = |name: &String| match rule {
                        None => !spec.is_external_traffic_policy_local || endpoints.contains(name),
                        Some(RuleWithoutEndpoints::PublishAll) => true,
                        Some(RuleWithoutEndpoints::KeepPublished) => previous_service.contains(name),
                    };
                    let can_answer = |node: &&NodeInfo| {
                        let is_unclaimed = allocation.unclaimed_nodes.contains(&node.name);
                        endpoints_allow(&node.name) && (is_unclaimed || allocation.allows(spec, node))
                    };
                    self.nodes.iter().filter(can_answer).map(|node| node.name.clone()).collect()
                }
                Some(AllocationResult::Rejected(_)) => continue,
                None => BTreeSet::new(),
            };
            self.published_nodes.insert(key.clone(), published_nodes);
        }
    }

    /// Allocates ports and updates workloads until nothing changes. Returns false if the fifth attempt still changes
    /// something.
    pub(super) fn allocate_until_stable(&mut self) -> bool {
        (0..5).any(|_| {
            let previous_allocations = self.allocations.clone();
            self.allocate();
            self.sync_workloads();
            self.publish();
            self.allocations.services_changed_since(&previous_allocations).is_empty()
        })
    }

    /// Starts a new operator, which knows only the objects in the cluster.
    pub(super) fn restart(&mut self) {
        self.allocations = PortAllocations::default();
        self.has_allocated = false;
        self.assume_endpoints_before_start();
    }

    /// Assumes endpoints in the same way as `Planner::assume_endpoints_before_start`.
    fn assume_endpoints_before_start(&mut self) {
        self.assumed_endpoints.clear();
        for (key, service) in &self.services {
            let rule = self.rules_without_endpoints.get(key);
            if !is_external_policy_local(service) || rule == Some(&RuleWithoutEndpoints::PublishAll) {
                continue;
            }
            let mut nodes = self.occupied_ports(key).nodes;
            if rule.is_none() || !self.endpoint_nodes(key).is_empty() {
                let published_nodes = self.published_nodes.get(key).cloned().unwrap_or_default();
                nodes.retain(|name| published_nodes.contains(name));
            }
            self.assumed_endpoints.insert(key.clone(), nodes);
        }
    }

    /// Returns true if an operator that has just started treats a node without an endpoint as a node with an endpoint.
    pub(super) fn assumes_missing_endpoints(&self) -> bool {
        self.services.keys().any(|key| self.recent_endpoint_nodes(key) != self.endpoint_nodes(key))
    }

    /// Ends the time in which an operator that has just started treats missing endpoints as recent.
    pub(super) fn expire_assumed_endpoints(&mut self) {
        self.assumed_endpoints.clear();
    }

    pub(super) fn allocation(&self, name: &str) -> &Allocation {
        match self.allocations.get(&key(name)) {
            Some(AllocationResult::Accepted(_, allocation)) => allocation,
            other => panic!("{name} is not accepted: {other:?}"),
        }
    }

    /// Returns the nodes on which a Service's proxies may run.
    pub(super) fn allowed_nodes(&self, name: &str) -> Vec<String> {
        let Some(AllocationResult::Accepted(spec, allocation)) = self.allocations.get(&key(name)) else {
            return Vec::new();
        };
        let allowed_nodes = self.nodes.iter().filter(|node| allocation.allows(spec, node));
        allowed_nodes.map(|node| node.name.clone()).collect()
    }

    pub(super) fn conflicts(&self, name: &str) -> Vec<String> {
        self.allocation(name).conflicts.iter().map(ToString::to_string).collect()
    }
}
