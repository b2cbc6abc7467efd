//! Describes the ports that node agents refuse to a Service. Also describes the served ports that a pod or a process
//! also uses. Pure.

use std::collections::BTreeMap;

use akrobateo_services::agent_report::{PortOwner, PortProblem};
use akrobateo_services::allocation::{Conflict, ConflictScope};
use akrobateo_services::key::ServiceKey;

use super::agent_status::{AgentStatus, service_problems};
use super::condition::conflict_solution;
use super::note::{Note, join_first_items};
use super::shared_service::SharedService;
use crate::reason::Reason;

/// The descriptions of the Service's ports that have other owners. If an owner has a port on several nodes, the
/// description names only the first node.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// The descriptions of ports that belong to other Services.
    conflict_descriptions: Vec<String>,
    /// True if at least one of these ports belongs to the other Service only on some nodes.
    has_conflict_on_some_nodes: bool,
    /// The descriptions of ports that pods or processes of the nodes use.
    port_in_use_descriptions: Vec<String>,
}

impl Refusals {
    /// Finds the ports that the agents refuse on nodes that should serve the Service, and the conflicts that the port
    /// allocation found on other nodes.
    pub(super) fn find(shared: &SharedService) -> Self {
        let mut problems: BTreeMap<(String, PortOwner), String> = BTreeMap::new();
        for node in shared.state.nodes.iter().filter(|node| shared.is_expected_to_serve(node)) {
            if let AgentStatus::Refusing(refused) = shared.agent_status(node) {
                for PortProblem { port, owner, .. } in refused {
                    problems.entry((port.clone(), owner.clone())).or_insert_with(|| node.name.clone());
                }
            }
        }
        let mut refusals = Self::default();
        for ((port, owner), node) in &problems {
            let node_port_text = describe_node_port(shared, port, owner);
            let is_node_port = node_port_text.is_some();
            let text = node_port_text.unwrap_or_else(|| describe_port_owner(port, node, owner));
            match owner {
                PortOwner::Service(_) => {
                    refusals.has_conflict_on_some_nodes |= !is_node_port;
                    refusals.conflict_descriptions.push(text);
                }
                PortOwner::Pod(_) | PortOwner::Process | PortOwner::Unreported => {
                    refusals.port_in_use_descriptions.push(text);
                }
            }
        }
        for conflict in &shared.allocation.conflicts {
            let owner = PortOwner::Service(conflict.owner.to_string());
            let is_served_on = |node: &str| {
                let node = shared.state.nodes.iter().find(|candidate| candidate.name == node);
                node.is_some_and(|node| *shared.agent_status(node) == AgentStatus::Serving)
            };
            let is_conflict_outdated =
                matches!(&conflict.scope, ConflictScope::Node(node) if is_served_on(node));
            if !is_conflict_outdated && !problems.contains_key(&(conflict.port.to_string(), owner)) {
                refusals.has_conflict_on_some_nodes |= matches!(conflict.scope, ConflictScope::Node(_));
                refusals.conflict_descriptions.push(conflict.to_string());
            }
        }
        refusals
    }

    /// Returns the reason of the first refusal; `None` if there is no refusal.
    pub(super) fn reason(&self) -> Option<Reason> {
        match (self.conflict_descriptions.is_empty(), self.port_in_use_descriptions.is_empty()) {
            (false, _) => Some(Reason::PortConflict),
            (true, false) => Some(Reason::PortInUse),
            (true, true) => None,
        }
    }

    /// Returns the notes for the condition.
    pub(super) fn notes(&self) -> impl Iterator<Item = Note> {
        let note = |port_descriptions: &[String], solution: &str, reason| {
            (!port_descriptions.is_empty()).then(|| Note {
                text: format!("{}; {solution}", join_first_items(port_descriptions)),
                warning_reason: Some(reason),
            })
        };
        let solution = conflict_solution(!self.has_conflict_on_some_nodes);
        let conflicts = note(&self.conflict_descriptions, solution, Reason::PortConflict);
        let solution = "use other ports, select other nodes, or stop the other program";
        conflicts.into_iter().chain(note(&self.port_in_use_descriptions, solution, Reason::PortInUse))
    }
}

/// Describes a refused port that is a nodePort or a healthCheckNodePort. The report of the agent has only the owner, so
/// the description comes from the port allocation.
fn describe_node_port(shared: &SharedService, port: &str, owner: &PortOwner) -> Option<String> {
    let is_same_port = |conflict: &&Conflict| {
        matches!(conflict.scope, ConflictScope::EveryNode(_))
            && conflict.port.to_string() == port
            && PortOwner::Service(conflict.owner.to_string()) == *owner
    };
    shared.allocation.conflicts.iter().find(is_same_port).map(ToString::to_string)
}

/// Returns a warning about the served ports that a pod or a process of the node also uses.
pub(super) fn doubly_used_ports_note(shared: &SharedService, key: &ServiceKey) -> Option<Note> {
    let mut descriptions = Vec::new();
    for node in shared.state.nodes.iter().filter(|node| *shared.agent_status(node) == AgentStatus::Serving) {
        let report = shared.state.agents.get(&node.name).map(|agent| &agent.observed_report.report);
        let problems =
            report.map(|report| service_problems(&report.doubly_used_ports, key)).unwrap_or_default();
        let port_descriptions =
            problems.iter().map(|problem| describe_port_owner(&problem.port, &node.name, &problem.owner));
        descriptions.extend(port_descriptions);
    }
    (!descriptions.is_empty()).then(|| Note {
        text: format!(
            "{}; this Service keeps the port, so clients outside the node do not reach the other program; change one of the \
             two ports",
            join_first_items(&descriptions)
        ),
        warning_reason: Some(Reason::PortInUse),
    })
}

/// Describes which Service, pod or process has the port on the node.
pub(crate) fn describe_port_owner(port: &str, node: &str, owner: &PortOwner) -> String {
    match owner {
        PortOwner::Service(service) => format!("port {port} on node {node} belongs to Service {service}"),
        PortOwner::Pod(pod) => format!("port {port} on node {node} is a hostPort of pod {pod}"),
        PortOwner::Process => format!("a process of node {node} listens on port {port}"),
        PortOwner::Unreported => format!(
            "a port has another owner on node {node}, which refuses so many Services that its report does not name the owner"
        ),
    }
}
