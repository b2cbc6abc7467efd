//! Decides the desired state of one Service from its current state. This module does no I/O and reads no clock.

use akrobateo_core::FIELD_MANAGER;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};
use k8s_openapi::jiff::Timestamp;

use super::addresses::{AddressInputs, ingress, published_addresses, select_nodes};
use super::blocker::Blocker;
use super::condition::Exposure;
use super::proxy_config::ProxyConfig;
use super::service_state::ServiceState;
use super::traffic_policy::{client_address_warning, proxy_role};
use super::workload::Workload;
use crate::allocation::{Allocation, AllocationResult};
use crate::node_info::NodeInfo;
use crate::spec::{IpMode, LoadBalancerSpec, ServiceDefaults, SpecError, WorkloadSpec};

/// The desired state of one Service.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decision {
    pub(crate) proxy: ProxyDecision,
    /// The desired status. The value `None` leaves the status unchanged, because another controller owns it.
    pub(crate) status: Option<DesiredStatus>,
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

/// Decides the desired state of one Service.
pub(crate) fn decide(
    config: &ProxyConfig,
    defaults: &ServiceDefaults,
    state: &ServiceState,
    now: Timestamp,
) -> Decision {
    let decision_without_proxy =
        |status| Decision { proxy: ProxyDecision::DeleteWorkloads, status, recheck_at: None };
    let status_without_addresses = |exposure| DesiredStatus { addresses: Vec::new(), exposure };
    let Some(service) = state.service.as_deref() else { return decision_without_proxy(None) };
    match &state.allocation_result {
        None => decision_without_proxy(
            is_status_written_by_akrobateo(service).then(|| status_without_addresses(None)),
        ),
        Some(AllocationResult::Rejected(error)) => {
            decide_rejected_service(defaults, state, service, error, now)
        }
        Some(AllocationResult::Accepted(_, allocation)) if allocation.has_no_node => {
            decision_without_proxy(Some(status_without_addresses(Some(Exposure::from_conflicts(allocation)))))
        }
        Some(AllocationResult::Accepted(spec, allocation)) => {
            decide_accepted_service(config, state, service, spec, allocation, now)
        }
    }
}

/// Returns true if Akrobateo wrote the status. The addresses of other controllers must stay.
fn is_status_written_by_akrobateo(service: &Service) -> bool {
    service.metadata.managed_fields.iter().flatten().any(|entry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.subresource.as_deref() == Some("status")
    })
}

/// Keeps the previous proxies of a Service whose spec is invalid, and publishes the nodes where they are ready.
fn decide_rejected_service(
    defaults: &ServiceDefaults,
    state: &ServiceState,
    service: &Service,
    error: &SpecError,
    now: Timestamp,
) -> Decision {
    let allows_any_node = |_: &NodeInfo| true;
    let publishable_nodes = select_nodes(
        service,
        &AddressInputs {
            pods: &state.pods,
            nodes: &state.nodes,
            pod_missing_since: &state.pod_missing_since,
            may_be_published: &allows_any_node,
            may_run_proxy: &allows_any_node,
            proxies_can_move: false,
            now,
        },
    );
    let ip_mode = published_ip_mode(service).unwrap_or(defaults.ip_mode);
    let addresses = ingress(service, &publishable_nodes.nodes, &defaults.address_types, ip_mode);
    let exposure = Exposure::from_spec_error(error, !addresses.is_empty());
    Decision {
        proxy: ProxyDecision::KeepWorkloads,
        status: Some(DesiredStatus { addresses, exposure: Some(exposure) }),
        recheck_at: publishable_nodes.recheck_at,
    }
}

fn decide_accepted_service(
    config: &ProxyConfig,
    state: &ServiceState,
    service: &Service,
    spec: &LoadBalancerSpec,
    allocation: &Allocation,
    now: Timestamp,
) -> Decision {
    let may_be_published = |node: &NodeInfo| {
        !spec.is_traffic_policy_local || state.nodes_with_ready_endpoint.contains(&node.name)
    };
    let may_run_proxy = |node: &NodeInfo| allocation.allows(spec, node);
    let publishable_nodes = select_nodes(
        service,
        &AddressInputs {
            pods: &state.pods,
            nodes: &state.nodes,
            pod_missing_since: &state.pod_missing_since,
            may_be_published: &may_be_published,
            may_run_proxy: &may_run_proxy,
            proxies_can_move: spec.workload != WorkloadSpec::DaemonSet,
            now,
        },
    );
    let addresses = ingress(service, &publishable_nodes.nodes, &spec.address_types, spec.ip_mode);
    let blocker =
        addresses.is_empty().then(|| Blocker::find(state, spec, &publishable_nodes.nodes, now)).flatten();
    let warning = client_address_warning(spec, &state.nodes);
    let exposure = Exposure::for_accepted_service(
        !addresses.is_empty(),
        blocker.as_ref(),
        allocation,
        &state.pods,
        warning,
    );
    let role = proxy_role(spec, &state.nodes);
    let pod_creation_deadline =
        state.workloads.first().and_then(|workload| workload.pod_creation_deadline(&state.pods));
    Decision {
        proxy: ProxyDecision::RunWorkload(Workload::new(
            config,
            service,
            spec,
            &allocation.excluded_nodes,
            role,
        )),
        status: Some(DesiredStatus { addresses, exposure: Some(exposure) }),
        recheck_at: publishable_nodes
            .recheck_at
            .into_iter()
            .chain(pod_creation_deadline.filter(|at| *at > now))
            .min(),
    }
}

fn published_ip_mode(service: &Service) -> Option<IpMode> {
    IpMode::parse(published_addresses(service).first()?.ip_mode.as_deref()?)
}
