//! The writes that lead from what is to what should be; none where nothing differs. Pure.

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::addresses::published;
use super::condition::{EXPOSED, Exposure, said};
use super::{Decision, Proxy, Status, Workload};
use crate::decide::ServiceState;
use crate::reason::Reason;

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Make this workload, or make it so again.
    Apply(Workload),
    /// Remove a workload with its pods, unless another one has taken its name.
    Delete(Workload),
    /// Remove a workload, and leave its pods to the next one, which replaces them one by one where it must.
    Recreate(Workload),
    /// Write the status, unless the Service is another one by now.
    PatchStatus { uid: String, addresses: Vec<LoadBalancerIngress>, condition: Option<Condition> },
    /// Tell the Service's author.
    EmitEvent { reason: Reason, note: String },
}

/// What has to be written, in order: a proxy is there before the addresses that promise it, and goes after them.
pub(crate) fn difference(observed: &ServiceState, decision: &Decision, now: Timestamp) -> Vec<Action> {
    let status = status(observed, decision, now);
    match &decision.proxy {
        Proxy::Unchanged => status,
        Proxy::Absent => status.into_iter().chain(removal(observed)).collect(),
        Proxy::Present(desired) => workload(observed, desired).into_iter().chain(status).collect(),
    }
}

fn removal(observed: &ServiceState) -> Vec<Action> {
    let mut changes: Vec<_> = observed.workloads.iter().cloned().map(Action::Delete).collect();
    if observed.service.is_some() && !changes.is_empty() {
        changes.push(announce(Reason::DeletingLoadBalancer, "removed the proxies".to_owned()));
    }
    changes
}

/// Others than the desired one hold its ports, so they go first.
fn workload(observed: &ServiceState, desired: &Workload) -> Vec<Action> {
    let (same, others): (Vec<_>, Vec<_>) =
        observed.workloads.iter().partition(|workload| workload.same_identity(desired));
    let mut changes: Vec<_> = others.into_iter().cloned().map(Action::Delete).collect();
    if !same.iter().any(|existing| existing.matches(desired)) {
        // That also takes back the ownership of what somebody has changed; what remains then is theirs.
        changes.push(Action::Apply(desired.clone()));
    } else if let Some(edited) = same.iter().find(|existing| existing.has_foreign_fields()) {
        // The next one is made when this one is gone, which is a change of its own.
        changes.push(Action::Recreate((*edited).clone()));
    }
    let before = same.first().map(|existing| existing.data_path());
    match before {
        None => {
            let note = "made the proxies; waiting for them".to_owned();
            changes.push(announce(Reason::EnsuringLoadBalancer, note));
        }
        Some(before) if before != desired.data_path() => {
            let now = desired.data_path();
            let how =
                if now.is_empty() { "in the kernel".to_owned() } else { format!("with {}", now.join(" ")) };
            changes.push(announce(
                Reason::DataPathChanged,
                format!("the proxies are replaced: they now forward {how}"),
            ));
        }
        Some(_) => (),
    }
    changes
}

fn status(observed: &ServiceState, decision: &Decision, now: Timestamp) -> Vec<Action> {
    let (Some(service), Some(desired)) = (&observed.service, &decision.status) else { return Vec::new() };
    let before = said(service);
    let same_addresses = published(service) == desired.addresses;
    let same_condition = match &desired.exposure {
        Some(exposure) => exposure.is_said_by(before),
        None => before.is_none(),
    };
    if same_addresses && same_condition {
        return Vec::new();
    }
    let publish = Action::PatchStatus {
        uid: service.uid().unwrap_or_default(),
        addresses: desired.addresses.clone(),
        condition: desired.exposure.as_ref().map(|exposure| condition(exposure, before, now)),
    };
    let news =
        desired.exposure.as_ref().and_then(|exposure| news(service, desired, exposure, same_addresses));
    std::iter::once(publish).chain(news).collect()
}

/// The time of a condition is that of its last change of status, not of every change of its message.
fn condition(exposure: &Exposure, before: Option<&Condition>, now: Timestamp) -> Condition {
    let unchanged = before.filter(|before| before.status == exposure.status());
    Condition {
        type_: EXPOSED.to_owned(),
        status: exposure.status().to_owned(),
        reason: exposure.reason.as_str().to_owned(),
        message: exposure.message.clone(),
        last_transition_time: unchanged.map_or(Time(now), |before| before.last_transition_time.clone()),
        observed_generation: None,
    }
}

/// What the change of the condition or the addresses is called: the service controller's names where one fits.
fn news(service: &Service, desired: &Status, exposure: &Exposure, same_addresses: bool) -> Option<Action> {
    let before = said(service);
    let was_exposed = before.is_some_and(|before| before.status == "True");
    let message_is_new = !exposure.is_said_by(before);
    if let Some(warning) = exposure.warning.filter(|_| message_is_new) {
        return Some(announce(warning, exposure.message.clone()));
    }
    match (exposure.reason.is_exposed(), was_exposed) {
        (true, false) => Some(announce(Reason::EnsuredLoadBalancer, listed(&desired.addresses))),
        (true, true) if !same_addresses => {
            Some(announce(Reason::UpdatedLoadBalancer, listed(&desired.addresses)))
        }
        (false, true) => Some(announce(Reason::UnAvailableLoadBalancer, exposure.message.clone())),
        _ => None,
    }
}

fn listed(addresses: &[LoadBalancerIngress]) -> String {
    let addresses: Vec<_> = addresses.iter().filter_map(|ingress| ingress.ip.as_deref()).collect();
    format!("addresses: {}", addresses.join(", "))
}

const fn announce(reason: Reason, note: String) -> Action {
    Action::EmitEvent { reason, note }
}
