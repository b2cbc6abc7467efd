//! Decides the desired state of an accepted Service that the node agents forward. Pure.

use std::collections::{BTreeMap, BTreeSet};

use akrobateo_services::allocation::Allocation;
use akrobateo_services::key::ServiceKey;
use akrobateo_services::node_info::NodeInfo;
use akrobateo_services::spec::{ClientAddress, LoadBalancerSpec};
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};
use k8s_openapi::jiff::Timestamp;

use super::addresses::build_ingress;
use super::agent_status::AgentStatus;
use super::condition::{Exposure, describe_unpublished_nodes, shared_node_ports_note};
use super::decision::{Decision, DesiredStatus, ProxyDecision};
use super::first_publication::first_publication_time;
use super::note::{Note, join_first_items};
use super::notes::find_notes;
use super::refusals::{Refusals, doubly_used_ports_note};
use super::service_state::ServiceState;
use super::shared_blocker::find_shared_blocker;
use super::shared_service::SharedService;
use super::unpublished::UnpublishedNode;
use super::write_limits::{WriteLimit, WriteLimits};
use crate::reason::Reason;

/// Decides the desired state of an accepted Service that the node agents forward. A shared Service needs no workload.
/// If the Service still has a workload from dedicated mode, the workload stays until the agents serve the Service.
pub(super) fn decide_shared_service(
    operator_instance: &str,
    state: &ServiceState,
    service: &Service,
    spec: &LoadBalancerSpec,
    allocation: &Allocation,
    now: Timestamp,
) -> Decision {
    let shared = SharedService::new(state, service, spec, allocation);
    let publishable_nodes = shared.select_nodes_to_publish(now);
    let addresses =
        build_ingress(spec, &publishable_nodes.nodes, &|node, address| shared.ip_mode(node, address));
    let unpublished_nodes = shared.find_unpublished_nodes(&publishable_nodes.nodes);
    let exposure =
        shared_exposure(operator_instance, &shared, &publishable_nodes.nodes, &addresses, &unpublished_nodes);
    let first_publication_time = first_publication_time(&shared, now);
    let needs_previous_proxies = shared.needs_previous_proxies(now);
    let previous_proxies_deadline = shared.previous_proxies_deadline(now).filter(|_| needs_previous_proxies);
    let recheck_times = [publishable_nodes.recheck_at, previous_proxies_deadline, first_publication_time];
    Decision {
        unpublished_nodes,
        recheck_at: recheck_times.into_iter().flatten().min(),
        write_limits: WriteLimits {
            status: first_publication_time.map_or(WriteLimit::Change, WriteLimit::DelayUntil),
            ..WriteLimits::default()
        },
        ..Decision::new(
            if needs_previous_proxies {
                ProxyDecision::KeepWorkloads
            } else {
                ProxyDecision::DeleteWorkloads
            },
            Some(DesiredStatus { addresses, exposure: Some(exposure) }),
        )
    }
}

/// Returns the condition of the Service.
fn shared_exposure(
    operator_instance: &str,
    shared: &SharedService,
    published_nodes: &[&NodeInfo],
    addresses: &[LoadBalancerIngress],
    unpublished_nodes: &[UnpublishedNode],
) -> Exposure {
    let refusals = Refusals::find(shared);
    let (reason, summary) = if addresses.is_empty() {
        find_shared_blocker(shared, published_nodes, &refusals)
    } else if let Some(policy) = shared.missing_endpoints_policy {
        (Reason::NoEndpoints, Some(Note::without_warning(policy.message(shared.spec))))
    } else if !unpublished_nodes.is_empty() {
        let summary = describe_unpublished_nodes(unpublished_nodes);
        (Reason::PartlyExposed, Some(Note::without_warning(summary)))
    } else if refusals.reason().is_some() {
        (Reason::PartlyExposed, None)
    } else {
        (Reason::Exposed, None)
    };
    let key = ServiceKey::from_service(shared.service);
    let notes = summary
        .into_iter()
        .chain(refusals.notes())
        .chain(shared_node_ports_note(&shared.allocation.shared_node_ports))
        .chain(doubly_used_ports_note(shared, &key))
        .chain(masqueraded_peers_note(shared))
        .chain(find_notes(operator_instance, shared.state, shared.service, shared.spec, None, addresses));
    Exposure::from_notes(reason, !addresses.is_empty(), notes)
}

/// Returns a note that names the nodes whose endpoints do not see the client's address.
fn masqueraded_peers_note(shared: &SharedService) -> Option<Note> {
    let spec = shared.spec;
    if spec.client_address == ClientAddress::Masquerade || spec.is_external_traffic_policy_local {
        return None;
    }
    let nodes = shared.state.nodes.iter().filter(|node| {
        shared.is_expected_to_serve(node) && *shared.agent_status(node) == AgentStatus::Serving
    });
    let mut reasons: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for agent in nodes.filter_map(|node| shared.state.agents.get(&node.name)) {
        for peer in &agent.observed_report.report.masqueraded_peers {
            reasons.entry(&peer.reason).or_default().insert(&peer.node);
        }
    }
    let groups: Vec<_> = reasons
        .into_iter()
        .map(|(reason, nodes)| {
            let nodes: Vec<_> = nodes.into_iter().collect();
            format!("{} ({reason})", join_first_items(&nodes))
        })
        .collect();
    (!groups.is_empty()).then(|| {
        Note::without_warning(format!(
            "endpoints on other nodes do not always see the client's address: packets to nodes {} are masqueraded",
            join_first_items(&groups)
        ))
    })
}
