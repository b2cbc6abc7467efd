//! Decides which Services the agent of a node serves, and with which configuration of the data path. Pure.

mod allocation;
mod configured_services;
mod decisions;
mod endpoint_limits;
mod endpoint_nodes;
mod endpoints;
mod node;
mod number;
mod observation;
mod ports;
mod previous_proxies;
mod template;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use akrobateo_core::Frontend;
use akrobateo_services::agent_report::{NodeNetwork, PortProblem};
use akrobateo_services::allocation::{AllocationResult, PortAllocations, RecentEndpoints};
use akrobateo_services::endpoints::serving_nodes;
use akrobateo_services::key::ServiceKey;
use akrobateo_services::node_info::NodeInfo;
use akrobateo_services::parsed_services::{ParsedService, ParsedServices, ServiceChange};
use akrobateo_services::published::has_node_address;
use akrobateo_services::spec::{ServiceDefaults, WorkloadSpec, is_external_policy_local, valid_settings};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;

use crate::config::{NodeConfig, service_identity};
use allocation::NodeObservations;
use configured_services::ConfiguredServices;
use decisions::Decisions;
use endpoint_limits::{MAX_ENDPOINTS_OF_NODE, count_endpoints};
use endpoint_nodes::EndpointNodes;
pub(crate) use number::{NumberClaim, accepted_claims, choose_number};
pub(crate) use observation::{HostPortPod, InstalledServices, Observation, PeerReports};
use ports::{PortCheck, check_ports};
use previous_proxies::PreviousProxies;
use template::{ServiceTemplate, Templates};

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
    services: ParsedServices,
    /// The address ranges of pods that the administrator has configured.
    configured_pod_ranges: Vec<IpNet>,
    allocations: PortAllocations,
    recent_endpoints: RecentEndpoints,
    endpoint_nodes: EndpointNodes,
    previous_proxies: PreviousProxies,
    /// The Services of the last plan; `None` before the first plan.
    configured_services: Option<ConfiguredServices>,
}

impl Planner {
    /// Returns a planner that has not made a plan yet.
    pub(crate) fn new(defaults: ServiceDefaults, configured_pod_ranges: Vec<IpNet>) -> Self {
        Self {
            services: ParsedServices::new(Arc::new(defaults)),
            configured_pod_ranges,
            allocations: PortAllocations::default(),
            recent_endpoints: RecentEndpoints::default(),
            endpoint_nodes: EndpointNodes::default(),
            previous_proxies: PreviousProxies::default(),
            configured_services: None,
        }
    }

    /// Records the current state of a Service and the addresses in its status; `None` if the Service does not exist.
    pub(crate) fn update_service(
        &mut self,
        key: &ServiceKey,
        service: Option<(Arc<Service>, Arc<[IpAddr]>)>,
    ) -> ServiceChange {
        self.services.update_with_addresses(key, service)
    }

    /// Returns true if a new plan is necessary after the change of a Service.
    pub(crate) fn needs_plan(&self, key: &ServiceKey, change: ServiceChange) -> bool {
        match change {
            ServiceChange::None => false,
            ServiceChange::Settings => true,
            // A plan reads the addresses of a Service only in these cases.
            ServiceChange::PublishedAddresses => match self.allocations.get(key) {
                None => false,
                Some(AllocationResult::Rejected(_)) => true,
                Some(AllocationResult::Accepted(spec, _)) => {
                    !spec.is_shared() || self.allocations.is_contested(key)
                }
            },
        }
    }

    /// Returns true if the Service has externalTrafficPolicy Local.
    pub(crate) fn is_external_policy_local(&self, key: &ServiceKey) -> bool {
        self.services.get(key).is_some_and(|parsed| is_external_policy_local(&parsed.service))
    }

    /// Removes the Services that do not exist.
    pub(crate) fn retain_services(&mut self, exists: impl Fn(&ServiceKey) -> bool) {
        self.services.retain_existing(exists);
    }

    /// Changes the last plan after a change of a Service's endpoints. Returns `None` if a new plan is necessary.
    /// Otherwise returns true if the plan has changed.
    pub(crate) fn update_endpoints(
        &mut self,
        plan: &mut Plan,
        key: &ServiceKey,
        slices: &[Arc<EndpointSlice>],
        now: Instant,
    ) -> Option<bool> {
        let configured_services = self.configured_services.as_mut()?;
        if let Some(parsed) = self.services.get(key)
            && is_external_policy_local(&parsed.service)
        {
            let have_nodes_changed = record_endpoints(&mut self.recent_endpoints, parsed, slices, now);
            if have_nodes_changed && self.allocations.is_contested(key) {
                return None;
            }
            plan.next_plan_at = self.recent_endpoints.next_expiry();
        }
        let services = &mut plan.config.services;
        let have_conflicts_changed = self.endpoint_nodes.update(&self.services, services, key, slices);
        let has_changed = configured_services.update_endpoints(services, key, slices, &self.endpoint_nodes);
        if count_endpoints(services) > MAX_ENDPOINTS_OF_NODE {
            return None;
        }
        plan.nodes_without_agent = configured_services.all_nodes_without_agent();
        Some(has_changed || have_conflicts_changed)
    }

    /// Returns the plan for an observation; `None` while this node has no Node object.
    pub(crate) fn plan(&mut self, observation: &Observation, now: Instant) -> Option<Plan> {
        let node_object = observation.nodes.iter().find(|node| node.name_any() == observation.node_name)?;
        let defaults = self.services.defaults().clone();
        let node = NodeInfo::new(node_object, defaults.node_policy);
        self.record_endpoints(observation, &node, now);
        self.endpoint_nodes.record_all(&self.services, observation.endpoint_slices);
        let current_services = self.find_current_services(observation);
        let mut decisions = Decisions::default();
        let services = self.services.iter().filter(|parsed| {
            match check_ports(observation, parsed, &node, current_services.get(&parsed.key)) {
                PortCheck::Refused(problem) => decisions.refused_ports.push(problem),
                PortCheck::Accepted(problem) => {
                    decisions.doubly_used_ports.extend(problem);
                    return true;
                }
            }
            false
        });
        let mut services: Vec<_> = services.collect();
        // The settings of a rejected Service may be a guess after a restart, so it gets only ports that remain free.
        services.sort_by_key(|parsed| matches!(parsed.spec, Some(Err(_))));
        let observations = NodeObservations::new(&node, &current_services, &self.recent_endpoints);
        let (nodes, services) = (std::slice::from_ref(&node), services.into_iter());
        // A Service that the node refuses still has its nodePorts.
        self.allocations = self.allocations.update_parsed(
            services.clone(),
            self.services.iter(),
            nodes,
            &defaults,
            &observations,
        );
        for service in services {
            self.decide(observation, service, &node, &current_services, &mut decisions);
        }
        let is_shared = |key: &ServiceKey| matches!(self.allocations.get(key), Some(AllocationResult::Accepted(spec, _)) if spec.is_shared());
        self.previous_proxies.update(&observation.pods, is_shared);
        let peers = node::peers(observation);
        let numbers = node::node_numbers(observation, &peers);
        let served = std::mem::take(&mut decisions.served_services);
        let served_by_others = self.templates_of_other_nodes(&served);
        let mut configured_services = ConfiguredServices::new(observation, numbers, served, served_by_others);
        let nodes = observation.nodes.iter().map(Arc::as_ref);
        let config = NodeConfig {
            services: configured_services.configure_all(observation.endpoint_slices, &self.endpoint_nodes),
            node: node::local_node(observation, node_object),
            pod_ranges: node::pod_ranges(nodes, &self.configured_pod_ranges),
            peers,
            probes_tunnel: false,
            recognizes_clients: false,
        };
        let nodes_without_agent = configured_services.all_nodes_without_agent();
        self.configured_services = Some(configured_services);
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
        let (services, recent_endpoints) = (&self.services, &mut self.recent_endpoints);
        recent_endpoints.retain_existing(|key| services.get(key).is_some());
        for parsed in services.iter().filter(|parsed| is_external_policy_local(&parsed.service)) {
            if self.configured_services.is_none() && is_published(parsed, node) {
                let this_node = BTreeSet::from([node.name.clone()]);
                recent_endpoints.record(&parsed.key, parsed.service.uid().as_ref(), &this_node, now);
            }
            record_endpoints(recent_endpoints, parsed, &(observation.endpoint_slices)(&parsed.key), now);
        }
        self.recent_endpoints.expire(now);
    }

    /// Returns the Services that the node serves now.
    ///
    /// Before the first plan, the kernel's rules decide if the node serves a Service. They contain the name of the Service
    /// with each of its ports. The status does not decide, because it loses the node's address while the agent is away
    /// for a long time. Reserved ports are omitted, because the node releases a port that becomes reserved.
    fn find_current_services(&self, observation: &Observation) -> Templates {
        let defaults = self.services.defaults();
        let is_reserved = |frontend: &Frontend| defaults.reserved_ports.contains(frontend.host_port());
        let find_template = |parsed: &ParsedService| match &self.configured_services {
            Some(configured_services) => {
                let template = configured_services.served.get(&parsed.key)?;
                (template.uid == parsed.service.uid()).then(|| template.clone())
            }
            None => installed_template(observation, parsed, defaults).map(Arc::new),
        };
        let find_template_without_reserved_ports = |parsed: &ParsedService| {
            let template = find_template(parsed)?;
            if template.frontends().iter().any(is_reserved) {
                let template = (*template).clone().retain_frontends(|frontend| !is_reserved(&frontend))?;
                return Some((parsed.key.clone(), Arc::new(template)));
            }
            Some((parsed.key.clone(), template))
        };
        self.services.iter().filter_map(find_template_without_reserved_ports).collect()
    }

    /// Returns the Services that only other nodes serve. Those nodes send packets to the endpoints on this node.
    ///
    /// Services in dedicated mode are included, because another node may still serve them.
    fn templates_of_other_nodes(&self, served: &Templates) -> Templates {
        let previous_template =
            |key: &ServiceKey| self.configured_services.as_ref()?.served_by_others.get(key);
        let other_services = self.services.iter().filter(|parsed| !served.contains_key(&parsed.key));
        let templates = other_services.filter_map(|parsed| {
            let key = &parsed.key;
            let template = if let Ok(spec) = parsed.spec.as_ref()? {
                previous_template(key)
                    .filter(|template| template.is_from(spec))
                    .cloned()
                    .unwrap_or_else(|| Arc::new(ServiceTemplate::new(&parsed.service, spec)))
            } else {
                let (service, spec) = valid_settings(&parsed.service, self.services.defaults())?;
                Arc::new(ServiceTemplate::new(&service, &Arc::new(spec)))
            };
            Some((key.clone(), template))
        });
        templates.collect()
    }

    /// Decides from the result of the allocation if the node serves a Service.
    fn decide(
        &self,
        observation: &Observation,
        parsed: &ParsedService,
        node: &NodeInfo,
        current_services: &Templates,
        decisions: &mut Decisions,
    ) {
        let (key, current_template) = (&parsed.key, current_services.get(&parsed.key));
        match self.allocations.get(key) {
            None => {}
            // The node continues to serve the Service with its last valid settings.
            Some(AllocationResult::Rejected(_)) => {
                let is_served =
                    current_template.is_some_and(|it| decisions.serve(it.with_port_names(&parsed.service)));
                if !is_served && is_published(parsed, node) && self.may_be_shared(&parsed.service) {
                    decisions.unserved_services.push(key.to_string());
                }
            }
            Some(AllocationResult::Accepted(spec, allocation)) => {
                let is_shared = spec.workload == WorkloadSpec::Shared;
                if !allocation.allows(spec, node) {
                    if is_shared {
                        decisions.refuse(key, allocation, node);
                    }
                } else if is_shared {
                    decisions.serve(match current_template.filter(|template| template.is_from(spec)) {
                        Some(template) => template.clone(),
                        None => Arc::new(ServiceTemplate::new(&parsed.service, spec)),
                    });
                } else if let Some(template) = current_template
                    && !self.previous_proxies.has_ready_proxy(&observation.pods, key)
                    && is_published(parsed, node)
                    && decisions.serve(template.clone())
                {
                    decisions.services_waiting_for_proxies.push(key.to_string());
                }
            }
        }
    }

    /// Returns true unless the valid settings of a rejected Service select proxies.
    fn may_be_shared(&self, service: &Service) -> bool {
        valid_settings(service, self.services.defaults()).is_none_or(|(_, spec)| spec.is_shared())
    }
}

/// Returns the settings of a Service if an earlier process of the agent has served the Service. The result contains
/// only the ports in the kernel's rules. Ignores invalid settings of the Service, and settings that differ from the
/// configuration of the earlier process.
fn installed_template(
    observation: &Observation,
    parsed: &ParsedService,
    defaults: &ServiceDefaults,
) -> Option<ServiceTemplate> {
    parsed.spec.as_ref()?;
    let (service, spec) = valid_settings(&parsed.service, defaults)?;
    let InstalledServices { frontends, services } = observation.installed;
    let template = ServiceTemplate::new(&service, &Arc::new(spec));
    let (name, uid) = (parsed.key.to_string(), parsed.service.uid());
    let template = match services.get(&name).filter(|service| service.uid == uid) {
        Some(service) => template.with_settings_of(service),
        None => template,
    };
    let identity = service_identity(&name, uid.as_deref());
    template.retain_frontends(|frontend| frontends.get(&frontend) == Some(&identity))
}

/// Records the nodes that have an endpoint of a Service now. Returns true if these nodes have changed.
fn record_endpoints(
    recent_endpoints: &mut RecentEndpoints,
    parsed: &ParsedService,
    slices: &[Arc<EndpointSlice>],
    now: Instant,
) -> bool {
    let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    recent_endpoints.record(&parsed.key, parsed.service.uid().as_ref(), &serving_nodes(endpoints), now)
}

fn is_published(parsed: &ParsedService, node: &NodeInfo) -> bool {
    has_node_address(&parsed.published_addresses, node)
}
