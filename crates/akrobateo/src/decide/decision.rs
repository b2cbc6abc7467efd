//! Decides the desired state of one Service from its current state. The module does no I/O and reads no clock.

use akrobateo_core::HostPort;
use akrobateo_services::allocation::{Allocation, AllocationResult};
use akrobateo_services::node_info::NodeInfo;
use akrobateo_services::spec::{IpMode, LoadBalancerSpec, WorkloadSpec};
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};
use k8s_openapi::jiff::Timestamp;

use super::addresses::{
    AddressInputs, PublishableNodes, build_ingress, select_nodes_to_publish, select_nodes_until_first_proxy,
};
use super::blocker::{Blocker, POD_CREATION_TIMEOUT};
use super::condition::{Exposure, ExposureFacts};
use super::desired_workload::desired_workload;
use super::note::Note;
use super::notes::{find_notes, other_addresses_note};
use super::pod::ProxyRole;
use super::proxy_config::ProxyConfig;
use super::rejected::{RejectedStatus, rejected_status};
use super::rollout::Rollout;
use super::rollout_limits::replacement_time;
use super::service_state::ServiceState;
use super::status_owner::owns_status;
use super::traffic_policy::{
    MissingEndpointsPolicy, endpoints_allow_publication, has_forwarding_program, must_keep_vip, proxy_role,
};
use super::unpublished::{UnpublishedNode, find_unpublished_nodes};
use super::workload::Workload;
use super::write_limits::WriteLimits;

/// The desired state of one Service.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decision {
    pub(crate) proxy: ProxyDecision,
    /// True if the existing workload has all desired fields, so that an apply would change nothing.
    pub(super) is_workload_applied: bool,
    /// The desired status; `None` if another controller owns the status. The operator does not change such a status.
    pub(crate) status: Option<DesiredStatus>,
    /// The nodes that should serve clients but are not published.
    pub(crate) unpublished_nodes: Vec<UnpublishedNode>,
    /// The replacement of outdated proxies.
    pub(crate) rollout: Rollout,
    /// The time of the next reconciliation if no event triggers a reconciliation earlier.
    pub(crate) recheck_at: Option<Timestamp>,
    /// The limits of the operator's writes in a conflict with another program. [`decide`] sets no limit.
    pub(super) limits: WriteLimits,
}

impl Decision {
    /// Adds a part to the message of the condition.
    pub(super) fn add_note(&mut self, note: Note) {
        if let Some(exposure) = self.status.as_mut().and_then(|status| status.exposure.as_mut()) {
            exposure.add_note(note);
        }
    }

    /// Moves the next reconciliation to `latest_time` if it would happen later.
    pub(super) fn recheck_by(&mut self, latest_time: Option<Timestamp>) {
        self.recheck_at = self.recheck_at.into_iter().chain(latest_time).min();
    }
}

/// The desired state of a Service's proxies.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ProxyDecision {
    /// The Service must have no workload.
    DeleteWorkloads,
    /// Exactly this workload must exist.
    RunWorkload(Workload),
    /// The existing workloads stay unchanged, because the current spec is invalid.
    KeepWorkloads,
}

/// The desired status of a Service.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DesiredStatus {
    pub(crate) addresses: Vec<LoadBalancerIngress>,
    /// The content of the condition, or `None` if Akrobateo does not serve the Service.
    pub(crate) exposure: Option<Exposure>,
}

/// Decides the desired state of one Service.
pub(crate) fn decide(config: &ProxyConfig, state: &ServiceState, now: Timestamp) -> Decision {
    let without_proxy = |status| Decision {
        proxy: ProxyDecision::DeleteWorkloads,
        is_workload_applied: false,
        status,
        unpublished_nodes: Vec::new(),
        rollout: Rollout::default(),
        recheck_at: None,
        limits: WriteLimits::default(),
    };
    let without_addresses = |exposure| DesiredStatus { addresses: Vec::new(), exposure };
    let Some(service) = state.service.as_deref() else { return without_proxy(None) };
    match &state.allocation_result {
        None => without_proxy(owns_status(&config.instance, service).then(|| without_addresses(None))),
        Some(AllocationResult::Rejected(error)) => {
            if let Some(port) = find_reserved_port(state) {
                let note = other_addresses_note(&config.instance, service);
                let exposure = Exposure::from_released_port(error, port, note);
                return without_proxy(Some(without_addresses(Some(exposure))));
            }
            let RejectedStatus { addresses, exposure, recheck_at } =
                rejected_status(&config.instance, state, service, error, now);
            let rollout = plan_rollout_for_existing_workload(state, now);
            let status = Some(DesiredStatus { addresses, exposure: Some(exposure) });
            Decision {
                proxy: ProxyDecision::KeepWorkloads,
                recheck_at: recheck_at.into_iter().chain(rollout.recheck_at).min(),
                rollout,
                ..without_proxy(status)
            }
        }
        Some(AllocationResult::Accepted(_, allocation)) if allocation.is_denied() => {
            let note = other_addresses_note(&config.instance, service);
            without_proxy(Some(without_addresses(Some(Exposure::conflicting(allocation, note)))))
        }
        Some(AllocationResult::Accepted(spec, allocation)) => {
            decide_accepted_service(config, state, service, spec, allocation, now)
        }
    }
}

/// Returns a reserved port that the existing workloads of a Service occupy. The administrator reserved the port after
/// the creation of the workloads.
fn find_reserved_port(state: &ServiceState) -> Option<HostPort> {
    let mut ports = state.workloads.iter().flat_map(Workload::host_ports);
    ports.find(|port| state.reserved_ports.contains(*port))
}

/// Plans the rollout of the last valid spec. This rollout continues while the current spec is invalid.
fn plan_rollout_for_existing_workload(state: &ServiceState, now: Timestamp) -> Rollout {
    match &state.workloads[..] {
        [workload] => Rollout::plan(workload, state, now),
        _ => Rollout::default(),
    }
}

/// Returns the existing workload if it has all desired fields. Fields that another program added are ignored, because
/// the operator may leave these fields in place for hours.
fn find_applied_workload<'a>(state: &'a ServiceState, desired: &Workload) -> Option<&'a Workload> {
    let existing = state.workloads.iter().find(|existing| existing.has_same_identity(desired));
    existing.filter(|existing| existing.matches(desired))
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
    // The allocation is empty if the Service selects no node with an endpoint, and other Services use the same ports.
    let desired =
        (!allocation.is_empty()).then(|| desired_workload(config, state, service, spec, allocation, role));
    let applied_workload = desired.as_ref().and_then(|desired| find_applied_workload(state, desired));
    // The rollout begins when the workload in the cluster has the desired spec.
    let rollout = applied_workload.map(|workload| Rollout::plan(workload, state, now)).unwrap_or_default();
    let missing_endpoints_policy = MissingEndpointsPolicy::find(state, spec);
    let endpoints_allow_node =
        |node: &NodeInfo| endpoints_allow_publication(state, spec, missing_endpoints_policy, node);
    let publishable =
        select_nodes_of_accepted_service(state, service, spec, allocation, role, &endpoints_allow_node, now);
    // Several Services may publish an unclaimed node with the same port. Then kube-proxy must not forward for any of
    // these Services, because its rules for one Service would reject the clients of another Service.
    let addresses = build_ingress(spec, &publishable.nodes, &|node, address| {
        if allocation.unclaimed_nodes.contains(&node.name) {
            IpMode::Proxy
        } else if must_keep_vip(state, service, spec, node, address) {
            IpMode::Vip
        } else {
            spec.ip_mode
        }
    });
    let pod_deadline = state.pod_change_times.without_pods_since.map(|since| since + POD_CREATION_TIMEOUT);
    let are_pods_overdue = pod_deadline.is_some_and(|deadline| deadline <= now);
    let blocker = addresses
        .is_empty()
        .then(|| Blocker::find(state, spec, allocation, role, &publishable.nodes, are_pods_overdue));
    let unpublished_nodes =
        find_unpublished_nodes(state, spec, allocation, role, &endpoints_allow_node, &publishable.nodes);
    let proxy_nodes: Vec<_> = state.nodes.iter().filter(|node| allocation.allows(spec, node)).collect();
    let exposure = Exposure::for_accepted_service(&ExposureFacts {
        has_addresses: !addresses.is_empty(),
        blocker: blocker.flatten(),
        missing_endpoints_message: missing_endpoints_policy.map(|policy| policy.message(spec)),
        unpublished_nodes: &unpublished_nodes,
        allocation,
        pods: &state.pods,
        proxy_nodes: &proxy_nodes,
        outdated_proxies: &rollout.outdated_proxies,
        notes: find_notes(&config.instance, state, service, spec, role, &addresses),
    });
    let next_checks =
        [publishable.recheck_at, pod_deadline.filter(|deadline| *deadline > now), rollout.recheck_at];
    Decision {
        is_workload_applied: applied_workload.is_some(),
        proxy: desired.map_or(ProxyDecision::DeleteWorkloads, ProxyDecision::RunWorkload),
        status: Some(DesiredStatus { addresses, exposure: Some(exposure) }),
        unpublished_nodes,
        rollout,
        recheck_at: next_checks.into_iter().flatten().min(),
        limits: WriteLimits::default(),
    }
}

/// Returns the nodes whose addresses an accepted Service publishes.
fn select_nodes_of_accepted_service<'a>(
    state: &'a ServiceState,
    service: &Service,
    spec: &LoadBalancerSpec,
    allocation: &Allocation,
    role: ProxyRole,
    endpoints_allow_node: &dyn Fn(&NodeInfo) -> bool,
    now: Timestamp,
) -> PublishableNodes<'a> {
    // A running pod stays on its node even if the node gets a taint with the effect NoSchedule.
    let may_keep_proxy = |node: &NodeInfo| {
        !allocation.taken_nodes.contains(&node.name) && spec.nodes.matches_running_pod(node)
    };
    let may_stay_published =
        |node: &NodeInfo| may_keep_proxy(node) && has_forwarding_program(spec, role, node);
    let inputs = AddressInputs {
        pods: &state.pods,
        nodes: &state.nodes,
        pod_change_times: &state.pod_change_times,
        may_be_published: &|node| may_stay_published(node) && endpoints_allow_node(node),
        may_run_proxy: &|node| allocation.allows(spec, node),
        rollout_grace_period: replacement_time(spec.host_ports().len()),
        unclaimed_nodes: &allocation.unclaimed_nodes,
        proxies_can_move: spec.workload != WorkloadSpec::DaemonSet,
        now,
    };
    let publishable = select_nodes_to_publish(service, &inputs);
    if publishable.nodes.is_empty() {
        select_nodes_until_first_proxy(service, &inputs, &may_stay_published)
    } else {
        publishable
    }
}
