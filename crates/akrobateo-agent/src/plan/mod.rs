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
    LoadBalancerSpec, ServiceDefaults, WorkloadSpec, is_eligible, is_external_policy_local, valid_settings,
};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

use crate::config::NodeConfig;
use allocation::NodeObservations;
use endpoints::nodes_without_agent;
pub(crate) use number::{NumberClaim, accepted_claims, choose_number};
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
    pub(crate) refused_ports: Vec<PortProblem>,
    /// The rejected Services that the agent does not serve, although their status has an address of the node. Each
    /// entry is `<namespace>/<name>`.
    pub(crate) unserved_services: Vec<String>,
    /// The ports that the agent serves, and that a pod or a process began to use later.
    pub(crate) doubly_used_ports: Vec<PortProblem>,
    /// The Services in dedicated mode that the agent serves until their proxy on this node is ready. Each entry is
    /// `<namespace>/<name>`.
    pub(crate) services_waiting_for_proxies: Vec<String>,
    /// The nodes without an agent that have endpoints. These endpoints do not see the client's address.
    pub(crate) nodes_without_agent: BTreeSet<String>,
    /// The time of the next plan if no event happens earlier.
    pub(crate) next_plan_at: Option<Instant>,
}

/// Makes plans, and remembers the Services that the last plan served.
pub(crate) struct Planner {
    defaults: ServiceDefaults,
    /// The address ranges of pods that the administrator has configured.
    configured_pod_ranges: Vec<IpNet>,
    allocations: PortAllocations,
    recent_endpoints: RecentEndpoints,
    /// The Services that the last plan served; `None` before the first plan.
    served_services: Option<BTreeMap<ServiceKey, ServiceTemplate>>,
}

/// The decisions of one plan.
#[derive(Default)]
struct Decisions {
    served_services: BTreeMap<ServiceKey, ServiceTemplate>,
    /// The frontends of the served Services.
    used_frontends: BTreeSet<Frontend>,
    refused_ports: Vec<PortProblem>,
    unserved_services: Vec<String>,
    doubly_used_ports: Vec<PortProblem>,
    services_waiting_for_proxies: Vec<String>,
}

impl Planner {
    /// Returns a planner that has not made a plan yet.
    pub(crate) fn new(defaults: ServiceDefaults, configured_pod_ranges: Vec<IpNet>) -> Self {
        Self {
            defaults,
            configured_pod_ranges,
            allocations: PortAllocations::default(),
            recent_endpoints: RecentEndpoints::default(),
            served_services: None,
        }
    }

    /// Returns the plan for an observation; `None` while this node has no Node object.
    pub(crate) fn plan(&mut self, observation: &Observation, now: Instant) -> Option<Plan> {
        let node_object = observation.nodes.iter().find(|node| node.name_any() == observation.node_name)?;
        let node = NodeInfo::new(node_object, self.defaults.node_policy);
        self.record_endpoints(observation, &node, now);
        let current_services = self.find_current_services(observation, &node);
        let mut decisions = Decisions::default();
        let mut services = observation.services.clone();
        services.retain(|service| {
            !self.refuse_occupied_ports(observation, service, &node, &current_services, &mut decisions)
        });
        let observations = NodeObservations::new(&node, &current_services, &self.recent_endpoints);
        let nodes = std::slice::from_ref(&node);
        self.allocations = self.allocations.update(&services, nodes, &self.defaults, &observations);
        services.sort_by_cached_key(|service| ServiceKey::from_service(service));
        for service in &services {
            self.decide(observation, service, &node, &current_services, &mut decisions);
        }
        let peers = node::peers(observation);
        let numbers = node::node_numbers(observation, &peers);
        let slices = |key: &ServiceKey| observation.endpoint_slices_of_service(key);
        let templates = decisions.served_services.values();
        let nodes_without_agent: BTreeSet<_> = { templates.clone() }
            .filter(|template| template.needs_other_agents())
            .flat_map(|template| nodes_without_agent(slices(&template.key), &numbers))
            .collect();
        // Every tenant can write any name into an EndpointSlice. The report must not grow with the names of such nodes.
        let node_names = observation.nodes.iter().map(|node| node.name_any());
        let nodes_without_agent =
            node_names.filter(|name| nodes_without_agent.contains(name.as_str())).collect();
        let served_services = templates.map(|it| it.to_service(slices(&it.key), &numbers));
        let other_templates = self.templates_of_other_nodes(observation, &decisions.served_services);
        let services_of_other_nodes = other_templates.filter_map(|template| {
            template.to_service_of_other_nodes(slices(&template.key), &numbers, observation.number)
        });
        let nodes = observation.nodes.iter().map(Arc::as_ref);
        let config = NodeConfig {
            services: served_services.chain(services_of_other_nodes).collect(),
            node: node::local_node(observation, node_object),
            pod_ranges: node::pod_ranges(nodes, &self.configured_pod_ranges),
            peers,
            probes_tunnel: false,
        };
        self.served_services = Some(decisions.served_services);
        Some(Plan {
            config,
            network: node::node_network(observation, node_object),
            refused_ports: decisions.refused_ports,
            unserved_services: decisions.unserved_services,
            doubly_used_ports: decisions.doubly_used_ports,
            services_waiting_for_proxies: decisions.services_waiting_for_proxies,
            nodes_without_agent,
            next_plan_at: self.recent_endpoints.next_expiry(),
        })
    }

    /// Records for each Service with externalTrafficPolicy Local the nodes that have an endpoint.
    ///
    /// Before the first plan, the function also records this node if the Service's status has an address of this node.
    /// This node probably had an endpoint before the agent was restarted.
    fn record_endpoints(&mut self, observation: &Observation, node: &NodeInfo, now: Instant) {
        let keys: BTreeSet<_> =
            observation.services.iter().map(|service| ServiceKey::from_service(service)).collect();
        self.recent_endpoints.retain_existing(|key| keys.contains(key));
        for service in observation.services.iter().filter(|service| is_external_policy_local(service)) {
            let (key, uid) = (ServiceKey::from_service(service), service.uid());
            if self.served_services.is_none() && is_published(service, node) {
                let this_node = BTreeSet::from([node.name.clone()]);
                self.recent_endpoints.record(&key, uid.as_ref(), &this_node, now);
            }
            let slices = observation.endpoint_slices.get(&key).into_iter().flatten();
            let endpoints = slices.flat_map(|slice| slice.endpoints.iter().flatten());
            self.recent_endpoints.record(&key, uid.as_ref(), &serving_nodes(endpoints), now);
        }
        self.recent_endpoints.expire(now);
    }

    /// Returns the Services that the node serves now.
    ///
    /// Before the first plan, two conditions decide if the node serves a Service: the kernel's rules contain one of its
    /// ports, and its status has an address of the node. Reserved ports are omitted, because the node releases a port
    /// that becomes reserved.
    fn find_current_services(
        &self,
        observation: &Observation,
        node: &NodeInfo,
    ) -> BTreeMap<ServiceKey, ServiceTemplate> {
        let is_same_service = |service: &Service, template: &ServiceTemplate| service.uid() == template.uid;
        let find_template = |service: &Arc<Service>| {
            let key = ServiceKey::from_service(service);
            let template = match &self.served_services {
                Some(served_services) => {
                    served_services.get(&key).filter(|template| is_same_service(service, template))?.clone()
                }
                None => installed_template(observation, service, node, &self.defaults)?,
            };
            let is_reserved =
                |frontend: Frontend| self.defaults.reserved_ports.contains(frontend.host_port());
            Some((key, template.retain_frontends(|frontend| !is_reserved(frontend))?))
        };
        observation.services.iter().filter_map(find_template).collect()
    }

    /// Refuses the Service if a pod or a process uses one of its ports. Returns true if the Service was refused.
    ///
    /// The Service keeps each port on which the node already serves it. If a pod or a process also uses such a port,
    /// the function only records the port in `doubly_used_ports`.
    fn refuse_occupied_ports(
        &self,
        observation: &Observation,
        service: &Service,
        node: &NodeInfo,
        current_services: &BTreeMap<ServiceKey, ServiceTemplate>,
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
        let frontends = frontends_on_node(observation, &spec);
        let current_frontends =
            current_services.get(&key).map(ServiceTemplate::frontends).unwrap_or_default();
        let new_frontends = frontends.difference(&current_frontends).copied().collect();
        if let Some(problem) = ports::find_occupied_port(observation, &key, &new_frontends) {
            decisions.refused_ports.push(problem);
            return true;
        }
        let kept_frontends = frontends.intersection(&current_frontends).copied().collect();
        decisions.doubly_used_ports.extend(ports::find_occupied_port(observation, &key, &kept_frontends));
        false
    }

    /// Returns the Services that only other nodes serve. Those nodes send packets to the endpoints on this node.
    fn templates_of_other_nodes(
        &self,
        observation: &Observation,
        served_services: &BTreeMap<ServiceKey, ServiceTemplate>,
    ) -> impl Iterator<Item = ServiceTemplate> {
        let is_handed_over = |key: &ServiceKey| {
            let name = key.to_string();
            observation.peer_reports.iter().any(|report| report.services_waiting_for_proxies.contains(&name))
        };
        observation.services.iter().filter_map(move |service| {
            let key = ServiceKey::from_service(service);
            if served_services.contains_key(&key) || !is_eligible(service, self.defaults.is_default_class) {
                return None;
            }
            let (service, spec) = valid_settings(service, &self.defaults)?;
            let may_be_served = spec.workload == WorkloadSpec::Shared || is_handed_over(&key);
            may_be_served.then(|| ServiceTemplate::new(&service, &spec))
        })
    }

    /// Decides from the result of the allocation if the node serves a Service.
    fn decide(
        &self,
        observation: &Observation,
        service: &Service,
        node: &NodeInfo,
        current_services: &BTreeMap<ServiceKey, ServiceTemplate>,
        decisions: &mut Decisions,
    ) {
        let key = ServiceKey::from_service(service);
        match self.allocations.get(&key) {
            None => {}
            // The node continues to serve the Service with its last valid settings.
            Some(AllocationResult::Rejected(_)) => {
                let is_served =
                    current_services.get(&key).is_some_and(|template| decisions.serve(template.clone()));
                if !is_served && is_published(service, node) && may_be_shared(service, &self.defaults) {
                    decisions.unserved_services.push(key.to_string());
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
                } else if let Some(template) = current_services.get(&key)
                    && !has_ready_proxy(observation, &key)
                    && is_published(service, node)
                    && decisions.serve(template.clone())
                {
                    decisions.services_waiting_for_proxies.push(key.to_string());
                }
            }
        }
    }
}

impl Decisions {
    /// Adds a Service to the served Services. Returns false, and adds nothing, if another served Service has one of the
    /// ports.
    fn serve(&mut self, template: ServiceTemplate) -> bool {
        let frontends = template.frontends();
        let are_ports_free = self.used_frontends.is_disjoint(&frontends);
        if are_ports_free {
            self.used_frontends.extend(frontends);
            self.served_services.insert(template.key.clone(), template);
        }
        are_ports_free
    }

    /// Reports the Services that own the ports of a refused Service on this node.
    fn refuse(&mut self, key: &ServiceKey, allocation: &Allocation, node: &NodeInfo) {
        if allocation.unclaimed_nodes.contains(&node.name) {
            return;
        }
        self.refused_ports.extend(allocation.conflicts.iter().map(|conflict| PortProblem {
            service: key.to_string(),
            port: conflict.port.to_string(),
            owner: PortOwner::Service(conflict.owner.to_string()),
        }));
    }
}

/// Returns the frontends of a Service in the families of the node.
fn frontends_on_node(observation: &Observation, spec: &LoadBalancerSpec) -> BTreeSet<Frontend> {
    let mut frontends = spec.frontends();
    let addresses = observation.network.local_addresses.iter();
    let families: BTreeSet<_> = addresses.map(|address| Family::from_ip(*address)).collect();
    frontends.retain(|frontend| families.contains(&frontend.family));
    frontends
}

/// Returns the settings of a Service if an earlier process of the agent has served the Service. The result contains
/// only the ports in the kernel's rules. Ignores invalid settings of the Service.
fn installed_template(
    observation: &Observation,
    service: &Service,
    node: &NodeInfo,
    defaults: &ServiceDefaults,
) -> Option<ServiceTemplate> {
    if !is_eligible(service, defaults.is_default_class) || !is_published(service, node) {
        return None;
    }
    let (service, spec) = valid_settings(service, defaults)?;
    let is_installed = |frontend| observation.installed_frontends.contains(&frontend);
    ServiceTemplate::new(&service, &spec).retain_frontends(is_installed)
}

/// Returns true unless the valid settings of a rejected Service select proxies.
fn may_be_shared(service: &Service, defaults: &ServiceDefaults) -> bool {
    valid_settings(service, defaults).is_none_or(|(_, spec)| spec.is_shared())
}

fn has_ready_proxy(observation: &Observation, key: &ServiceKey) -> bool {
    observation.pods.iter().any(|pod| pod.proxied_service.as_ref() == Some(key) && pod.is_ready)
}
