//! A model of a cluster for tests of the allocation. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use akrobateo_core::Frontend;
use k8s_openapi::api::core::v1::{Node, Service};
use kube::ResourceExt;

use crate::allocation::{Allocation, AllocationResult, Observations, OccupiedPorts, PortAllocations};
use crate::decide::fixtures::{ServiceBuilder, defaults, key, node};
use crate::key::ServiceKey;
use crate::node_info::NodeInfo;
use crate::spec::{LoadBalancerSpec, PortSet, ServiceDefaults, parse_tolerations};

/// The workload of a Service, as the allocation asked for it.
#[derive(Clone, Debug)]
struct AppliedWorkload {
    uid: Option<String>,
    spec: Arc<LoadBalancerSpec>,
    allocation: Allocation,
}

/// The Services of a cluster with three nodes, what is observed about them, and the last allocation.
#[derive(Clone, Default)]
pub(super) struct World {
    pub(super) services: BTreeMap<ServiceKey, Arc<Service>>,
    pub(super) nodes: Vec<NodeInfo>,
    pub(super) reserved_ports: PortSet,
    workloads: BTreeMap<ServiceKey, AppliedWorkload>,
    /// The ports that are observed of these Services instead of their workloads.
    pub(super) held: BTreeMap<ServiceKey, OccupiedPorts>,
    pub(super) nodes_with_ready_endpoint: BTreeMap<ServiceKey, BTreeSet<String>>,
    /// The Services that lost their endpoints a short time ago.
    pub(super) without_endpoints: BTreeSet<ServiceKey>,
    pub(super) published_nodes: BTreeMap<ServiceKey, BTreeSet<String>>,
    pub(super) allocations: PortAllocations,
    /// The number of earlier Services with this name.
    pub(super) generations: BTreeMap<ServiceKey, usize>,
    /// False from the start of an operator until its first allocation. Until then it writes nothing.
    has_allocated: bool,
}

impl Observations for World {
    fn needed_frontends(&self, spec: &LoadBalancerSpec) -> BTreeSet<Frontend> {
        spec.frontends()
    }

    fn occupied_ports(&self, key: &ServiceKey) -> OccupiedPorts {
        if let Some(held) = self.held.get(key) {
            return held.clone();
        }
        let uid = self.services.get(key).and_then(|service| service.uid());
        let workload = self.workloads.get(key).filter(|workload| workload.uid == uid);
        let Some(AppliedWorkload { spec, allocation, .. }) = workload else {
            return OccupiedPorts::default();
        };
        let selected =
            self.nodes.iter().filter(|node| spec.nodes.matches(node) && allocation.allows(spec, node));
        OccupiedPorts { frontends: spec.frontends(), nodes: selected.map(|node| node.name.clone()).collect() }
    }

    fn recent_endpoint_nodes(&self, key: &ServiceKey) -> BTreeSet<String> {
        self.nodes_with_ready_endpoint.get(key).cloned().unwrap_or_default()
    }

    fn endpoint_nodes(&self, key: &ServiceKey) -> BTreeSet<String> {
        if self.without_endpoints.contains(key) { BTreeSet::new() } else { self.recent_endpoint_nodes(key) }
    }

    fn published_nodes(&self, service: &Service) -> BTreeSet<String> {
        self.published_nodes.get(&ServiceKey::from_service(service)).cloned().unwrap_or_default()
    }
}

pub(super) fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

pub(super) fn labelled_node(name: &str) -> Node {
    node(name).label("name", name).build()
}

impl World {
    pub(super) fn new() -> Self {
        let nodes = ["n1", "n2", "n3"].map(|name| NodeInfo::from_node(&labelled_node(name)));
        Self { nodes: nodes.into(), ..Self::default() }
    }

    pub(super) fn add(&mut self, service: Service) {
        let (key, uid) = (ServiceKey::from_service(&service), service.uid());
        let previous = self.services.insert(key.clone(), Arc::new(service));
        if previous.is_some_and(|previous| previous.uid() != uid) {
            self.remove_workload(&key);
        }
    }

    pub(super) fn delete(&mut self, key: &ServiceKey) {
        self.services.remove(key);
        self.remove_workload(key);
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

    /// Creates the workloads that the last allocation asks for, and deletes the others.
    pub(super) fn sync_workloads(&mut self) {
        if !self.has_allocated {
            return;
        }
        let keys: Vec<_> = self.services.keys().cloned().collect();
        self.workloads.retain(|key, _| self.services.contains_key(key));
        self.held.retain(|key, _| self.services.contains_key(key));
        for key in &keys {
            self.sync_workload(key);
        }
    }

    pub(super) fn sync_workload(&mut self, key: &ServiceKey) {
        let Some(service) = self.services.get(key).filter(|_| self.has_allocated) else { return };
        match self.allocations.get(key) {
            Some(AllocationResult::Accepted(spec, allocation)) => {
                let (spec, allocation) = (spec.clone(), allocation.clone());
                self.held.remove(key);
                self.workloads.insert(key.clone(), AppliedWorkload { uid: service.uid(), spec, allocation });
            }
            Some(AllocationResult::Rejected(_)) => {
                let held = self.occupied_ports(key).frontends;
                if held.iter().any(|port| self.reserved_ports.contains(port.host_port())) {
                    self.remove_workload(key);
                }
            }
            None => self.remove_workload(key),
        }
    }

    fn remove_workload(&mut self, key: &ServiceKey) {
        self.held.remove(key);
        self.workloads.remove(key);
    }

    /// Publishes each Service on the nodes that can answer.
    pub(super) fn publish(&mut self) {
        self.published_nodes.retain(|key, _| self.services.contains_key(key));
        for key in self.services.keys() {
            let published = match self.allocations.get(key) {
                Some(AllocationResult::Accepted(spec, allocation)) => {
                    let endpoints = self.recent_endpoint_nodes(key);
                    let answers = |node: &&NodeInfo| {
                        allocation.unclaimed_nodes.contains(&node.name)
                            || (allocation.allows(spec, node)
                                && (!spec.is_traffic_policy_local
                                    || endpoints.is_empty()
                                    || endpoints.contains(&node.name)))
                    };
                    self.nodes.iter().filter(answers).map(|node| node.name.clone()).collect()
                }
                Some(AllocationResult::Rejected(_)) => continue,
                None => BTreeSet::new(),
            };
            self.published_nodes.insert(key.clone(), published);
        }
    }

    /// Allocates and changes workloads until nothing changes. Returns false if that never happens.
    pub(super) fn settle(&mut self) -> bool {
        (0..5).any(|_| {
            let before = self.allocations.clone();
            self.allocate();
            self.sync_workloads();
            self.publish();
            self.allocations.services_changed_since(&before).is_empty()
        })
    }

    /// Starts another operator, which knows only what is in the cluster.
    pub(super) fn restart(&mut self) {
        self.allocations = PortAllocations::default();
        self.has_allocated = false;
    }

    pub(super) fn allocation(&self, name: &str) -> &Allocation {
        match self.allocations.get(&key(name)) {
            Some(AllocationResult::Accepted(_, allocation)) => allocation,
            other => panic!("{name} is not accepted: {other:?}"),
        }
    }

    /// Returns the nodes on which a Service's proxies may run.
    pub(super) fn allowed(&self, name: &str) -> Vec<String> {
        let Some(AllocationResult::Accepted(spec, allocation)) = self.allocations.get(&key(name)) else {
            return Vec::new();
        };
        let allowed = self.nodes.iter().filter(|node| allocation.allows(spec, node));
        allowed.map(|node| node.name.clone()).collect()
    }

    pub(super) fn conflicts(&self, name: &str) -> Vec<String> {
        self.allocation(name).conflicts.iter().map(ToString::to_string).collect()
    }
}
