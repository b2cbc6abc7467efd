//! Decides the desired state of one Service from its current state. The module is pure: it does no I/O and does not
//! read the clock.

use akrobateo_core::HostPort;
use akrobateo_services::allocation::AllocationResult;
use akrobateo_services::spec::WorkloadSpec;
use k8s_openapi::jiff::Timestamp;

use super::condition::Exposure;
use super::decision::{Decision, DesiredStatus, ProxyDecision};
use super::dedicated::decide_dedicated_service;
use super::notes::other_addresses_note;
use super::proxy_config::ProxyConfig;
use super::rejected::{RejectedStatus, decide_rejected_status};
use super::rollout::Rollout;
use super::service_state::ServiceState;
use super::shared::decide_shared_service;
use super::status_owner::owns_status;
use super::workload::Workload;

/// Decides the desired state of one Service.
pub(crate) fn decide(config: &ProxyConfig, state: &ServiceState, now: Timestamp) -> Decision {
    let decision_without_proxy = |status| Decision::new(ProxyDecision::DeleteWorkloads, status);
    let status_without_addresses = |exposure| DesiredStatus { addresses: Vec::new(), exposure };
    let Some(service) = state.service.as_deref() else { return decision_without_proxy(None) };
    match &state.allocation_result {
        None => decision_without_proxy(
            owns_status(&config.instance, service).then(|| status_without_addresses(None)),
        ),
        Some(AllocationResult::Rejected(error)) => {
            if let Some(port) = find_reserved_port(state) {
                let note = other_addresses_note(&config.instance, service);
                let exposure = Exposure::for_released_port(error, port, note);
                return decision_without_proxy(Some(status_without_addresses(Some(exposure))));
            }
            let RejectedStatus { addresses, exposure, recheck_at } =
                decide_rejected_status(&config.instance, state, service, error, now);
            let rollout = plan_rollout_for_existing_workload(state, now);
            let status = Some(DesiredStatus { addresses, exposure: Some(exposure) });
            Decision {
                proxy: ProxyDecision::KeepWorkloads,
                recheck_at: recheck_at.into_iter().chain(rollout.recheck_at).min(),
                rollout,
                ..decision_without_proxy(status)
            }
        }
        Some(AllocationResult::Accepted(spec, allocation)) => match spec.workload {
            WorkloadSpec::Shared => {
                decide_shared_service(&config.instance, state, service, spec, allocation, now)
            }
            WorkloadSpec::Dedicated(_) if allocation.is_denied() => {
                let note = other_addresses_note(&config.instance, service);
                decision_without_proxy(Some(status_without_addresses(Some(Exposure::for_port_conflict(
                    allocation, note,
                )))))
            }
            WorkloadSpec::Dedicated(workload_kind) => {
                decide_dedicated_service(config, state, service, (spec, workload_kind), allocation, now)
            }
        },
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
