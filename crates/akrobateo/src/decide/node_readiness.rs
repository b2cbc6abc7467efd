//! Decides if a node can answer for a Service. The decision depends on the proxy pods, or on the reports of the node
//! agents. Pure.

use std::collections::HashSet;

use akrobateo_services::key::ServiceKey;
use akrobateo_services::node_info::NodeInfo;
use akrobateo_services::spec::LoadBalancerSpec;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::agent_status::{AgentStatus, RequiredVersions, is_waiting_for_proxy};
use super::service_state::ServiceState;

/// The maximum time for which a published node stays published while its agent restarts, fails, or has not written the
/// newest rules. The earlier rules of the agent remain in the kernel during this time.
pub(super) const AGENT_GRACE_PERIOD: SignedDuration = SignedDuration::from_mins(1);

/// The readiness of a node for one Service. The variants are in ascending order: the last variant is the best
/// readiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum NodeReadiness {
    /// The node cannot answer.
    NotReady,
    /// The proxy of the node is being replaced, or the agent of the node has not finished a change. A published node
    /// stays published until the given time.
    Changing {
        /// The end of the grace period.
        grace_period_end: Timestamp,
    },
    /// The node can answer.
    Ready,
}

/// Returns the readiness of a node, as far as the Service's own proxies determine it.
///
/// The grace period starts when the operator sees that a pod was created or deleted. The period also starts when the
/// operator allocates the node to the Service. A failure of a proxy does not start a new grace period. `may_run_proxy`
/// is true if a new proxy may start on the node.
pub(super) fn proxy_readiness(
    state: &ServiceState,
    nodes_with_ready_pod: &HashSet<&str>,
    node: &NodeInfo,
    may_run_proxy: bool,
    grace_period: SignedDuration,
) -> NodeReadiness {
    if nodes_with_ready_pod.contains(node.name.as_str()) {
        return NodeReadiness::Ready;
    }
    let changed_at = state.pod_change_times.last_change_times.get(&node.name).filter(|_| may_run_proxy);
    changed_at.map_or(NodeReadiness::NotReady, |changed_at| NodeReadiness::Changing {
        grace_period_end: *changed_at + grace_period,
    })
}

/// Returns the status of a Service on a node, according to the agent of this node.
pub(crate) fn agent_status(
    state: &ServiceState,
    key: &ServiceKey,
    spec: &LoadBalancerSpec,
    node: &NodeInfo,
) -> AgentStatus {
    let observed_report = state.agents.get(&node.name).map(|agent| &agent.observed_report);
    let endpoint_version = spec
        .is_external_traffic_policy_local
        .then(|| state.endpoint_versions.get(&node.name))
        .flatten()
        .map_or(0, |endpoint| endpoint.version);
    let required_versions =
        RequiredVersions { service: state.version.version, endpoint_slices: endpoint_version };
    AgentStatus::new(observed_report, key, required_versions)
}

/// Returns the readiness of a node according to the report of its agent.
pub(super) fn agent_readiness(state: &ServiceState, node: &NodeInfo, status: &AgentStatus) -> NodeReadiness {
    let Some(agent) = state.agents.get(&node.name) else { return NodeReadiness::NotReady };
    match status {
        AgentStatus::Absent | AgentStatus::Silent | AgentStatus::Refusing(_) => NodeReadiness::NotReady,
        AgentStatus::Paused => NodeReadiness::Changing { grace_period_end: agent.silent_at },
        AgentStatus::Failing(_) => {
            let since = agent.failing_since.unwrap_or(state.version.seen_at);
            NodeReadiness::Changing { grace_period_end: since + AGENT_GRACE_PERIOD }
        }
        AgentStatus::Outdated => {
            let endpoint = state.endpoint_versions.get(&node.name).map(|endpoint| endpoint.seen_at);
            let change_times = [Some(state.version.seen_at), endpoint, agent.failing_since];
            let since = change_times.into_iter().flatten().max().unwrap_or(state.version.seen_at);
            NodeReadiness::Changing { grace_period_end: since + AGENT_GRACE_PERIOD }
        }
        AgentStatus::Serving => NodeReadiness::Ready,
    }
}

/// Returns the readiness of a node according to the report of its agent, for a Service that has moved from shared to
/// dedicated mode. The agent serves such a Service until a proxy is ready on the node.
pub(super) fn previous_agent_readiness(
    state: &ServiceState,
    key: &ServiceKey,
    node: &NodeInfo,
) -> NodeReadiness {
    let Some(agent) = state.agents.get(&node.name).filter(|agent| !agent.observed_report.is_silent) else {
        return NodeReadiness::NotReady;
    };
    let report = &agent.observed_report.report;
    if is_waiting_for_proxy(report, key) {
        let is_paused = report.is_paused;
        return if is_paused {
            NodeReadiness::Changing { grace_period_end: agent.silent_at }
        } else {
            NodeReadiness::Ready
        };
    }
    // If the agent has not seen the change of the mode yet, the agent still serves the Service.
    if report.has_applied(state.version.version, 0) {
        NodeReadiness::NotReady
    } else {
        NodeReadiness::Changing { grace_period_end: state.version.seen_at + AGENT_GRACE_PERIOD }
    }
}
