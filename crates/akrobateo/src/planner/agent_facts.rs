//! Finds the Services that a change of a node agent affects, and the ports that the agents use. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

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
    let names = problems.chain(&report.unserved_services).chain(&report.services_waiting_for_proxies);
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

/// Returns the ports that the agents use for a Service. `required` returns the versions that the rules on a node must
/// contain.
///
/// Each agent decides if it serves a Service, so its report shows which ports it uses. The operator itself checks that
/// the Service selects the node, because an agent reports only Services that select its node.
pub(super) fn ports_occupied_by_agents(
    parsed: &ParsedService,
    defaults: &ServiceDefaults,
    nodes: &[NodeInfo],
    agents: &AgentStates,
    required_versions: impl Fn(&NodeInfo) -> RequiredVersions,
) -> OccupiedPorts {
    let (key, service) = (&parsed.key, &parsed.service);
    let (spec, is_rejected) = match &parsed.spec {
        None => return OccupiedPorts::default(),
        Some(Ok(spec)) => (spec.clone(), false),
        // The agents still forward a rejected Service with its last valid spec, except the reserved ports. Usually an
        // annotation is the cause of the rejection, and this function needs only the ports.
        Some(Err(_)) => match valid_settings(service, defaults) {
            Some((_, spec)) => (Arc::new(spec), true),
            None => return OccupiedPorts::default(),
        },
    };
    let is_occupied = |node: &NodeInfo| {
        let Some(agent) = agents.get(&node.name) else { return false };
        let report = &agent.observed_report.report;
        if is_waiting_for_proxy(report, key) {
            return !agent.observed_report.is_silent;
        }
        let is_published = has_node_address(&parsed.published_addresses, node);
        let is_selected = spec.nodes.matches(node) || (is_published && spec.nodes.matches_running_pod(node));
        let is_serving = AgentStatus::new(Some(&agent.observed_report), key, required_versions(node))
            == AgentStatus::Serving;
        is_serving
            && if is_rejected {
                is_published && !lacks_settings(report, key)
            } else {
                spec.is_shared() && is_selected
            }
    };
    let nodes: BTreeSet<_> =
        nodes.iter().filter(|node| is_occupied(node)).map(|node| node.name.clone()).collect();
    let frontends = if nodes.is_empty() { BTreeSet::new() } else { spec.frontends() };
    OccupiedPorts { frontends, nodes }
}
