//! Finds the Services that a change of a node agent affects, and the ports that the agents use. Pure.

use std::collections::BTreeSet;

use akrobateo_services::agent_report::{AgentReport, MasqueradedPeer, PortProblem};
use akrobateo_services::allocation::{AllocationResult, OccupiedPorts};
use akrobateo_services::key::ServiceKey;
use akrobateo_services::node_info::NodeInfo;
use akrobateo_services::parsed_services::ParsedService;
use akrobateo_services::published::has_node_address;
use akrobateo_services::spec::{ClientAddress, LoadBalancerSpec, ServiceDefaults, valid_settings};

use crate::decide::{
    AgentStates, AgentStatus, ObservedReport, RequiredVersions, is_waiting_for_proxy, lacks_settings,
    service_problems,
};

/// The facts in an agent's report that influence the decision about one Service.
#[derive(Debug, PartialEq)]
pub(super) struct AgentFacts {
    status: AgentStatus,
    is_waiting_for_proxy: bool,
    lacks_settings: bool,
    doubly_used_ports: Vec<PortProblem>,
    masqueraded_peers: Vec<MasqueradedPeer>,
}

impl AgentFacts {
    /// Returns the facts for a Service. Two reports with equal facts lead to the same decision.
    pub(super) fn new(
        result: &AllocationResult,
        key: &ServiceKey,
        required_versions: RequiredVersions,
        observed_report: Option<&ObservedReport>,
    ) -> Self {
        let report = observed_report.map(|observed_report| &observed_report.report);
        let is_waiting_for_proxy = report.is_some_and(|report| is_waiting_for_proxy(report, key));
        let (spec, status) = match (result, AgentStatus::new(observed_report, key, required_versions)) {
            (AllocationResult::Accepted(spec, _), status) if spec.is_shared() => (Some(spec), status),
            // When a Service gets its own proxies, the agent serves the Service until a proxy on the node is ready.
            (AllocationResult::Accepted(..), AgentStatus::Outdated) => (None, AgentStatus::Outdated),
            (AllocationResult::Accepted(..), _) if !is_waiting_for_proxy => (None, AgentStatus::Serving),
            (AllocationResult::Accepted(..) | AllocationResult::Rejected(_), status) => (None, status),
        };
        let is_client_address_kept = spec.is_some_and(|spec| keeps_client_address(spec));
        Self {
            status,
            is_waiting_for_proxy,
            lacks_settings: report.is_some_and(|report| lacks_settings(report, key)),
            doubly_used_ports: report
                .filter(|_| spec.is_some())
                .map(|report| service_problems(&report.doubly_used_ports, key))
                .unwrap_or_default(),
            masqueraded_peers: report
                .filter(|_| is_client_address_kept)
                .map(|report| report.masqueraded_peers.clone())
                .unwrap_or_default(),
        }
    }
}

/// Returns true if the reports differ at most in the applied versions and in the lists of Services with their own facts.
/// Any other difference may affect all Services.
pub(super) fn changes_only_services(previous: &ObservedReport, current: &ObservedReport) -> bool {
    let (report, other) = (&previous.report, &current.report);
    previous.is_silent == current.is_silent
        && report.is_paused == other.is_paused
        && report.error == other.error
        && report.masqueraded_peers == other.masqueraded_peers
}

/// Returns the Services that the report names.
pub(super) fn named_services(report: &AgentReport) -> BTreeSet<ServiceKey> {
    let problems =
        report.refused_ports.iter().chain(&report.doubly_used_ports).map(|problem| &problem.service);
    let names = problems
        .chain(&report.refused_services)
        .chain(&report.unserved_services)
        .chain(&report.services_waiting_for_proxies);
    let keys = names.filter_map(|name| {
        let (namespace, name) = name.split_once('/')?;
        Some(ServiceKey { namespace: namespace.to_owned(), name: name.to_owned() })
    });
    keys.collect()
}

/// Returns true if the Service keeps the client's address for endpoints on other nodes.
fn keeps_client_address(spec: &LoadBalancerSpec) -> bool {
    spec.client_address == ClientAddress::Keep && !spec.is_external_traffic_policy_local
}

/// Returns the ports that the agents use for an accepted Service. `required_versions` returns the versions that the rules
/// on a node must contain.
///
/// Each agent decides if it serves a Service, so its report shows which ports it uses. The operator itself checks that
/// the Service selects the node, because an agent reports only Services that select its node.
pub(super) fn ports_of_accepted_service(
    parsed: &ParsedService,
    spec: &LoadBalancerSpec,
    nodes: &[NodeInfo],
    agents: &AgentStates,
    required_versions: impl Fn(&NodeInfo) -> RequiredVersions,
) -> OccupiedPorts {
    let key = &parsed.key;
    let is_occupied = |node: &NodeInfo| {
        let Some(agent) = agents.get(&node.name) else { return false };
        if is_waiting_for_proxy(&agent.observed_report.report, key) {
            return !agent.observed_report.is_silent;
        }
        let is_published = has_node_address(&parsed.published_addresses, node);
        let is_selected = spec.nodes.matches(node) || (is_published && spec.nodes.matches_running_pod(node));
        let status = AgentStatus::new(Some(&agent.observed_report), key, required_versions(node));
        spec.is_shared() && is_selected && status == AgentStatus::Serving
    };
    let nodes: BTreeSet<_> =
        nodes.iter().filter(|node| is_occupied(node)).map(|node| node.name.clone()).collect();
    let frontends = if nodes.is_empty() { BTreeSet::new() } else { spec.frontends() };
    OccupiedPorts { frontends, nodes, is_assumed: false }
}

/// Returns the ports that the agents use for a rejected Service without proxies. `previous_ports` are the ports in the
/// previous allocation; `None` after a start of the operator.
///
/// The agents forward a rejected Service with its last valid spec, but their reports do not contain this spec. The ports
/// in the present spec prove nothing. The Service keeps a node while the node is published, regardless of the state of
/// the agent, because the rules stay in the kernel.
pub(super) fn ports_of_rejected_service(
    parsed: &ParsedService,
    defaults: &ServiceDefaults,
    nodes: &[NodeInfo],
    agents: &AgentStates,
    previous_ports: Option<OccupiedPorts>,
) -> OccupiedPorts {
    let may_be_served = |node: &&NodeInfo| {
        let report = agents.get(&node.name).map(|agent| &agent.observed_report.report);
        has_node_address(&parsed.published_addresses, node)
            && !report.is_some_and(|report| lacks_settings(report, &parsed.key))
    };
    let served_nodes: BTreeSet<_> =
        nodes.iter().filter(may_be_served).map(|node| node.name.clone()).collect();
    if let Some(ports) = previous_ports {
        return OccupiedPorts { nodes: &ports.nodes & &served_nodes, ..ports };
    }
    // Usually an annotation is the cause of the rejection, and the ports are the last valid ports. Reserved ports are
    // omitted, because the agents do not serve them.
    let valid_spec = valid_settings(&parsed.service, defaults).map(|(_, spec)| spec);
    let frontends = valid_spec.filter(|_| !served_nodes.is_empty()).map(|spec| spec.frontends());
    OccupiedPorts { frontends: frontends.unwrap_or_default(), nodes: served_nodes, is_assumed: true }
}
