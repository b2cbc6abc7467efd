//! Decides the desired state of one Service from its current state. This module does no I/O and reads no clock.

use akrobateo_core::HostPort;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};
use k8s_openapi::jiff::Timestamp;

use super::addresses::{AddressInputs, PublishableNodes, ingress, select_nodes};
use super::blocker::{Blocker, POD_CREATION_TIMEOUT};
use super::condition::{Exposure, ExposureFacts};
use super::desired_workload::desired_workload;
use super::note::Note;
use super::notes::{foreign_status_note, notes};
use super::pod::ProxyRole;
use super::proxy_config::ProxyConfig;
use super::rejected::{RejectedStatus, rejected_status};
use super::rollout::Rollout;
use super::rollout_limits::replacement_time;
use super::service_state::ServiceState;
use super::status_owner::owns_status;
use super::traffic_policy::{WithoutEndpoints, is_left_out, keeps_vip, may_be_published, proxy_role};
use super::unpublished::{UnpublishedNode, unpublished_nodes};
use super::workload::Workload;
use super::write_limits::WriteLimits;
use crate::allocation::{Allocation, AllocationResult};
use crate::node_info::NodeInfo;
use crate::spec::{IpMode, LoadBalancerSpec, WorkloadSpec};

/// The desired state of one Service.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decision {
    pub(crate) proxy: ProxyDecision,
    /// The desired status. The value `None` leaves the status unchanged, because another controller owns it.
    pub(crate) status: Option<DesiredStatus>,
    /// The nodes that should answer but are not published.
    pub(crate) unpublished: Vec<UnpublishedNode>,
    /// The replacement of outdated proxies.
    pub(crate) rollout: Rollout,
    /// The time of the next reconciliation if no event triggers one earlier.
    pub(crate) recheck_at: Option<Timestamp>,
    /// The limits of the writes, because other programs write too. [`decide`] does not set any.
    pub(super) limits: WriteLimits,
}

impl Decision {
    /// Adds a part to the message of the condition.
    pub(super) fn add_note(&mut self, note: Note) {
        if let Some(exposure) = self.status.as_mut().and_then(|status| status.exposure.as_mut()) {
            exposure.add_note(note);
        }
    }

    /// Moves the time of the next reconciliation to this time, unless it is earlier already.
    pub(super) fn recheck_by(&mut self, at: Option<Timestamp>) {
        self.recheck_at = self.recheck_at.into_iter().chain(at).min();
    }
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
                let note = foreign_status_note(&config.instance, service);
                let exposure = Exposure::from_released_port(error, port, note);
                return without_proxy(Some(without_addresses(Some(exposure))));
            }
            let RejectedStatus { addresses, exposure, recheck_at } =
                rejected_status(&config.instance, state, service, error, now);
            let rollout = rollout_of_kept_workload(state, now);
            let status = Some(DesiredStatus { addresses, exposure: Some(exposure) });
            Decision {
                proxy: ProxyDecision::KeepWorkloads,
                recheck_at: recheck_at.into_iter().chain(rollout.recheck_at).min(),
                rollout,
                ..without_proxy(status)
            }
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

/// Returns the rollout of the last valid spec, which continues while the current spec is invalid.
fn rollout_of_kept_workload(state: &ServiceState, now: Timestamp) -> Rollout {
    match &state.workloads[..] {
        [workload] if workload.has_forwarding_digest() => Rollout::plan(workload, state, now),
        _ => Rollout::default(),
    }
}

/// Returns the rollout of the desired workload. It begins when the workload in the cluster has the desired spec.
fn rollout_of_desired_workload(state: &ServiceState, desired: &Workload, now: Timestamp) -> Rollout {
    let existing = state.workloads.iter().find(|existing| existing.has_same_identity(desired));
    let applied = existing.filter(|existing| existing.matches(desired) && !existing.has_foreign_fields());
    applied.map(|applied| Rollout::plan(applied, state, now)).unwrap_or_default()
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
    // If this is empty, the Service selects no node with an endpoint, and other Services use the same ports.
    let desired =
        (!allocation.is_empty()).then(|| desired_workload(config, state, service, spec, allocation, role));
    let rollout =
        desired.as_ref().map(|desired| rollout_of_desired_workload(state, desired, now)).unwrap_or_default();
    let without_endpoints = WithoutEndpoints::find(state, spec);
    let has_endpoint = |node: &NodeInfo| may_be_published(state, spec, without_endpoints, node);
    let selected = select_accepted_nodes(state, service, spec, allocation, role, &has_endpoint, now);
    // Several Services may publish an unclaimed node with the same port. kube-proxy must not handle the port for any of
    // them: the rules of one Service would refuse the clients of another one.
    let mode = |node: &NodeInfo, address| {
        if allocation.unclaimed_nodes.contains(&node.name) {
            IpMode::Proxy
        } else if keeps_vip(state, service, spec, node, address) {
            IpMode::Vip
        } else {
            spec.ip_mode
        }
    };
    let addresses = ingress(spec, &selected.nodes, &mode);
    let deadline = state.pod_times.without_pods_since.map(|since| since + POD_CREATION_TIMEOUT);
    let deadline = deadline.filter(|_| !state.workloads.is_empty());
    let blocker = addresses.is_empty().then(|| {
        Blocker::find(state, spec, allocation, role, &selected.nodes, deadline.is_some_and(|end| end <= now))
    });
    let unpublished = unpublished_nodes(state, spec, allocation, role, &has_endpoint, &selected.nodes);
    let proxy_nodes: Vec<_> = state.nodes.iter().filter(|node| allocation.allows(spec, node)).collect();
    let exposure = Exposure::for_accepted_service(&ExposureFacts {
        has_addresses: !addresses.is_empty(),
        blocker: blocker.flatten(),
        without_endpoints: without_endpoints.map(|endpoints| endpoints.message(spec)),
        unpublished: &unpublished,
        allocation,
        pods: &state.pods,
        proxy_nodes: &proxy_nodes,
        outdated: &rollout.outdated,
        notes: notes(&config.instance, state, service, spec, role, &addresses),
    });
    let next_checks = [selected.recheck_at, deadline.filter(|at| *at > now), rollout.recheck_at];
    Decision {
        proxy: desired.map_or(ProxyDecision::DeleteWorkloads, ProxyDecision::RunWorkload),
        status: Some(DesiredStatus { addresses, exposure: Some(exposure) }),
        unpublished,
        rollout,
        recheck_at: next_checks.into_iter().flatten().min(),
        limits: WriteLimits::default(),
    }
}

/// Returns the nodes to publish of an accepted Service.
fn select_accepted_nodes<'a>(
    state: &'a ServiceState,
    service: &Service,
    spec: &LoadBalancerSpec,
    allocation: &Allocation,
    role: ProxyRole,
    has_endpoint: &dyn Fn(&NodeInfo) -> bool,
    now: Timestamp,
) -> PublishableNodes<'a> {
    // A pod that runs stays on its node if the node gets a taint with the effect NoSchedule.
    let may_keep_proxy = |node: &NodeInfo| {
        !allocation.taken_nodes.contains(&node.name) && spec.nodes.matches_running_pod(node)
    };
    let inputs = AddressInputs {
        pods: &state.pods,
        nodes: &state.nodes,
        pod_times: &state.pod_times,
        may_be_published: &|node| {
            may_keep_proxy(node) && has_endpoint(node) && !is_left_out(spec, role, node)
        },
        may_run_proxy: &|node| allocation.allows(spec, node),
        rollout_grace_period: replacement_time(spec.host_ports().len()),
        unclaimed_nodes: &allocation.unclaimed_nodes,
        proxies_can_move: spec.workload != WorkloadSpec::DaemonSet,
        now,
    };
    select_nodes(service, &inputs)
}
