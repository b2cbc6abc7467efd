//! The condition `akrobateo.io/Exposed`. It says if a Service has addresses, or why it has none. Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::blocker::Blocker;
use super::pod_failure::pod_failure;
use crate::allocation::{Allocation, Conflict};
use crate::reason::Reason;
use crate::spec::SpecError;

/// The type of the condition.
const CONDITION_TYPE: &str = "akrobateo.io/Exposed";
/// The maximum number of conflicts in a message. A Service with hundreds of ports may have hundreds of conflicts.
const MAX_LISTED_CONFLICTS: usize = 3;

/// The content of a Service's condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exposure {
    pub(crate) reason: Reason,
    pub(crate) message: String,
    /// The reason of a Warning event, if the user has to act.
    pub(crate) warning: Option<Reason>,
}

/// The state of an accepted Service.
enum ExposureState<'a> {
    /// The Service has the addresses of all its nodes.
    Exposed,
    /// The Service has addresses, but other Services own its ports on some nodes.
    PartlyExposed,
    /// The Service has no address, and the cause is known.
    Blocked(&'a Blocker),
    /// The Service has no address, because its proxy pods fail.
    PodsFailing,
    /// The Service has no address yet.
    Starting,
}

impl Exposure {
    /// Returns the condition of a Service whose spec is invalid.
    pub(super) fn from_spec_error(error: &SpecError, has_addresses: bool) -> Self {
        let suffix = if has_addresses { ". The previous proxies keep running" } else { "" };
        let reason = error.reason();
        Self { reason, message: format!("{error}{suffix}"), warning: Some(reason) }
    }

    /// Returns the condition of a Service whose ports belong to other Services on every node.
    pub(super) fn from_conflicts(allocation: &Allocation) -> Self {
        let reason = Reason::PortConflict;
        Self { reason, message: describe_conflicts(&allocation.conflicts), warning: Some(reason) }
    }

    /// Returns the condition of a Service whose proxies should run.
    pub(super) fn for_accepted_service(
        has_addresses: bool,
        blocker: Option<&Blocker>,
        allocation: &Allocation,
        pods: &[Arc<Pod>],
        client_address_warning: Option<String>,
    ) -> Self {
        let conflicts = (!allocation.conflicts.is_empty()).then(|| describe_conflicts(&allocation.conflicts));
        let failure = pod_failure(pods);
        let state = match (has_addresses, blocker) {
            (true, _) if conflicts.is_some() => ExposureState::PartlyExposed,
            (true, _) => ExposureState::Exposed,
            (false, Some(blocker)) => ExposureState::Blocked(blocker),
            (false, None) if failure.is_some() => ExposureState::PodsFailing,
            (false, None) => ExposureState::Starting,
        };
        let (reason, summary) = match &state {
            ExposureState::Exposed => (Reason::Exposed, None),
            ExposureState::PartlyExposed => (Reason::PartlyExposed, None),
            ExposureState::Blocked(blocker) => (blocker.reason(), Some(blocker.to_string())),
            ExposureState::PodsFailing => (Reason::ProxiesNotReady, None),
            ExposureState::Starting => {
                let summary = "no proxy is ready yet; waiting for the proxy pods to become ready".to_owned();
                (Reason::ProxiesNotReady, Some(summary))
            }
        };
        let warning = match state {
            ExposureState::Blocked(blocker) => Some(blocker.reason()),
            _ if conflicts.is_some() => Some(Reason::PortConflict),
            _ if failure.is_some() => Some(Reason::ProxiesNotReady),
            _ => client_address_warning.as_ref().map(|_| Reason::ClientAddressNotKept),
        };
        let parts = [summary, conflicts, failure, client_address_warning];
        let message = parts.into_iter().flatten().collect::<Vec<_>>().join(". ");
        Self { reason, message, warning }
    }

    /// Returns the status of the condition.
    pub(crate) const fn status(&self) -> &'static str {
        if self.reason.is_exposed() { "True" } else { "False" }
    }

    /// Returns true if a Service's current condition has the same content.
    pub(super) fn matches(&self, current: Option<&Condition>) -> bool {
        current.is_some_and(|current| {
            current.status == self.status()
                && current.reason == self.reason.as_str()
                && current.message == self.message
        })
    }

    /// Returns the condition to write. A new status sets the transition time; a new message does not.
    pub(super) fn to_condition(&self, current: Option<&Condition>, now: Timestamp) -> Condition {
        let previous_condition_with_same_status = current.filter(|current| current.status == self.status());
        Condition {
            type_: CONDITION_TYPE.to_owned(),
            status: self.status().to_owned(),
            reason: self.reason.as_str().to_owned(),
            message: self.message.clone(),
            last_transition_time: previous_condition_with_same_status
                .map_or(Time(now), |current| current.last_transition_time.clone()),
            observed_generation: None,
        }
    }
}

/// Returns the current condition of a Service.
pub(super) fn current_condition(service: &Service) -> Option<&Condition> {
    let conditions = service.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().find(|condition| condition.type_ == CONDITION_TYPE)
}

fn describe_conflicts(conflicts: &[Conflict]) -> String {
    let listed_conflicts = conflicts.iter().take(MAX_LISTED_CONFLICTS).map(ToString::to_string);
    let text_about_omitted_conflicts = match conflicts.len().saturating_sub(MAX_LISTED_CONFLICTS) {
        0 => None,
        count => Some(format!("and {count} more")),
    };
    let list = listed_conflicts.chain(text_about_omitted_conflicts).collect::<Vec<_>>().join(", ");
    format!("{list}; use other ports, or select other nodes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixtures::pod;

    fn accepted_service_exposure(has_addresses: bool, pod: Pod) -> Exposure {
        Exposure::for_accepted_service(has_addresses, None, &Allocation::default(), &[Arc::new(pod)], None)
    }

    #[test]
    fn starting_proxies_cause_no_warning() {
        let exposure = accepted_service_exposure(false, pod("a").on("n1").build());
        assert_eq!((exposure.reason, exposure.warning), (Reason::ProxiesNotReady, None));
        assert!(exposure.message.contains("no proxy is ready yet"), "{}", exposure.message);
    }

    #[test]
    fn failing_proxies_cause_a_warning_even_if_other_proxies_are_ready() {
        let failing_pod = || pod("a").on("n1").crashed("no nf_tables in this kernel").build();
        let (exposed, unexposed) =
            (accepted_service_exposure(true, failing_pod()), accepted_service_exposure(false, failing_pod()));
        assert_eq!((exposed.reason, exposed.warning), (Reason::Exposed, Some(Reason::ProxiesNotReady)));
        assert_eq!(unexposed.reason, Reason::ProxiesNotReady);
        assert_eq!(exposed.message, unexposed.message);
    }
}
