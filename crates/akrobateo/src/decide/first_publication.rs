//! Decides how long the first status write of a Service waits for the node agents. Without this delay, the report of
//! each agent would cause a status write of its own. Pure.

use akrobateo_services::published::published_addresses;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::agent_status::AgentStatus;
use super::shared_service::SharedService;

/// The time for which the operator waits for the first agent that serves a new Service. After this time, the condition
/// says that no agent serves the Service.
const MAX_WAIT_FOR_FIRST_AGENT: SignedDuration = SignedDuration::from_secs(1);
/// The time for which the operator waits for the other agents if one agent already serves the new Service. Agents
/// usually need less than 100 ms.
const MAX_WAIT_FOR_OTHER_AGENTS: SignedDuration = SignedDuration::from_millis(200);

/// Returns the earliest time of the first status write; `None` if the operator can write now.
///
/// A Service without an address waits until all agents of its nodes have applied the Service, but only for a short
/// time. A Service with an address never waits, so this function never delays the removal of an address.
pub(super) fn first_publication_time(shared: &SharedService, now: Timestamp) -> Option<Timestamp> {
    if !published_addresses(shared.service).is_empty() {
        return None;
    }
    let nodes = shared.state.nodes.iter();
    let expected_nodes =
        nodes.filter(|node| node.exclusion_reason.is_none() && shared.is_expected_to_serve(node));
    let agent_statuses: Vec<_> = expected_nodes.map(|node| shared.agent_status(node)).collect();
    if !agent_statuses.contains(&&AgentStatus::Outdated) {
        return None;
    }
    let is_served = agent_statuses.contains(&&AgentStatus::Serving);
    let timeout = if is_served { MAX_WAIT_FOR_OTHER_AGENTS } else { MAX_WAIT_FOR_FIRST_AGENT };
    Some(shared.state.version.seen_at + timeout).filter(|time| *time > now)
}
