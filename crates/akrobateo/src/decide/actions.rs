//! Plans the writes that change the current state into the desired state. Pure.

use akrobateo_services::published::published_addresses;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::condition::Exposure;
use super::current_condition::current_condition;
use super::decision::{Decision, DesiredStatus, ProxyDecision};
use super::rollout::PodReference;
use super::service_state::ServiceState;
use super::status_owner::has_addresses;
use super::workload::Workload;
use super::write_limits::WriteLimit;
use crate::reason::Reason;

/// One write to the API server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Creates a workload, or changes its fields to the desired values.
    Apply(Workload),
    /// Deletes a workload and its pods. If a new object has the same name, the new object stays.
    Delete(Workload),
    /// Deletes a workload and keeps its pods. The next workload adopts these pods.
    DeleteKeepingPods(Workload),
    /// Deletes an outdated or misplaced pod. The workload's controller then creates a new pod.
    DeletePod(PodReference),
    /// Writes the status of the Service with this UID. If a new Service has the same name, its status does not change.
    PatchStatus { uid: String, addresses: Vec<LoadBalancerIngress>, condition: Option<Condition> },
    /// Emits an event on the Service.
    EmitEvent { reason: Reason, note: String },
}

/// Returns the writes in the order of execution. The operator creates proxies before it publishes their addresses, and
/// removes the addresses before it deletes the proxies.
pub(crate) fn plan_actions(
    operator_instance: &str,
    state: &ServiceState,
    decision: &Decision,
    now: Timestamp,
) -> Vec<Action> {
    let status_actions = plan_status(operator_instance, state, decision, now);
    let deletions_of_obsolete_workloads = state.obsolete_workloads.iter().cloned().map(Action::Delete);
    let pod_deletions = decision.rollout.pods_to_delete.iter().cloned().map(Action::DeletePod);
    let pod_deletions: Vec<_> = pod_deletions.collect();
    match &decision.proxy {
        ProxyDecision::KeepWorkloads => {
            deletions_of_obsolete_workloads.chain(status_actions).chain(pod_deletions).collect()
        }
        ProxyDecision::DeleteWorkloads => status_actions.into_iter().chain(plan_deletion(state)).collect(),
        ProxyDecision::RunWorkload(desired) => {
            let workload_actions = plan_workload(state, desired, decision);
            // The rollout waits for the next workload, because the current workload would create pods with the
            // added fields.
            let is_recreated =
                workload_actions.iter().any(|action| matches!(action, Action::DeleteKeepingPods(_)));
            let pod_deletions = pod_deletions.into_iter().filter(|_| !is_recreated);
            let workload_actions = deletions_of_obsolete_workloads.chain(workload_actions);
            workload_actions.chain(status_actions).chain(pod_deletions).collect()
        }
    }
}

fn plan_deletion(state: &ServiceState) -> Vec<Action> {
    let workloads = state.workloads.iter().chain(&state.obsolete_workloads);
    let mut actions: Vec<_> = workloads.cloned().map(Action::Delete).collect();
    if state.service.is_some() && !actions.is_empty() {
        actions.push(emit_event_action(Reason::DeletingLoadBalancer, "deleted the proxies"));
    }
    actions
}

fn plan_workload(state: &ServiceState, desired: &Workload, decision: &Decision) -> Vec<Action> {
    let limit = decision.write_limits.workload;
    let (same_workloads, other_workloads): (Vec<_>, Vec<_>) =
        state.workloads.iter().partition(|workload| workload.has_same_identity(desired));
    // The Service's other workloads use the same hostPorts, so the operator deletes these workloads first.
    let mut actions: Vec<_> = other_workloads.into_iter().cloned().map(Action::Delete).collect();
    if limit.delayed_until().is_some() {
        return actions;
    }
    if !decision.is_workload_applied {
        // A server-side apply restores the fields that other field managers changed. The operator then owns these
        // fields again. The apply does not remove fields that other field managers added.
        actions.push(Action::Apply(desired.clone()));
    } else if let Some(existing_workload) =
        same_workloads.iter().find(|existing_workload| existing_workload.has_added_fields())
    {
        // The deletion triggers the next reconciliation, which creates the workload again.
        actions.push(Action::DeleteKeepingPods((*existing_workload).clone()));
    }
    match same_workloads.first().map(|existing_workload| existing_workload.data_path_arguments()) {
        None => {
            let note = "created the proxies; waiting for them to become ready";
            actions.push(emit_event_action(Reason::EnsuringLoadBalancer, note));
        }
        Some(previous_arguments)
            if limit == WriteLimit::Change && previous_arguments != desired.data_path_arguments() =>
        {
            let arguments = desired.data_path_arguments();
            let data_path = if arguments.is_empty() {
                "in the kernel".to_owned()
            } else {
                format!("with {}", arguments.join(" "))
            };
            let note = format!("replacing the proxies: they now forward {data_path}");
            actions.push(emit_event_action(Reason::DataPathChanged, note));
        }
        Some(_) => (),
    }
    actions
}

fn plan_status(
    operator_instance: &str,
    state: &ServiceState,
    decision: &Decision,
    now: Timestamp,
) -> Vec<Action> {
    let (Some(service), Some(desired)) = (&state.service, &decision.status) else { return Vec::new() };
    let limits = &decision.write_limits;
    let current_condition = current_condition(service);
    let has_same_condition = match &desired.exposure {
        Some(exposure) => exposure.matches(current_condition),
        None => current_condition.is_none(),
    };
    let is_status_unchanged =
        has_same_condition && has_addresses(operator_instance, service, &desired.addresses);
    if is_status_unchanged || limits.status.delayed_until().is_some() {
        return Vec::new();
    }
    // The events depend on the last status that the operator wrote, because another program may have written the
    // current status.
    let previous_condition = match &limits.previous_status {
        Some(previous) => previous.condition.as_ref(),
        None => current_condition,
    };
    let exposure = desired.exposure.as_ref();
    let patch = Action::PatchStatus {
        uid: service.uid().unwrap_or_default(),
        addresses: desired.addresses.clone(),
        condition: exposure.map(|exposure| exposure.to_condition(previous_condition, now)),
    };
    let has_same_addresses = match &limits.previous_status {
        Some(previous) => previous.addresses.matches(&desired.addresses),
        None => has_addresses(operator_instance, service, &desired.addresses),
    };
    let events = match exposure {
        _ if limits.status != WriteLimit::Change => Vec::new(),
        Some(exposure) => status_events(previous_condition, desired, exposure, has_same_addresses),
        None => unserved_event(service).into_iter().collect(),
    };
    std::iter::once(patch).chain(events).collect()
}

/// Returns the event about a Service that the operator no longer serves, although the Service still has the type
/// `LoadBalancer` and is not being deleted. The cause is a setting of the operator, so the Service's author may not know
/// the cause.
fn unserved_event(service: &Service) -> Option<Action> {
    let is_load_balancer =
        service.spec.as_ref().is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer"));
    let has_addresses = !published_addresses(service).is_empty();
    (is_load_balancer && has_addresses && service.metadata.deletion_timestamp.is_none()).then(|| {
        let note = "the operator no longer serves this Service, and removes its addresses; \
                    `akrobateo explain` shows the reason, for example the operator's setting DEFAULT_CLASS";
        emit_event_action(Reason::UnAvailableLoadBalancer, note)
    })
}

/// Returns the events for a change of the condition or of the addresses: the new Warnings, and an event about the
/// addresses.
fn status_events(
    previous_condition: Option<&Condition>,
    desired: &DesiredStatus,
    exposure: &Exposure,
    has_same_addresses: bool,
) -> Vec<Action> {
    let warnings: Vec<_> = exposure
        .new_warnings(previous_condition)
        .map(|(reason, text)| emit_event_action(*reason, text.clone()))
        .collect();
    let was_exposed = previous_condition.is_some_and(|condition| condition.status == "True");
    let is_exposed = exposure.status() == "True";
    let address_event = match (is_exposed, was_exposed) {
        (true, _) if exposure.reason.is_rejection() => None,
        (true, false) => {
            Some(emit_event_action(Reason::EnsuredLoadBalancer, addresses_note(&desired.addresses)))
        }
        (true, true) if !has_same_addresses => {
            Some(emit_event_action(Reason::UpdatedLoadBalancer, addresses_note(&desired.addresses)))
        }
        // If a Warning names the cause, no event about the addresses is necessary.
        (false, true) if warnings.is_empty() => {
            Some(emit_event_action(Reason::UnAvailableLoadBalancer, exposure.message.clone()))
        }
        _ => None,
    };
    warnings.into_iter().chain(address_event).collect()
}

fn addresses_note(addresses: &[LoadBalancerIngress]) -> String {
    let addresses: Vec<_> = addresses.iter().filter_map(|ingress| ingress.ip.as_deref()).collect();
    format!("published addresses: {}", addresses.join(", "))
}

fn emit_event_action(reason: Reason, note: impl Into<String>) -> Action {
    Action::EmitEvent { reason, note: note.into() }
}
