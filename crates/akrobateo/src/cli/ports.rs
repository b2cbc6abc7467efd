//! `akrobateo ports`: the owner of each port of the nodes, and the Services that wait for the port. Pure.

use std::collections::{BTreeMap, BTreeSet};

use akrobateo_core::HostPort;
use akrobateo_services::agent_report::PortOwner;
use akrobateo_services::allocation::{AllocationResult, ConflictScope};
use akrobateo_services::node_info::NodeInfo;
use k8s_openapi::serde::Serialize;

use super::output::Style;
use super::service_report::ServiceReport;
use super::table::{Cell, MAX_LISTED_NODES, format_table, join_first_items};
use crate::decide::AgentStatus;

/// A port with one of its owners. Scripts read the JSON output, so its keys must not change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(crate = "k8s_openapi::serde", rename_all = "camelCase")]
pub(super) struct PortRow {
    port: u16,
    /// `TCP` or `UDP`.
    protocol: String,
    /// The owner of the port: a Service (`namespace/name`), a pod, or a process of the node.
    pub(super) owner: String,
    /// True if the port is a nodePort of the owner. kube-proxy uses nodePorts on all nodes.
    #[serde(rename = "nodePort")]
    is_node_port: bool,
    /// The nodes on which the owner has the port.
    pub(super) nodes: Vec<String>,
    /// True if the owner has the port on all nodes.
    #[serde(rename = "allNodes")]
    is_on_all_nodes: bool,
    /// The Services that wait for the port on at least one of these nodes, `namespace/name`.
    #[serde(rename = "waiting")]
    waiting_services: Vec<String>,
}

impl PortRow {
    /// Returns the port in the form `80/TCP`.
    pub(super) fn port_name(&self) -> String {
        format!("{}/{}", self.port, self.protocol)
    }

    fn cells(&self) -> Vec<Cell> {
        let owner = if self.is_node_port { format!("{} (nodePort)", self.owner) } else { self.owner.clone() };
        let nodes = if self.is_on_all_nodes {
            "all".to_owned()
        } else {
            join_first_items(&self.nodes, MAX_LISTED_NODES)
        };
        [self.port_name(), owner, nodes, self.waiting_services.join(",")].map(Cell::new).into()
    }
}

/// A port and one owner of this port.
type OwnedPort = (HostPort, PortOwner);

/// Returns a row for each port and owner, ordered by port.
pub(super) fn port_rows(reports: &[ServiceReport], nodes: &[NodeInfo]) -> Vec<PortRow> {
    let mut owner_nodes: BTreeMap<OwnedPort, BTreeSet<String>> = BTreeMap::new();
    // The report about an owner does not list its nodes if the owner is rejected. The reports about other Services then
    // mention at least some of the nodes.
    let mut nodes_in_conflict: BTreeMap<OwnedPort, BTreeSet<String>> = BTreeMap::new();
    let mut waiting_services: BTreeMap<OwnedPort, BTreeSet<String>> = BTreeMap::new();
    let mut node_ports: BTreeSet<OwnedPort> = BTreeSet::new();
    for report in reports {
        let node_names: BTreeSet<_> = report.owned_nodes().iter().map(|node| node.name.clone()).collect();
        let owner = PortOwner::Service(report.key.to_string());
        for port in report.host_ports().into_iter().filter(|_| !node_names.is_empty()) {
            owner_nodes.insert((port, owner.clone()), node_names.clone());
        }
        if let Some(AllocationResult::Accepted(_, allocation)) = &report.state.allocation_result {
            for conflict in &allocation.conflicts {
                let owned_port = (conflict.port, PortOwner::Service(conflict.owner.to_string()));
                match &conflict.scope {
                    ConflictScope::Node(node) => {
                        nodes_in_conflict.entry(owned_port.clone()).or_default().insert(node.clone());
                    }
                    ConflictScope::EveryNode(_) => _ = node_ports.insert(owned_port.clone()),
                }
                waiting_services.entry(owned_port).or_default().insert(report.key.to_string());
            }
        }
        for (node, port, owner) in refused_ports(report) {
            nodes_in_conflict.entry((port, owner.clone())).or_default().insert(node);
            waiting_services.entry((port, owner)).or_default().insert(report.key.to_string());
        }
    }
    let owned_ports: BTreeSet<_> = owner_nodes.keys().chain(waiting_services.keys()).cloned().collect();
    let port_row = |owned_port: OwnedPort| {
        let (HostPort { protocol, port }, owner) = &owned_port;
        let is_node_port = node_ports.contains(&owned_port);
        let node_names = owner_nodes
            .get(&owned_port)
            .or_else(|| nodes_in_conflict.get(&owned_port))
            .filter(|_| !is_node_port);
        let all_node_names = || nodes.iter().map(|node| node.name.clone()).collect();
        PortRow {
            port: *port,
            protocol: protocol.api_name().to_owned(),
            owner: describe_owner(owner),
            is_node_port,
            is_on_all_nodes: node_names.is_none_or(|names| names.len() == nodes.len()),
            nodes: node_names.map_or_else(all_node_names, |names| names.iter().cloned().collect()),
            waiting_services: waiting_services.get(&owned_port).into_iter().flatten().cloned().collect(),
        }
    };
    let mut rows: Vec<_> = owned_ports.into_iter().map(port_row).collect();
    rows.sort_by(|a, b| (a.port, &a.protocol).cmp(&(b.port, &b.protocol)));
    rows
}

/// Returns the ports that agents refuse to the Service: the node, the port and the owner of the port.
fn refused_ports(report: &ServiceReport) -> Vec<(String, HostPort, PortOwner)> {
    let mut refused_ports = Vec::new();
    for node in report.state.nodes.iter().filter(|_| report.is_shared()) {
        if let AgentStatus::Refusing(problems) = report.agent_status(node) {
            for problem in problems {
                let ports = report.host_ports();
                let port = ports.into_iter().find(|port| port.to_string() == problem.port);
                refused_ports.extend(port.map(|port| (node.name.clone(), port, problem.owner)));
            }
        }
    }
    refused_ports
}

fn describe_owner(owner: &PortOwner) -> String {
    match owner {
        PortOwner::Service(service) => service.clone(),
        PortOwner::Pod(pod) => format!("pod {pod}"),
        PortOwner::Process => "a process of the node".to_owned(),
        PortOwner::Unreported => "unknown".to_owned(),
    }
}

/// Returns the table of all rows.
pub(super) fn format_rows(rows: &[PortRow]) -> String {
    if rows.is_empty() {
        return "no Service uses a port of the nodes\n".to_owned();
    }
    let cells: Vec<_> = rows.iter().map(PortRow::cells).collect();
    format_table(&["PORT", "OWNER", "NODES", "WAITING"], &cells, Style::Plain)
}

/// Returns the rows about these ports, and drops all other rows.
pub(super) fn filter_rows(rows: Vec<PortRow>, ports: &BTreeSet<HostPort>) -> Vec<PortRow> {
    let port_names: BTreeSet<_> = ports.iter().map(ToString::to_string).collect();
    rows.into_iter().filter(|row| port_names.contains(&row.port_name())).collect()
}
