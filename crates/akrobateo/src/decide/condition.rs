//! The condition `akrobateo.io/Exposed` shows whether a Service has addresses, and the reason if the Service has none.
//! Pure.

use std::sync::Arc;

use akrobateo_core::HostPort;
use akrobateo_services::allocation::{Allocation, Conflict, ConflictScope};
use akrobateo_services::node_info::NodeInfo;
use akrobateo_services::spec::SpecError;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::blocker::Blocker;
use super::current_condition::CONDITION_TYPE;
use super::note::{Note, join_first_items};
use super::pod_failure::find_pod_failure;
use super::rollout::{OutdatedProxy, RolloutDelay};
use super::unpublished::UnpublishedNode;
use crate::reason::Reason;

/// The content of a Service's condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exposure {
    pub(crate) reason: Reason,
    pub(crate) message: String,
    has_addresses: bool,
    /// The parts of the message that require an action of the user, each with the reason of its Warning event.
    pub(super) warnings: Vec<(Reason, String)>,
}

/// The facts that determine the condition of an accepted Service.
pub(super) struct ExposureFacts<'a> {
    pub(super) has_addresses: bool,
    /// The reason why the Service has no address, if the operator knows the reason.
    pub(super) blocker: Option<Blocker>,
    /// The message about missing endpoints; `None` if no required endpoint is missing.
    pub(super) missing_endpoints_message: Option<String>,
    pub(super) unpublished_nodes: &'a [UnpublishedNode],
    pub(super) allocation: &'a Allocation,
    pub(super) pods: &'a [Arc<Pod>],
    /// The nodes on which the proxies may run.
    pub(super) proxy_nodes: &'a [&'a NodeInfo],
    pub(super) outdated_proxies: &'a [OutdatedProxy],
    pub(super) notes: Vec<Note>,
}

impl Exposure {
    /// Returns the condition of a Service whose spec is invalid. `may_release_port` is true if the programs that
    /// forward the Service can release a reserved port and keep the other ports.
    pub(super) fn for_rejected_service(
        error: &SpecError,
        has_addresses: bool,
        may_release_port: bool,
        note: Option<Note>,
    ) -> Self {
        let effect = match error {
            SpecError::PortReserved(_) if may_release_port => {
                "The previous settings stay in force, except for the reserved port"
            }
            _ => "The previous settings stay in force",
        };
        let effect = has_addresses.then(|| effect.to_owned());
        Self::from_error(error, has_addresses, effect, note)
    }

    /// Returns the condition of an invalid Service whose previous proxies occupied a port that is now reserved.
    pub(super) fn for_released_port(error: &SpecError, port: HostPort, note: Option<Note>) -> Self {
        let effect =
            format!("The previous proxies were removed, because port {port} is now reserved for the nodes");
        Self::from_error(error, false, Some(effect), note)
    }

    /// Returns the condition of a Service whose ports belong to other Services on every node.
    pub(super) fn for_port_conflict(allocation: &Allocation, note: Option<Note>) -> Self {
        let reason = Reason::PortConflict;
        Self::from_notes(reason, false, conflict_note(allocation).into_iter().chain(note))
    }

    /// Returns the condition of a Service whose proxies should run.
    pub(super) fn for_accepted_service(facts: &ExposureFacts) -> Self {
        let conflicts_note = conflict_note(facts.allocation);
        let node_ports_note = shared_node_ports_note(&facts.allocation.shared_node_ports);
        let outdated_note = outdated_proxies_note(facts.outdated_proxies);
        let failure = find_pod_failure(facts.pods, facts.proxy_nodes);
        let failure_reason = failure.as_ref().map(|failure| failure.reason);
        let failure_note =
            failure.map(|failure| Note { text: failure.message, warning_reason: Some(failure.reason) });
        let (reason, summary) = match (&facts.blocker, &facts.missing_endpoints_message) {
            (Some(blocker), _) => {
                let summary = Note { text: blocker.to_string(), warning_reason: Some(blocker.reason()) };
                (blocker.reason(), Some(summary))
            }
            _ if !facts.has_addresses => {
                let summary = "no proxy is ready yet; waiting for the proxy pods to become ready";
                let summary = failure_reason.is_none().then(|| Note::without_warning(summary));
                (failure_reason.unwrap_or(Reason::ProxiesNotReady), summary)
            }
            // Missing endpoints do not cause a Warning, because many programs wait for an address before they start
            // their pods.
            (_, Some(message)) => (Reason::NoEndpoints, Some(Note::without_warning(message))),
            _ if !facts.unpublished_nodes.is_empty() => {
                let summary = describe_unpublished_nodes(facts.unpublished_nodes);
                (Reason::PartlyExposed, Some(Note::without_warning(summary)))
            }
            _ if conflicts_note.is_some() || outdated_note.is_some() => (Reason::PartlyExposed, None),
            _ => (Reason::Exposed, None),
        };
        let notes = [summary, conflicts_note, outdated_note, failure_note, node_ports_note]
            .into_iter()
            .flatten()
            .chain(facts.notes.iter().cloned());
        Self::from_notes(reason, facts.has_addresses, notes)
    }

    fn from_error(
        error: &SpecError,
        has_addresses: bool,
        effect: Option<String>,
        note: Option<Note>,
    ) -> Self {
        let error_note = Note { text: error.to_string(), warning_reason: Some(error.into()) };
        let effect = effect.map(Note::without_warning);
        Self::from_notes(error.into(), has_addresses, [Some(error_note), effect, note].into_iter().flatten())
    }

    /// Returns the condition whose message consists of these notes.
    pub(super) fn from_notes(
        reason: Reason,
        has_addresses: bool,
        notes: impl IntoIterator<Item = Note>,
    ) -> Self {
        let notes: Vec<_> = notes.into_iter().collect();
        let texts: Vec<_> = notes.iter().map(|note| note.text.as_str()).collect();
        let message = texts.join(". ");
        let warnings = notes.into_iter().filter_map(|note| Some((note.warning_reason?, note.text))).collect();
        Self { reason, message, has_addresses, warnings }
    }

    /// Adds a part to the message.
    pub(super) fn add_note(&mut self, note: Note) {
        if !self.message.is_empty() {
            self.message.push_str(". ");
        }
        self.message.push_str(&note.text);
        self.warnings.extend(note.warning_reason.map(|reason| (reason, note.text)));
    }

    /// Returns the warnings that the current condition does not contain yet. A change of another part of the message
    /// therefore does not repeat a warning.
    pub(super) fn new_warnings<'a>(
        &'a self,
        current: Option<&'a Condition>,
    ) -> impl Iterator<Item = &'a (Reason, String)> {
        self.warnings
            .iter()
            .filter(move |(_, text)| !current.is_some_and(|current| current.message.contains(text.as_str())))
    }

    /// Returns the reasons of the Warning events that belong to the message, except the reason of the condition itself.
    pub(crate) fn warning_reasons(&self) -> Vec<Reason> {
        let reasons = self.warnings.iter().map(|(reason, _)| *reason);
        reasons.filter(|reason| *reason != self.reason).collect()
    }

    /// Returns the status of the condition.
    pub(crate) const fn status(&self) -> &'static str {
        if self.has_addresses { "True" } else { "False" }
    }

    /// Returns true if a Service's current condition already has the content of this exposure.
    pub(super) fn matches(&self, current: Option<&Condition>) -> bool {
        current.is_some_and(|current| {
            current.status == self.status()
                && current.reason == self.reason.as_str()
                && current.message == self.message
        })
    }

    /// Returns the condition to write. A change of the status sets the transition time. A change of the message
    /// does not set the time.
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

fn conflict_note(allocation: &Allocation) -> Option<Note> {
    (!allocation.conflicts.is_empty()).then(|| Note {
        text: describe_conflicts(&allocation.conflicts),
        warning_reason: Some(Reason::PortConflict),
    })
}

/// Returns a note about the outdated proxies that the rollout does not replace soon. The note omits proxies that the
/// rollout replaces soon, so a normal rollout does not change the condition.
fn outdated_proxies_note(outdated_proxies: &[OutdatedProxy]) -> Option<Note> {
    let delayed_proxies: Vec<_> = outdated_proxies.iter().filter(|proxy| proxy.delay.is_some()).collect();
    let needs_attention =
        delayed_proxies.iter().any(|proxy| proxy.delay.as_ref().is_some_and(RolloutDelay::needs_attention));
    (!delayed_proxies.is_empty()).then(|| Note {
        text: format!(
            "outdated proxies ({}) still forward with the previous configuration: {}",
            delayed_proxies.len(),
            join_first_items(&delayed_proxies)
        ),
        warning_reason: needs_attention.then_some(Reason::OutdatedProxies),
    })
}

/// Returns the part of the message about nodes that should be published.
pub(super) fn describe_unpublished_nodes(nodes: &[UnpublishedNode]) -> String {
    format!("not published: {}", join_first_items(nodes))
}

fn describe_conflicts(conflicts: &[Conflict]) -> String {
    let are_on_every_node =
        conflicts.iter().all(|conflict| matches!(conflict.scope, ConflictScope::EveryNode(_)));
    format!("{}; {}", join_first_items(conflicts), conflict_solution(are_on_every_node))
}

/// Returns what the author of a Service can do about conflicts. A nodePort has the same owner on every node.
pub(super) const fn conflict_solution(are_on_every_node: bool) -> &'static str {
    if are_on_every_node { "use other ports" } else { "use other ports, or select other nodes" }
}

/// Returns a warning if a nodePort of another Service has the number of a port of this Service.
pub(super) fn shared_node_ports_note(conflicts: &[Conflict]) -> Option<Note> {
    let warning = "; this Service keeps its ports, so these nodePorts are not reachable at its addresses; change one of \
                   the two ports";
    (!conflicts.is_empty()).then(|| Note {
        text: format!("{}{warning}", join_first_items(conflicts)),
        warning_reason: Some(Reason::PortConflict),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixtures::pod;
    use crate::decide::unpublished::UnpublishedCause;

    fn accepted_service_exposure(
        has_addresses: bool,
        unpublished_nodes: &[UnpublishedNode],
        pod: Pod,
    ) -> Exposure {
        Exposure::for_accepted_service(&ExposureFacts {
            has_addresses,
            blocker: None,
            missing_endpoints_message: None,
            unpublished_nodes,
            allocation: &Allocation::default(),
            pods: &[Arc::new(pod)],
            proxy_nodes: &[],
            outdated_proxies: &[],
            notes: Vec::new(),
        })
    }

    #[test]
    fn starting_proxies_do_not_cause_a_warning() {
        let exposure = accepted_service_exposure(false, &[], pod("a").on("n1").build());
        assert_eq!((exposure.reason, exposure.warnings), (Reason::ProxiesNotReady, Vec::new()));
        assert!(exposure.message.contains("no proxy is ready yet"), "{}", exposure.message);
    }

    #[test]
    fn failing_proxies_cause_a_warning_even_if_other_proxies_are_ready() {
        let crashed_pod = || pod("a").on("n1").crashed("no nf_tables in this kernel").build();
        let unpublished_nodes =
            [UnpublishedNode { node: "n1".to_owned(), cause: UnpublishedCause::ProxyNotReady }];
        let (exposed, unexposed) = (
            accepted_service_exposure(true, &unpublished_nodes, crashed_pod()),
            accepted_service_exposure(false, &[], crashed_pod()),
        );
        assert_eq!((exposed.reason, exposed.status()), (Reason::PartlyExposed, "True"));
        assert_eq!((unexposed.reason, unexposed.status()), (Reason::ProxiesNotReady, "False"));
        let message = "not published: node n1 (its proxy is not ready). a proxy pod does not run: no nf_tables in this kernel";
        assert_eq!(exposed.message, message);
        assert_eq!(exposed.warnings, unexposed.warnings);
        assert_eq!(exposed.warnings[0].0, Reason::ProxiesNotReady);
    }
}
