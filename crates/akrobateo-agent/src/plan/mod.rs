//! Decides which Services the agent of a node serves, and with which configuration of the data path. Pure.

mod allocation;
mod endpoints;
mod node;
mod number;
mod observation;
mod ports;
mod template;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use akrobateo_core::{Family, Frontend};
use akrobateo_services::agent_report::{NodeNetwork, PortOwner, PortProblem};
use akrobateo_services::allocation::{Allocation, AllocationResult, PortAllocations, RecentEndpoints};
use akrobateo_services::endpoints::serving_nodes;
use akrobateo_services::key::ServiceKey;
use akrobateo_services::node_info::NodeInfo;
use akrobateo_services::published::is_published;
use akrobateo_services::spec::{
    LoadBalancerSpec, ServiceDefaults, SpecError, WorkloadSpec, is_eligible, is_external_policy_local,
};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

use crate::config::NodeConfig;
use allocation::NodeObservations;
pub(crate) use number::{NumberClaim, choose_number, rightful_claims};
pub(crate) use observation::{HostPortPod, Observation};
use template::ServiceTemplate;

/// The desired state of the data path, and the content of the report.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The configuration of the data path.
    pub(crate) config: NodeConfig,
    /// The facts that peers need to send packets through this node.
    pub(crate) network: NodeNetwork,
    /// The Services that the agent refuses.
    pub(crate) refused: Vec<PortProblem>,
    /// The ports that the agent serves although another owner came later.
    pub(crate) shared_ports: Vec<PortProblem>,
    /// The Services with their own proxies that the agent still serves.
    pub(crate) handing_over: Vec<String>,
    /// The time of the next plan if no event happens earlier.
    pub(crate) next_at: Option<Instant>,
}

/// Plans, and remembers what the last plan served.
pub(crate) struct Planner {
    defaults: ServiceDefaults,
    /// The ranges of pods that the administrator configures.
    pod_ranges: Vec<IpNet>,
    allocations: PortAllocations,
    recent_endpoints: RecentEndpoints,
    /// The Services that the last plan served; `None` before the first plan.
    served: Option<BTreeMap<ServiceKey, ServiceTemplate>>,
}

/// The decisions of one plan.
#[derive(Default)]
struct Decisions {
    served: BTreeMap<ServiceKey, ServiceTemplate>,
    taken: BTreeSet<Frontend>,
    refused: Vec<PortProblem>,
    shared_ports: Vec<PortProblem>,
    handing_over: Vec<String>,
}

impl Planner {
    /// Returns a planner that has not planned yet.
    pub(crate) fn new(defaults: ServiceDefaults, pod_ranges: Vec<IpNet>) -> Self {
        Self {
            defaults,
            pod_ranges,
            allocations: PortAllocations::default(),
            recent_endpoints: RecentEndpoints::default(),
            served: None,
        }
    }

    /// Returns the plan for an observation; `None` while the object of the node does not exist.
    pub(crate) fn plan(&mut self, observation: &Observation, now: Instant) -> Option<Plan> {
        let node_object = observation.nodes.iter().find(|node| node.name_any() == observation.node)?;
        let node = NodeInfo::new(node_object, self.defaults.node_policy);
        self.record_endpoints(observation, &node, now);
        let held = self.held_services(observation, &node);
        let mut decisions = Decisions::default();
        let mut services = observation.services.clone();
        services.retain(|service| !self.is_foreign(observation, service, &node, &held, &mut decisions));
        let observations = NodeObservations::new(&node, &held, &self.recent_endpoints);
        let nodes = std::slice::from_ref(&node);
        self.allocations = self.allocations.update(&services, nodes, &self.defaults, &observations);
        services.sort_by_cached_key(|service| ServiceKey::from_service(service));
        for service in &services {
            self.decide(observation, service, &node, &held, &mut decisions);
        }
        let peers = node::peers(observation);
        let numbers = node::numbers(observation, &peers);
        let slices = |key: &ServiceKey| observation.slices_of(key);
        let served = { decisions.served.values() }.map(|it| it.to_service(slices(&it.key), &numbers));
        let transit = self.transit_templates(observation, &decisions.served);
        let transit =
            transit.filter_map(|it| it.to_transit_service(slices(&it.key), &numbers, observation.number));
        let config = NodeConfig {
            services: served.chain(transit).collect(),
            node: node::local_node(observation, node_object),
            pod_ranges: node::pod_ranges(observation.nodes.iter().map(Arc::as_ref), &self.pod_ranges),
            peers,
            probes_tunnel: false,
        };
        self.served = Some(decisions.served);
        Some(Plan {
            config,
            network: node::node_network(observation, node_object),
            refused: decisions.refused,
            shared_ports: decisions.shared_ports,
            handing_over: decisions.handing_over,
            next_at: self.recent_endpoints.next_expiry(),
        })
    }

    /// Records the nodes with endpoints of Services with externalTrafficPolicy Local. Before the first plan, a published
    /// node counts as a node that had an endpoint a moment ago.
    fn record_endpoints(&mut self, observation: &Observation, node: &NodeInfo, now: Instant) {
        let keys: BTreeSet<_> =
            observation.services.iter().map(|service| ServiceKey::from_service(service)).collect();
        self.recent_endpoints.retain_existing(|key| keys.contains(key));
        for service in observation.services.iter().filter(|service| is_external_policy_local(service)) {
            let (key, uid) = (ServiceKey::from_service(service), service.uid());
            if self.served.is_none() && is_published(service, node) {
                let this_node = BTreeSet::from([node.name.clone()]);
                self.recent_endpoints.record(&key, uid.as_ref(), &this_node, now);
            }
            let slices = observation.endpoint_slices.get(&key).into_iter().flatten();
            let endpoints = slices.flat_map(|slice| slice.endpoints.iter().flatten());
            self.recent_endpoints.record(&key, uid.as_ref(), &serving_nodes(endpoints), now);
        }
        self.recent_endpoints.expire(now);
    }

    /// Returns the Services that the node serves now. Before the first plan, these are the Services whose ports are all
    /// in the kernel's rules and that publish the node.
    fn held_services(
        &self,
        observation: &Observation,
        node: &NodeInfo,
    ) -> BTreeMap<ServiceKey, ServiceTemplate> {
        let is_same_service = |service: &Service, template: &ServiceTemplate| service.uid() == template.uid;
        let held = |service: &Arc<Service>| {
            let key = ServiceKey::from_service(service);
            let template = match &self.served {
                Some(served) => {
                    served.get(&key).filter(|template| is_same_service(service, template))?.clone()
                }
                None => installed_template(observation, service, node, &self.defaults)?,
            };
            Some((key, template))
        };
        observation.services.iter().filter_map(held).collect()
    }

    /// Returns true if a pod or a process has a port of the Service, so that the agent cannot serve the Service. A port
    /// that the Service holds remains its port.
    fn is_foreign(
        &self,
        observation: &Observation,
        service: &Service,
        node: &NodeInfo,
        held: &BTreeMap<ServiceKey, ServiceTemplate>,
        decisions: &mut Decisions,
    ) -> bool {
        if !is_eligible(service, self.defaults.is_default_class) {
            return false;
        }
        let Ok(spec) = LoadBalancerSpec::from_service(service, &self.defaults) else { return false };
        if spec.workload != WorkloadSpec::Shared || !spec.nodes.matches(node) {
            return false;
        }
        let key = ServiceKey::from_service(service);
        let frontends = own_frontends(observation, &spec);
        let held_frontends = held.get(&key).map(ServiceTemplate::frontends).unwrap_or_default();
        let new_frontends = frontends.difference(&held_frontends).copied().collect();
        if let Some(problem) = ports::find_foreign_owner(observation, &key, &new_frontends) {
            decisions.refused.push(problem);
            return true;
        }
        let kept_frontends = frontends.intersection(&held_frontends).copied().collect();
        decisions.shared_ports.extend(ports::find_foreign_owner(observation, &key, &kept_frontends));
        false
    }

    /// Returns the Services that only other nodes serve. Their endpoints on this node get packets from the other nodes.
    fn transit_templates(
        &self,
        observation: &Observation,
        served: &BTreeMap<ServiceKey, ServiceTemplate>,
    ) -> impl Iterator<Item = ServiceTemplate> {
        let is_handed_over = |key: &ServiceKey| {
            let name = key.to_string();
            observation.peers.iter().any(|peer| peer.handing_over.contains(&name))
        };
        observation.services.iter().filter_map(move |service| {
            let key = ServiceKey::from_service(service);
            if served.contains_key(&key) || !is_eligible(service, self.defaults.is_default_class) {
                return None;
            }
            let spec = valid_spec(service, &self.defaults)?;
            let may_be_served = spec.workload == WorkloadSpec::Shared || is_handed_over(&key);
            may_be_served.then(|| ServiceTemplate::new(service, &spec))
        })
    }

    /// Decides whether the node serves a Service, after the allocation.
    fn decide(
        &self,
        observation: &Observation,
        service: &Service,
        node: &NodeInfo,
        held: &BTreeMap<ServiceKey, ServiceTemplate>,
        decisions: &mut Decisions,
    ) {
        let key = ServiceKey::from_service(service);
        match self.allocations.get(&key) {
            None | Some(AllocationResult::Rejected(SpecError::PortReserved(_))) => {}
            // The last good state keeps running.
            Some(AllocationResult::Rejected(_)) => {
                if let Some(template) = held.get(&key) {
                    decisions.serve(template.clone());
                }
            }
            Some(AllocationResult::Accepted(spec, allocation)) => {
                let is_shared = spec.workload == WorkloadSpec::Shared;
                if !allocation.allows(spec, node) {
                    if is_shared {
                        decisions.refuse(&key, allocation, node);
                    }
                } else if is_shared {
                    decisions.serve(ServiceTemplate::new(service, spec));
                } else if let Some(template) = held.get(&key)
                    && !has_ready_proxy(observation, &key)
                    && is_published(service, node)
                    && decisions.serve(template.clone())
                {
                    decisions.handing_over.push(key.to_string());
                }
            }
        }
    }
}

impl Decisions {
    /// Serves a Service. Returns false if another Service has one of its ports already.
    fn serve(&mut self, template: ServiceTemplate) -> bool {
        let frontends = template.frontends();
        let is_free = self.taken.is_disjoint(&frontends);
        if is_free {
            self.taken.extend(frontends);
            self.served.insert(template.key.clone(), template);
        }
        is_free
    }

    /// Reports the Services that own the ports of a refused Service on this node.
    fn refuse(&mut self, key: &ServiceKey, allocation: &Allocation, node: &NodeInfo) {
        if allocation.unclaimed_nodes.contains(&node.name) {
            return;
        }
        self.refused.extend(allocation.conflicts.iter().map(|conflict| PortProblem {
            service: key.to_string(),
            port: conflict.port.to_string(),
            owner: PortOwner::Service(conflict.owner.to_string()),
        }));
    }
}

/// Returns the frontends of a Service in the families of the node.
fn own_frontends(observation: &Observation, spec: &LoadBalancerSpec) -> BTreeSet<Frontend> {
    let mut frontends = spec.frontends();
    let addresses = observation.network.local_addresses.iter();
    let families: BTreeSet<_> = addresses.map(|address| Family::from_ip(*address)).collect();
    frontends.retain(|frontend| families.contains(&frontend.family));
    frontends
}

/// Returns the settings of a Service that an earlier process has served; `None` if it has not. If the Service's
/// annotations are invalid now, they do not count.
fn installed_template(
    observation: &Observation,
    service: &Service,
    node: &NodeInfo,
    defaults: &ServiceDefaults,
) -> Option<ServiceTemplate> {
    if !is_eligible(service, defaults.is_default_class) || !is_published(service, node) {
        return None;
    }
    let spec = valid_spec(service, defaults)?;
    let frontends = own_frontends(observation, &spec);
    let is_installed = !frontends.is_empty() && frontends.is_subset(observation.installed);
    is_installed.then(|| ServiceTemplate::new(service, &spec))
}

/// Returns the spec of a Service. If the Service's annotations are invalid, they do not count.
fn valid_spec(service: &Service, defaults: &ServiceDefaults) -> Option<LoadBalancerSpec> {
    let spec = LoadBalancerSpec::from_service(service, defaults).or_else(|_| {
        let mut service = service.clone();
        service.metadata.annotations = None;
        LoadBalancerSpec::from_service(&service, defaults)
    });
    spec.ok()
}

fn has_ready_proxy(observation: &Observation, key: &ServiceKey) -> bool {
    observation.pods.iter().any(|pod| pod.proxy_of.as_ref() == Some(key) && pod.is_ready)
}
