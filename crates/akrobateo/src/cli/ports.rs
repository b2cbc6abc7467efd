//! `akrobateo ports`: which Service has which port on which nodes, and who waits for it.

use std::collections::{BTreeMap, BTreeSet};

use akrobateo_core::HostPort;
use k8s_openapi::serde::Serialize;

use super::output::Style;
use super::service_report::ServiceReport;
use super::table::{Cell, table};
use crate::allocation::Admission;
use crate::key::ServiceKey;
use crate::node_info::NodeInfo;

/// Nodes in a line of the table; JSON and YAML have them all.
const SHOWN: usize = 5;

/// A port that a Service has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(crate = "k8s_openapi::serde", rename_all = "camelCase")]
pub(super) struct Row {
    port: u16,
    protocol: String,
    /// `namespace/name`.
    pub(super) owner: String,
    /// Whether it is the owner's nodePort, which kube-proxy holds on all nodes.
    node_port: bool,
    pub(super) nodes: Vec<String>,
    all_nodes: bool,
    /// Services that want it on some of these nodes too, `namespace/name`.
    waiting: Vec<String>,
}

impl Row {
    /// As people write it: `80/TCP`.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.port, self.protocol)
    }
}

/// Who has what: a line for each port and owner, by port.
pub(super) fn rows(subjects: &[ServiceReport], nodes: &[NodeInfo]) -> Vec<Row> {
    let mut holders: BTreeMap<(HostPort, &ServiceKey), Vec<String>> = BTreeMap::new();
    let mut waiting: BTreeMap<(HostPort, &ServiceKey), BTreeSet<String>> = BTreeMap::new();
    for subject in subjects {
        let (ports, on) = subject.holds();
        for port in ports.into_iter().filter(|_| !on.is_empty()) {
            holders.insert((port, &subject.key), on.iter().map(|node| node.name.clone()).collect());
        }
        if let Some(Admission::Accepted(_, verdict)) = &subject.observed.admission {
            for conflict in &verdict.conflicts {
                let waits = waiting.entry((conflict.port, &conflict.owner)).or_default();
                waits.insert(subject.key.to_string());
            }
        }
    }
    let all: BTreeSet<_> = holders.keys().chain(waiting.keys()).copied().collect();
    let row = |held: (HostPort, &ServiceKey)| {
        let (HostPort { protocol, port }, owner) = held;
        let on = holders.get(&held);
        Row {
            port,
            protocol: protocol.api_name().to_owned(),
            owner: owner.to_string(),
            // Only a nodePort is in others' way without proxies.
            node_port: on.is_none(),
            all_nodes: on.is_none_or(|on| on.len() == nodes.len()),
            nodes: on.cloned().unwrap_or_else(|| nodes.iter().map(|node| node.name.clone()).collect()),
            waiting: waiting.get(&held).into_iter().flatten().cloned().collect(),
        }
    };
    let mut rows: Vec<_> = all.into_iter().map(row).collect();
    rows.sort_by(|one, other| (one.port, &one.protocol).cmp(&(other.port, &other.protocol)));
    rows
}

/// The table for people.
pub(super) fn text(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no Service has a port of a node\n".to_owned();
    }
    let cells = |row: &Row| {
        let nodes = if row.all_nodes { "all".to_owned() } else { shortened(&row.nodes) };
        let owner = if row.node_port { format!("{} (nodePort)", row.owner) } else { row.owner.clone() };
        [row.name(), owner, nodes, row.waiting.join(",")].map(Cell::new).into()
    };
    let cells: Vec<_> = rows.iter().map(cells).collect();
    table(&["PORT", "SERVICE", "NODES", "WAITING"], &cells, Style(false))
}

/// The rows about a Service's ports.
pub(super) fn of(rows: Vec<Row>, ports: &BTreeSet<HostPort>) -> Vec<Row> {
    let ports: BTreeSet<_> = ports.iter().map(ToString::to_string).collect();
    rows.into_iter().filter(|row| ports.contains(&row.name())).collect()
}

fn shortened(nodes: &[String]) -> String {
    let shown = nodes.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(",");
    match nodes.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown},+{more}"),
    }
}
