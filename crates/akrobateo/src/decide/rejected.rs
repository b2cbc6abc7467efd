//! Decides the status of a Service whose spec is invalid. The previous proxies keep running, and no address is added to
//! the status. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use akrobateo_services::key::ServiceKey;
use akrobateo_services::node_info::NodeInfo;
use akrobateo_services::published::published_addresses;
use akrobateo_services::spec::{IpMode, SpecError, is_external_policy_local, is_internal_policy_local};
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};
use k8s_openapi::jiff::Timestamp;

use super::addresses::{AddressInputs, select_nodes_to_publish};
use super::agent_status::{AgentStatus, RequiredVersions, are_all_silent, lacks_settings};
use super::condition::Exposure;
use super::node_readiness::{NodeReadiness, agent_readiness, proxy_readiness};
use super::notes::other_addresses_note;
use super::pod_status::nodes_with_ready_pod;
use super::rollout_limits::replacement_time;
use super::service_state::ServiceState;
use super::workload::Workload;

/// The desired status of a rejected Service.
pub(super) struct RejectedStatus {
    pub(super) addresses: Vec<LoadBalancerIngress>,
    pub(super) exposure: Exposure,
    /// The time of the next check. The addresses may change at this time without an event.
    pub(super) recheck_at: Option<Timestamp>,
}

/// Returns the published addresses of the nodes that can still serve clients, and the condition.
pub(super) fn decide_rejected_status(
    operator_instance: &str,
    state: &ServiceState,
    service: &Service,
    error: &SpecError,
    now: Timestamp,
) -> RejectedStatus {
    let is_endpoint_required =
        requires_local_endpoint(service) && !state.nodes_with_ready_endpoint.is_empty();
    let may_be_published =
        |node: &NodeInfo| !is_endpoint_required || state.nodes_with_ready_endpoint.contains(&node.name);
    let host_ports: BTreeSet<_> = state.workloads.iter().flat_map(Workload::host_ports).collect();
    let grace_period = replacement_time(host_ports.len());
    let ready_nodes = nodes_with_ready_pod(&state.pods);
    let unclaimed_nodes = BTreeSet::new();
    let publishable_nodes = select_nodes_to_publish(
        service,
        &AddressInputs {
            nodes: &state.nodes,
            readiness: &|node| {
                let readiness_by_agent = agent_readiness_of_rejected_service(state, service, node);
                if state.workloads.is_empty() && state.pods.is_empty() {
                    return readiness_by_agent;
                }
                readiness_by_agent.max(proxy_readiness(state, &ready_nodes, node, true, grace_period))
            },
            may_be_published: &may_be_published,
            unclaimed_nodes: &unclaimed_nodes,
            proxies_can_move: false,
            now,
        },
    );
    let can_stay_published = |ingress: &&LoadBalancerIngress| {
        let address: Option<IpAddr> = ingress.ip.as_ref().and_then(|ip| ip.parse().ok());
        address.is_some_and(|address| publishable_nodes.nodes.iter().any(|node| node.has_address(address)))
    };
    let remaining_ingress = published_addresses(service).iter().filter(can_stay_published).cloned();
    let addresses: Vec<_> =
        remaining_ingress.filter_map(|ingress| replace_dangerous_ip_mode(state, ingress)).collect();
    let note = addresses.is_empty().then(|| other_addresses_note(operator_instance, service)).flatten();
    let may_release_port = state.workloads.is_empty();
    let exposure = Exposure::for_rejected_service(error, !addresses.is_empty(), may_release_port, note);
    RejectedStatus { addresses, exposure, recheck_at: publishable_nodes.recheck_at }
}

/// Returns the readiness of a node according to the report of its agent. The node agents keep the last valid settings
/// of a rejected Service in force. If an agent does not know these settings, its report lists the Service.
fn agent_readiness_of_rejected_service(
    state: &ServiceState,
    service: &Service,
    node: &NodeInfo,
) -> NodeReadiness {
    if !state.workloads.is_empty() {
        return NodeReadiness::NotReady;
    }
    let key = ServiceKey::from_service(service);
    let observed_report = state.agents.get(&node.name).map(|agent| &agent.observed_report);
    if observed_report.is_some_and(|observed_report| lacks_settings(&observed_report.report, &key)) {
        return NodeReadiness::NotReady;
    }
    match AgentStatus::new(observed_report, &key, RequiredVersions::default()) {
        // The operator itself has probably lost contact.
        AgentStatus::Silent if are_all_silent(&state.agents) => NodeReadiness::Ready,
        status => agent_readiness(state, node, &status),
    }
}

/// Returns true if a node needs its own endpoint to serve clients. If the ipMode is Proxy, the proxies forward, so
/// internalTrafficPolicy Local also requires an endpoint on the node.
fn requires_local_endpoint(service: &Service) -> bool {
    let proxies_forward = || {
        let mode = published_addresses(service).first().and_then(|ingress| ingress.ip_mode.as_deref());
        mode == Some(IpMode::Proxy.as_str())
    };
    is_external_policy_local(service) || (is_internal_policy_local(service) && proxies_forward())
}

/// Replaces ipMode VIP with Proxy if VIP is dangerous. Returns `None` if the proxies only reserve the ports, because
/// packets to the address would then be lost.
fn replace_dangerous_ip_mode(
    state: &ServiceState,
    ingress: LoadBalancerIngress,
) -> Option<LoadBalancerIngress> {
    if !state.is_vip_dangerous || ingress.ip_mode.as_deref() == Some(IpMode::Proxy.as_str()) {
        return Some(ingress);
    }
    let only_reserves_ports = state.workloads.iter().any(Workload::only_reserves_ports);
    (!only_reserves_ports)
        .then(|| LoadBalancerIngress { ip_mode: Some(IpMode::Proxy.as_str().to_owned()), ..ingress })
}
