//! Finds the reason why a Service that the node agents forward has no addresses. Pure.

use akrobateo_core::annotations;
use akrobateo_services::agent_report::LEASE_DURATION_SECONDS;
use akrobateo_services::node_info::NodeInfo;

use super::agent_status::AgentStatus;
use super::blocker::Blocker;
use super::note::{Note, join_first_items};
use super::refusals::Refusals;
use super::shared_service::SharedService;
use crate::reason::Reason;

/// The command that shows the pods of the agents.
const SHOW_AGENTS_COMMAND: &str = "kubectl get pods -A -l app.kubernetes.io/name=akrobateo-agent -o wide";

/// Returns the reason of the condition and the first part of its message. The note is `None` if the message already
/// names the refusals, which explain the reason.
pub(super) fn find_shared_blocker(
    shared: &SharedService,
    publishable_nodes: &[&NodeInfo],
    refusals: &Refusals,
) -> (Reason, Option<Note>) {
    let blocker = Blocker::find_independent_of_forwarding(shared.state, shared.spec, publishable_nodes);
    let blocker = blocker.or_else(|| {
        let lacks_expected_node = shared.missing_endpoints_policy.is_none()
            && shared.spec.is_external_traffic_policy_local
            && !shared.state.nodes_with_ready_endpoint.is_empty()
            && !shared.state.nodes.iter().any(|node| shared.is_expected_to_serve(node));
        lacks_expected_node.then_some(Blocker::EndpointsWithoutProxy)
    });
    if let Some(blocker) = blocker {
        let note = Note { text: blocker.to_string(), warning_reason: Some(blocker.reason()) };
        return (blocker.reason(), Some(note));
    }
    if let Some(agents_note) = missing_agents_note(shared) {
        return (Reason::AgentsNotReady, Some(agents_note));
    }
    if let Some(reason) = refusals.reason() {
        return (reason, None);
    }
    let excluded_node_blocker = shared.state.nodes.iter().find_map(|node| {
        let is_serving =
            *shared.agent_status(node) == AgentStatus::Serving && shared.is_expected_to_serve(node);
        let reason = node.exclusion_reason.filter(|_| is_serving)?;
        Some(Blocker::NodeExcluded { node: node.name.clone(), reason })
    });
    match excluded_node_blocker {
        Some(blocker) => {
            let note = Note { text: blocker.to_string(), warning_reason: Some(blocker.reason()) };
            (blocker.reason(), Some(note))
        }
        None => (Reason::AgentsNotReady, Some(agents_not_ready_note(shared))),
    }
}

/// Returns a warning if the cluster has no agents.
fn missing_agents_note(shared: &SharedService) -> Option<Note> {
    shared.state.agents.is_empty().then(|| Note {
        text: format!(
            "the node agents do not report, so the nodes cannot forward; check that the agents are installed \
             (agent.enabled in the chart; with kustomize, without the component dedicated-only) and run \
             ({SHOW_AGENTS_COMMAND}); to use proxies instead of agents, set the annotation {} to DaemonSet",
            annotations::WORKLOAD
        ),
        warning_reason: Some(Reason::AgentsNotReady),
    })
}

/// Returns a note with the reason why no agent of the nodes that should serve the Service serves it. The note is a
/// Warning, except if an agent only needs more time.
fn agents_not_ready_note(shared: &SharedService) -> Note {
    let expected_nodes = || shared.state.nodes.iter().filter(|node| shared.is_expected_to_serve(node));
    let failing_agent = expected_nodes().find_map(|node| match shared.agent_status(node) {
        AgentStatus::Failing(error) => Some((&node.name, error)),
        _ => None,
    });
    let warning_note = |text| Note { text, warning_reason: Some(Reason::AgentsNotReady) };
    if let Some((node, error)) = failing_agent {
        return warning_note(format!(
            "the agent of node {node} cannot change the rules of the kernel: {error}; correct the cause on the node, or select \
             other nodes"
        ));
    }
    if expected_nodes()
        .any(|node| matches!(shared.agent_status(node), AgentStatus::Outdated | AgentStatus::Paused))
    {
        return Note::without_warning("no node agent serves the Service yet; waiting for the agents");
    }
    let nodes: Vec<_> = expected_nodes().map(|node| node.name.clone()).collect();
    warning_note(format!(
        "the agents of the selected nodes ({}) have not reported for {LEASE_DURATION_SECONDS} s, or the nodes have no agent; \
         check their pods: {SHOW_AGENTS_COMMAND}",
        join_first_items(&nodes)
    ))
}
