//! `akrobateo nodes`: one row for the agent of each node. Pure.

use akrobateo_services::agent_report::{AgentReport, ConntrackUse, MasqueradedPeer};
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::serde::Serialize;

use super::cluster::Cluster;
use super::output::{Health, Style};
use super::table::{Cell, format_table, join_first_items};
use crate::decide::AgentState;

/// The maximum number of peers in a row of the table. The JSON and YAML output contains all peers.
const MAX_LISTED_PEERS: usize = 2;

/// A row about one node. Scripts read the JSON output, so its keys must not change.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(crate = "k8s_openapi::serde", rename_all = "camelCase")]
pub(super) struct NodeRow {
    name: String,
    /// The state of the agent: `Ready`, `Paused`, `Silent`, `Failing` or `NoAgent`.
    state: &'static str,
    /// The error of the agent.
    error: Option<String>,
    /// The version of the agent.
    version: Option<String>,
    /// The age of the report in seconds. The age is inexact if the clocks of this machine and of the node differ.
    report_age_seconds: Option<i64>,
    /// The number of Services that the agent serves.
    served: usize,
    /// The Services that the agent refuses, `namespace/name`.
    refused: Vec<String>,
    conntrack: Option<ConntrackRow>,
    /// The peers whose endpoints do not see the client's address, because the agent masquerades packets to these
    /// endpoints.
    masqueraded_peers: Vec<PeerRow>,
}

/// The use of conntrack on a node.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(crate = "k8s_openapi::serde", rename_all = "camelCase")]
struct ConntrackRow {
    entries: u64,
    max: u64,
}

/// A peer whose endpoints do not see the client's address.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(crate = "k8s_openapi::serde", rename_all = "camelCase")]
struct PeerRow {
    node: String,
    reason: String,
}

impl NodeRow {
    fn new(name: &str, agent: Option<&AgentState>, now: Timestamp) -> Self {
        let report = agent.map(|agent| &*agent.observed_report.report);
        let state = match (agent, report) {
            (Some(agent), _) if agent.observed_report.is_silent => "Silent",
            (_, Some(AgentReport { is_paused: true, .. })) => "Paused",
            (_, Some(report)) if report.error.is_some() || report.applied_versions.is_none() => "Failing",
            (Some(_), _) => "Ready",
            (None, _) => "NoAgent",
        };
        let age = |renewed_at: Timestamp| now.duration_since(renewed_at).as_secs().max(0);
        let refused = report.map(AgentReport::all_refused_services).unwrap_or_default();
        let refused: Vec<_> = refused.into_iter().map(str::to_owned).collect();
        Self {
            name: name.to_owned(),
            state,
            error: report.and_then(|report| report.error.clone()),
            version: report.map(|report| report.version.clone()),
            report_age_seconds: agent.and_then(|agent| agent.renewed_at).map(age),
            served: report.map_or(0, |report| report.served_count),
            refused,
            conntrack: report
                .and_then(|report| report.conntrack)
                .map(|ConntrackUse { count, max }| ConntrackRow { entries: count, max }),
            masqueraded_peers: report
                .into_iter()
                .flat_map(|report| report.masqueraded_peers.iter().cloned())
                .map(|MasqueradedPeer { node, reason }| PeerRow { node, reason })
                .collect(),
        }
    }

    fn cells(&self) -> Vec<Cell> {
        let health = match self.state {
            "Ready" => Health::Healthy,
            "NoAgent" | "Paused" => Health::NotApplicable,
            _ => Health::Failing,
        };
        let age = self.report_age_seconds.map(|seconds| format!("{seconds} s")).unwrap_or_default();
        let has_agent = self.version.is_some();
        let number_cell = |number: usize| if has_agent { number.to_string() } else { String::new() };
        let conntrack = self.conntrack.as_ref();
        let conntrack =
            conntrack.map(|ConntrackRow { entries, max }| format!("{entries}/{max}")).unwrap_or_default();
        let peers: Vec<_> =
            self.masqueraded_peers.iter().map(|peer| format!("{} ({})", peer.node, peer.reason)).collect();
        let client_address = match (has_agent, peers.is_empty()) {
            (false, _) => String::new(),
            (true, true) => "kept".to_owned(),
            (true, false) => format!("masqueraded to {}", join_first_items(&peers, MAX_LISTED_PEERS)),
        };
        let error_note = self.error.clone().map(|error| format!("; error: {error}")).unwrap_or_default();
        vec![
            Cell::new(&self.name),
            Cell::with_health(self.state, health),
            Cell::new(self.version.clone().unwrap_or_default()),
            Cell::new(age),
            Cell::new(number_cell(self.served)),
            Cell::new(number_cell(self.refused.len())),
            Cell::new(conntrack),
            Cell::new(format!("{client_address}{error_note}")),
        ]
    }
}

/// Returns a row for each node.
pub(super) fn node_rows(cluster: &Cluster) -> Vec<NodeRow> {
    let nodes = cluster.nodes.iter();
    nodes.map(|node| NodeRow::new(&node.name, cluster.agents.get(&node.name), cluster.now)).collect()
}

/// Returns the table of all rows.
pub(super) fn format_rows(rows: &[NodeRow], style: Style) -> String {
    if rows.is_empty() {
        return "no nodes\n".to_owned();
    }
    let headings = ["NODE", "AGENT", "VERSION", "REPORT", "SERVED", "REFUSED", "CONNTRACK", "CLIENT ADDRESS"];
    let cells: Vec<_> = rows.iter().map(NodeRow::cells).collect();
    format_table(&headings, &cells, style)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures::cluster;
    use crate::decide::fixtures::{agent, node, port_problem};
    use akrobateo_services::agent_report::PortOwner;

    #[test]
    fn rows_show_the_state_of_each_agent() {
        let nodes = ["n1", "n2", "n3", "n4"].map(|name| node(name).build());
        let mut cluster = cluster(Vec::new(), &nodes, Vec::new());
        cluster.now = k8s_openapi::jiff::Timestamp::from_second(1003).unwrap();
        let serving_agent = agent("n1").with_changed_report(|report| {
            report.served_count = 12;
            report.refused_ports = vec![port_problem(PortOwner::Process), port_problem(PortOwner::Process)];
            report.conntrack = Some(ConntrackUse { count: 10, max: 200 });
            let reason = "it has no agent".to_owned();
            report.masqueraded_peers = vec![MasqueradedPeer { node: "n4".to_owned(), reason }];
        });
        let failing_agent =
            agent("n3").with_changed_report(|report| report.error = Some("no nf_tables".to_owned()));
        let agents = [serving_agent, agent("n2").silent(), failing_agent];
        cluster.agents = agents.map(|agent| (agent.observed_report.report.node.clone(), agent)).into();
        let rows = node_rows(&cluster);
        assert_eq!(
            format_rows(&rows, Style::Plain),
            "NODE   AGENT     VERSION   REPORT   SERVED   REFUSED   CONNTRACK   CLIENT ADDRESS\n\
             n1     Ready     0.1.0     3 s      12       1         10/200      masqueraded to n4 (it has no agent)\n\
             n2     Silent    0.1.0     3 s      0        0         -           kept\n\
             n3     Failing   0.1.0     3 s      0        0         -           kept; error: no nf_tables\n\
             n4     NoAgent   -         -        -        -         -\n"
        );
        let value = k8s_openapi::serde_json::to_value(&rows).unwrap();
        assert_eq!(value[0]["refused"][0], "default/web");
        assert_eq!(value[0]["reportAgeSeconds"], 3);
    }
}
