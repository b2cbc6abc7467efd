//! `akrobateo ports`: the owner of each port of the nodes, and the Services that wait for the port. Pure.

use std::collections::{BTreeMap, BTreeSet};

use akrobateo_core::HostPort;
use akrobateo_services::allocation::AllocationResult;
use akrobateo_services::key::ServiceKey;
use akrobateo_services::node_info::NodeInfo;
use k8s_openapi::serde::Serialize;

use super::output::Style;
use super::service_report::ServiceReport;
use super::table::{Cell, format_table, join_first_items};

/// The maximum number of nodes in a row of the table. The JSON and YAML output contains all nodes.
const MAX_LISTED_NODES: usize = 5;

/// A port with one of its owners. Scripts read the JSON output, so its keys must not change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(crate = "k8s_openapi::serde", rename_all = "camelCase")]
pub(super) struct PortRow {
    port: u16,
    /// `TCP` or `UDP`.
    protocol: String,
    /// The Service that has the port, `namespace/name`.
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

/// A port and one Service that has this port.
type OwnedPort<'a> = (HostPort, &'a ServiceKey);

/// Returns a row for each port and owner, ordered by port.
pub(super) fn port_rows(reports: &[ServiceReport], nodes: &[NodeInfo]) -> Vec<PortRow> {
    let mut proxy_nodes: BTreeMap<OwnedPort, Vec<String>> = BTreeMap::new();
    let mut waiting_services: BTreeMap<OwnedPort, BTreeSet<String>> = BTreeMap::new();
    for report in reports {
        let node_names: Vec<_> = report.proxy_nodes().iter().map(|node| node.name.clone()).collect();
        for port in report.host_ports().into_iter().filter(|_| !node_names.is_empty()) {
            proxy_nodes.insert((port, &report.key), node_names.clone());
        }
        if let Some(AllocationResult::Accepted(_, allocation)) = &report.state.allocation_result {
            for conflict in &allocation.conflicts {
                let services = waiting_services.entry((conflict.port, &conflict.owner)).or_default();
                services.insert(report.key.to_string());
            }
        }
    }
    let owned_ports: BTreeSet<_> = proxy_nodes.keys().chain(waiting_services.keys()).copied().collect();
    let port_row = |owned_port: OwnedPort| {
        let (HostPort { protocol, port }, owner) = owned_port;
        let node_names = proxy_nodes.get(&owned_port);
        let all_node_names = || nodes.iter().map(|node| node.name.clone()).collect();
        PortRow {
            port,
            protocol: protocol.api_name().to_owned(),
            owner: owner.to_string(),
            // If the owner has no proxy, the conflict comes from a nodePort of the owner.
            is_node_port: node_names.is_none(),
            is_on_all_nodes: node_names.is_none_or(|names| names.len() == nodes.len()),
            nodes: node_names.cloned().unwrap_or_else(all_node_names),
            waiting_services: waiting_services.get(&owned_port).into_iter().flatten().cloned().collect(),
        }
    };
    let mut rows: Vec<_> = owned_ports.into_iter().map(port_row).collect();
    rows.sort_by(|a, b| (a.port, &a.protocol).cmp(&(b.port, &b.protocol)));
    rows
}

/// Returns the table of all rows.
pub(super) fn format_rows(rows: &[PortRow]) -> String {
    if rows.is_empty() {
        return "no Service uses a port of the nodes\n".to_owned();
    }
    let cells: Vec<_> = rows.iter().map(PortRow::cells).collect();
    format_table(&["PORT", "SERVICE", "NODES", "WAITING"], &cells, Style::Plain)
}

/// Returns the rows about these ports, and drops all other rows.
pub(super) fn filter_rows(rows: Vec<PortRow>, ports: &BTreeSet<HostPort>) -> Vec<PortRow> {
    let port_names: BTreeSet<_> = ports.iter().map(ToString::to_string).collect();
    rows.into_iter().filter(|row| port_names.contains(&row.port_name())).collect()
}
