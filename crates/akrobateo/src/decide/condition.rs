//! The condition `akrobateo.io/Exposed`: whether a Service has addresses, and if not, why. Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;

use super::blocker::Blocker;
use crate::allocation::{Allocation, Conflict};
use crate::reason::Reason;
use crate::spec::SpecError;

/// The condition's type.
pub(super) const EXPOSED: &str = "akrobateo.io/Exposed";
/// Conflicts that a message names; a Service with hundreds of ports may have as many.
const NAMED_CONFLICTS: usize = 3;

/// The state of a Service's exposure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exposure {
    pub(crate) reason: Reason,
    pub(crate) message: String,
    /// The reason of a Warning, if somebody has to do something about it.
    pub(crate) warning: Option<Reason>,
}

impl Exposure {
    /// Of a Service that asks for what cannot be had.
    pub(super) fn refused(refusal: &SpecError, still_served: bool) -> Self {
        let rest = if still_served { "; the proxies from before go on" } else { "" };
        let reason = refusal.reason();
        Self { reason, message: format!("{refusal}{rest}"), warning: Some(reason) }
    }

    /// Of a Service whose ports belong to others on every node.
    pub(super) fn conflicting(verdict: &Allocation) -> Self {
        let message = conflicts(&verdict.conflicts);
        Self { reason: Reason::PortConflict, message, warning: Some(Reason::PortConflict) }
    }

    /// Of a Service whose proxies should run.
    pub(super) fn served(
        addresses: usize,
        verdict: &Allocation,
        caveat: Option<String>,
        pods: &[Arc<Pod>],
        obstacle: Option<&Blocker>,
    ) -> Self {
        let exposed = addresses > 0;
        let obstacle = obstacle.filter(|_| !exposed);
        let failing = trouble(pods);
        let partly = (!verdict.conflicts.is_empty()).then(|| conflicts(&verdict.conflicts));
        let (reason, state) = match (exposed, obstacle, &failing) {
            (true, ..) if partly.is_some() => (Reason::PartlyExposed, None),
            (true, ..) => (Reason::Exposed, None),
            (false, Some(obstacle), _) => (obstacle.reason(), Some(obstacle.to_string())),
            (false, None, Some(_)) => (Reason::ProxiesNotReady, None),
            (false, None, None) => (Reason::ProxiesNotReady, Some("no proxy is ready yet".to_owned())),
        };
        let warnings = [
            obstacle.map(Blocker::reason),
            partly.as_ref().map(|_| Reason::PortConflict),
            failing.as_ref().map(|_| Reason::ProxiesNotReady),
            caveat.as_ref().map(|_| Reason::ClientAddressNotKept),
        ];
        let warning = warnings.into_iter().flatten().next();
        let message = [state, partly, failing, caveat].into_iter().flatten().collect::<Vec<_>>().join("; ");
        Self { reason, message, warning }
    }

    /// Whether a Service's condition already says this.
    pub(super) fn is_said_by(&self, condition: Option<&Condition>) -> bool {
        condition.is_some_and(|condition| {
            condition.status == self.status()
                && condition.reason == self.reason.as_str()
                && condition.message == self.message
        })
    }

    /// The condition's status.
    pub(crate) const fn status(&self) -> &'static str {
        if self.reason.is_exposed() { "True" } else { "False" }
    }
}

/// What a Service's condition says now.
pub(super) fn said(service: &Service) -> Option<&Condition> {
    let conditions = service.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().find(|condition| condition.type_ == EXPOSED)
}

fn conflicts(conflicts: &[Conflict]) -> String {
    let one = |conflict: &Conflict| {
        let (protocol, port) = conflict.port;
        let protocol = protocol.as_str().to_uppercase();
        match &conflict.node {
            Some(node) => {
                format!("port {port}/{protocol} on node {node} belongs to Service {}", conflict.owner)
            }
            None => format!("port {port}/{protocol} is the nodePort of Service {}", conflict.owner),
        }
    };
    let named = conflicts.iter().take(NAMED_CONFLICTS).map(one).collect::<Vec<_>>().join("; ");
    match conflicts.len().saturating_sub(NAMED_CONFLICTS) {
        0 => named,
        more => format!("{named}; and {more} more"),
    }
}

/// What keeps proxies from running, of the first that has something to say; without what changes at each retry.
fn trouble(pods: &[Arc<Pod>]) -> Option<String> {
    let mut pods: Vec<_> = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
    pods.sort_by_key(|pod| pod.name_any());
    pods.into_iter().find_map(|pod| unscheduled(pod).or_else(|| waiting(pod)))
}

fn unscheduled(pod: &Pod) -> Option<String> {
    let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
    let condition =
        conditions.find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    let message = condition.message.as_deref()?;
    let essence = message.split_once(" preemption:").map_or(message, |(essence, _)| essence).trim_end();
    let hint =
        if essence.contains("free ports") { " (another pod holds the port as its hostPort)" } else { "" };
    Some(format!("a proxy cannot be scheduled: {essence}{hint}"))
}

fn waiting(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let containers =
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    for container in containers {
        let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
        let Some(reason) = waiting.and_then(|waiting| waiting.reason.as_deref()) else { continue };
        if ["ContainerCreating", "PodInitializing"].contains(&reason) {
            continue;
        }
        let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        let said =
            last.and_then(|ended| ended.message.as_deref()).map(str::trim).filter(|said| !said.is_empty());
        return Some(match said {
            Some(said) => format!("a proxy does not run: {said}"),
            None => format!("a proxy does not run: {reason}"),
        });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixtures::pod;

    fn served(addresses: usize, pods: Vec<Pod>) -> Exposure {
        let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
        Exposure::served(addresses, &Allocation::default(), None, &pods, None)
    }

    #[test]
    fn a_service_whose_proxies_are_starting_is_no_trouble() {
        let exposure = served(0, vec![pod("a").on("n1").build()]);
        assert_eq!((exposure.reason, exposure.warning), (Reason::ProxiesNotReady, None));
    }

    #[test]
    fn a_port_that_another_pod_holds_is_explained() {
        let message = "0/3 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. \
                       preemption: 0/3 nodes are available: 3 No preemption victims found.";
        let exposure = served(0, vec![pod("a").unscheduled(message).build()]);
        assert_eq!(exposure.warning, Some(Reason::ProxiesNotReady));
        assert!(exposure.message.contains("didn't have free ports"), "{}", exposure.message);
        assert!(exposure.message.contains("another pod holds the port"), "{}", exposure.message);
        assert!(!exposure.message.contains("preemption"), "{}", exposure.message);
    }

    #[test]
    fn what_a_proxy_said_when_it_ended_is_passed_on() {
        let exposure = served(1, vec![pod("a").on("n1").crashed("no nf_tables in this kernel").build()]);
        assert!(exposure.reason.is_exposed());
        assert_eq!(exposure.message, "a proxy does not run: no nf_tables in this kernel");
    }
}
