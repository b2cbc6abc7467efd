//! Decides the desired state of one Service from its current state. This module does no I/O and reads no clock.

use akrobateo_core::HostPort;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};
use k8s_openapi::jiff::Timestamp;

use super::addresses::{AddressInputs, ingress, select_nodes};
use super::blocker::{Blocker, POD_CREATION_TIMEOUT};
use super::condition::{Exposure, ExposureFacts};
use super::host_port_family::host_port_family;
use super::notes::{foreign_status_note, notes};
use super::pod::PodPlacement;
use super::proxy_config::ProxyConfig;
use super::rejected::{RejectedStatus, rejected_status};
use super::service_state::ServiceState;
use super::status_owner::owns_status;
use super::traffic_policy::{WithoutEndpoints, is_left_out, may_be_published, proxy_role};
use super::unpublished::{UnpublishedNode, unpublished_nodes};
use super::workload::Workload;
use crate::allocation::{Allocation, AllocationResult};
use crate::node_info::NodeInfo;
use crate::spec::{LoadBalancerSpec, WorkloadSpec};

/// The desired state of one Service.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decision {
    pub(crate) proxy: ProxyDecision,
    /// The desired status. The value `None` leaves the status unchanged, because another controller owns it.
    pub(crate) status: Option<DesiredStatus>,
    /// The nodes that should answer but are not published.
    pub(crate) unpublished: Vec<UnpublishedNode>,
    /// The time of the next reconciliation if no event triggers one earlier.
    pub(crate) recheck_at: Option<Timestamp>,
}

/// The desired state of a Service's proxies.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ProxyDecision {
    /// The Service must have no workload.
    DeleteWorkloads,
    /// Exactly this workload must exist.
    RunWorkload(Workload),
    /// The existing workloads stay, because the current spec is invalid.
    KeepWorkloads,
}

/// The desired status of a Service.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DesiredStatus {
    pub(crate) addresses: Vec<LoadBalancerIngress>,
    /// The condition, or `None` if Akrobateo does not serve the Service.
    pub(crate) exposure: Option<Exposure>,
}

/// Decides for one Service.
pub(crate) fn decide(config: &ProxyConfig, state: &ServiceState, now: Timestamp) -> Decision {
    let without_proxy = |status| Decision {
        proxy: ProxyDecision::DeleteWorkloads,
        status,
        unpublished: Vec::new(),
        recheck_at: None,
    };
    let without_addresses = |exposure| DesiredStatus { addresses: Vec::new(), exposure };
    let Some(service) = state.service.as_deref() else { return without_proxy(None) };
    match &state.allocation_result {
        None => without_proxy(owns_status(&config.instance, service).then(|| without_addresses(None))),
        Some(AllocationResult::Rejected(error)) => {
            if let Some(port) = find_reserved_port(state) {
                let note = foreign_status_note(&config.instance, service);
                let exposure = Exposure::from_released_port(error, port, note);
                return without_proxy(Some(without_addresses(Some(exposure))));
            }
            let RejectedStatus { addresses, exposure, recheck_at } =
                rejected_status(&config.instance, state, service, error, now);
            let status = Some(DesiredStatus { addresses, exposure: Some(exposure) });
            Decision { proxy: ProxyDecision::KeepWorkloads, status, unpublished: Vec::new(), recheck_at }
        }
        Some(AllocationResult::Accepted(_, allocation)) if allocation.is_denied() => {
            let note = foreign_status_note(&config.instance, service);
            without_proxy(Some(without_addresses(Some(Exposure::conflicting(allocation, note)))))
        }
        Some(AllocationResult::Accepted(spec, allocation)) => {
            decide_accepted_service(config, state, service, spec, allocation, now)
        }
    }
}

/// Returns a reserved port that the workloads of a Service hold. It was not reserved when they were created.
fn find_reserved_port(state: &ServiceState) -> Option<HostPort> {
    let mut ports = state.workloads.iter().flat_map(Workload::host_ports);
    ports.find(|port| state.reserved_ports.contains(*port))
}

fn decide_accepted_service(
    config: &ProxyConfig,
    state: &ServiceState,
    service: &Service,
    spec: &LoadBalancerSpec,
    allocation: &Allocation,
    now: Timestamp,
) -> Decision {
    let role = proxy_role(spec, &state.nodes);
    let without_endpoints = WithoutEndpoints::find(state, spec);
    let has_endpoint = |node: &NodeInfo| may_be_published(state, spec, without_endpoints, node);
    let may_run_proxy = |node: &NodeInfo| allocation.allows(spec, node);
    // A pod that runs stays on its node if the node gets a taint with the effect NoSchedule.
    let may_keep_proxy = |node: &NodeInfo| {
        !allocation.taken_nodes.contains(&node.name) && spec.nodes.matches_running_pod(node)
    };
    let may_answer_here =
        |node: &NodeInfo| may_keep_proxy(node) && has_endpoint(node) && !is_left_out(spec, role, node);
    let selected = select_nodes(
        service,
        &AddressInputs {
            pods: &state.pods,
            nodes: &state.nodes,
            pod_times: &state.pod_times,
            may_be_published: &may_answer_here,
            may_run_proxy: &may_run_proxy,
            unclaimed_nodes: &allocation.unclaimed_nodes,
            proxies_can_move: spec.workload != WorkloadSpec::DaemonSet,
            now,
        },
    );
    let addresses = ingress(spec, &selected.nodes, &allocation.unclaimed_nodes);
    let deadline = state.pod_times.without_pods_since.map(|since| since + POD_CREATION_TIMEOUT);
    let deadline = deadline.filter(|_| !state.workloads.is_empty());
    let blocker = addresses.is_empty().then(|| {
        Blocker::find(state, spec, allocation, role, &selected.nodes, deadline.is_some_and(|end| end <= now))
    });
    let unpublished = unpublished_nodes(state, spec, allocation, role, &has_endpoint, &selected.nodes);
    let exposure = Exposure::for_accepted_service(&ExposureFacts {
        has_addresses: !addresses.is_empty(),
        blocker: blocker.flatten(),
        without_endpoints: without_endpoints.map(|endpoints| endpoints.message(spec)),
        unpublished: &unpublished,
        allocation,
        pods: &state.pods,
        notes: notes(&config.instance, state, service, spec, role, &addresses),
    });
    let placement = PodPlacement {
        owned_nodes: allocation.owned_nodes.as_ref(),
        host_port_family: host_port_family(spec, role, &state.nodes),
    };
    let proxy = if allocation.is_empty() {
        // The Service selects no node with an endpoint, and other Services use the same ports.
        ProxyDecision::DeleteWorkloads
    } else {
        ProxyDecision::RunWorkload(Workload::new(config, service, spec, placement, role))
    };
    Decision {
        proxy,
        status: Some(DesiredStatus { addresses, exposure: Some(exposure) }),
        unpublished,
        recheck_at: selected.recheck_at.into_iter().chain(deadline.filter(|at| *at > now)).min(),
    }
}
