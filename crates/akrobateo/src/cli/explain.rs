//! `akrobateo explain`: the proxies of one Service, each node with the reason for its state, and the ports. Pure.

use std::fmt::Write as _;

use akrobateo_services::agent_report::PortProblem;
use akrobateo_services::allocation::AllocationResult;
use akrobateo_services::key::ServiceKey;
use akrobateo_services::node_info::NodeInfo;
use akrobateo_services::spec::LoadBalancerSpec;
use k8s_openapi::serde::Serialize;

use super::cluster::Cluster;
use super::error::CliError;
use super::output::{Health, Style};
use super::ports::{self, PortRow};
use super::service_report::ServiceReport;
use super::status::StatusRow;
use super::table::{Cell, MAX_LISTED_NODES, format_table, join_first_items};
use crate::decide::{
    Action, AgentStatus, Exposure, OutdatedProxy, ProxyDecision, Workload, describe_port_owner,
    local_traffic_policy, plan_actions, service_problems,
};
use crate::reason::Reason;

/// The explanation of one Service. Scripts read the JSON output, so its keys must not change.
#[derive(Clone, Debug, Serialize)]
#[serde(crate = "k8s_openapi::serde", rename_all = "camelCase")]
pub(super) struct Explanation {
    #[serde(flatten)]
    status: StatusRow,
    external_traffic_policy: Option<String>,
    /// The reasons of the Warning events that belong to the message.
    warnings: Vec<&'static str>,
    /// The workload that runs the proxies, for example `DaemonSet akrobateo-proxies/akrobateo-default-web-ca4088a856`.
    #[serde(rename = "proxies")]
    workload: Option<String>,
    /// The arguments of the proxies' container.
    arguments: Vec<String>,
    /// The names of the nodes with a ready endpoint of the Service.
    nodes_with_endpoint: Vec<String>,
    nodes: Vec<NodeExplanation>,
    ports: Vec<PortRow>,
    /// The actions that the operator has not completed yet.
    #[serde(rename = "pending")]
    pending_actions: Vec<String>,
}

/// The state of the Service on one node, with the reason.
#[derive(Clone, Debug, Serialize)]
#[serde(crate = "k8s_openapi::serde", rename_all = "camelCase")]
struct NodeExplanation {
    name: String,
    /// True if the node should have a proxy, or if its agent should serve the Service.
    should_have_proxy: bool,
    /// True if the node has a ready proxy, or if its agent serves the Service.
    #[serde(rename = "ready")]
    has_ready_proxy: bool,
    /// The state of the proxy or of the agent, as the table shows it.
    state: &'static str,
    /// True if the Service's status contains an address of the node.
    #[serde(rename = "published")]
    is_published: bool,
    why: String,
}

/// Explains a Service, or the remaining proxies of a deleted Service.
pub(super) fn explain(cluster: &Cluster, key: &ServiceKey) -> Result<Explanation, CliError> {
    let found_report = cluster.service_reports.iter().find(|report| report.key == *key);
    let report = found_report.ok_or_else(|| CliError::ServiceNotFound(key.clone()))?;
    let port_rows = ports::port_rows(&cluster.service_reports, &cluster.nodes);
    let (workload, arguments) = match &report.decision.proxy {
        ProxyDecision::RunWorkload(workload) => (Some(workload.full_name()), workload.arguments()),
        ProxyDecision::KeepWorkloads => (report.state.workloads.first().map(Workload::full_name), Vec::new()),
        ProxyDecision::DeleteWorkloads => (None, Vec::new()),
    };
    let nodes = report.state.nodes.iter().map(|node| NodeExplanation::new(report, node, &port_rows));
    let exposure = report.decision.status.as_ref().and_then(|status| status.exposure.as_ref());
    let warnings = exposure.map(Exposure::warning_reasons).unwrap_or_default();
    let actions = plan_actions(&cluster.operator_instance, &report.state, &report.decision, cluster.now);
    Ok(Explanation {
        status: StatusRow::new(report, cluster.defaults.is_default_class),
        external_traffic_policy: report.service_spec().and_then(|spec| spec.external_traffic_policy.clone()),
        warnings: warnings.into_iter().map(Reason::as_str).collect(),
        workload,
        arguments,
        nodes_with_endpoint: report.state.nodes_with_ready_endpoint.iter().cloned().collect(),
        nodes: nodes.collect(),
        ports: ports::filter_rows(port_rows, &report.host_ports()),
        pending_actions: actions.iter().filter_map(describe_action).collect(),
    })
}

impl NodeExplanation {
    fn new(report: &ServiceReport, node: &NodeInfo, port_rows: &[PortRow]) -> Self {
        let outdated_proxy =
            report.decision.rollout.outdated_proxies.iter().find(|proxy| proxy.node == node.name);
        let should_have_proxy = report.proxy_nodes().iter().any(|proxy_node| proxy_node.name == node.name);
        let has_ready_proxy = report.has_ready_proxy_on_node(node);
        Self {
            name: node.name.clone(),
            should_have_proxy,
            has_ready_proxy,
            state: match (should_have_proxy, has_ready_proxy) {
                _ if matches!(report.agent_status(node), AgentStatus::Refusing(_)) => "refuses",
                (true, true) => "ready",
                (true, false) => "not ready",
                (false, _) => "none",
            },
            is_published: report.is_published(node),
            why: [explain_node(report, node, should_have_proxy, port_rows)]
                .into_iter()
                .filter(|reason| !reason.is_empty())
                .chain(outdated_proxy.map(explain_outdated_proxy))
                .collect::<Vec<_>>()
                .join("; "),
        }
    }

    fn cells(&self) -> Vec<Cell> {
        let proxy = match self.state {
            "none" => Cell::new("-"),
            "ready" => Cell::with_health("ready", Health::Healthy),
            state => Cell::with_health(state, Health::Failing),
        };
        let published_cell = Cell::new(if self.is_published { "yes" } else { "no" });
        vec![Cell::new(&self.name), proxy, published_cell, Cell::new(&self.why)]
    }
}

/// Returns the reason why the node lacks a ready proxy, a serving agent or a published address. The text is empty if
/// nothing is missing.
fn explain_node(
    report: &ServiceReport,
    node: &NodeInfo,
    should_have_proxy: bool,
    port_rows: &[PortRow],
) -> String {
    let Some(allocation_result) = &report.state.allocation_result else {
        return "Akrobateo does not serve the Service".to_owned();
    };
    if let Some(exclusion_reason) = node.exclusion_reason.as_ref().filter(|_| should_have_proxy) {
        return format!("not published: {exclusion_reason}");
    }
    let reason = match allocation_result {
        AllocationResult::Rejected(_) if should_have_proxy && !report.is_kept_by_agents() => {
            "the previous proxy keeps running; the Service's spec is rejected"
        }
        AllocationResult::Rejected(_) if should_have_proxy && report.has_ready_proxy_on_node(node) => {
            "the node agent keeps the previous settings; the Service's spec is rejected"
        }
        AllocationResult::Rejected(_) if should_have_proxy => {
            "the node agent does not serve the Service; the Service's spec is rejected"
        }
        AllocationResult::Rejected(_) => "the Service is rejected",
        AllocationResult::Accepted(spec, _) if !spec.nodes.matches(node) && !node.is_linux => {
            "not selected: the node does not run Linux"
        }
        AllocationResult::Accepted(spec, _) if !spec.nodes.matches(node) => {
            "not selected: its labels do not match, or one of its taints is not tolerated"
        }
        AllocationResult::Accepted(spec, _)
            if spec.is_external_traffic_policy_local
                && (spec.is_shared() || !report.state.nodes_with_ready_endpoint.is_empty())
                && !report.state.nodes_with_ready_endpoint.contains(&node.name)
                && !matches!(report.agent_status(node), AgentStatus::Refusing(_)) =>
        {
            "externalTrafficPolicy is Local and the node has no ready endpoint"
        }
        AllocationResult::Accepted(spec, _) if spec.is_shared() => {
            return explain_agent(report, node, port_rows, should_have_proxy);
        }
        AllocationResult::Accepted(..) if !should_have_proxy => {
            return explain_conflict(report, node, port_rows);
        }
        AllocationResult::Accepted(spec, _) => return explain_selected_node(report, spec, node),
    };
    reason.to_owned()
}

/// Explains why the agent of a node does not serve the Service. Also lists the pods and processes that use the
/// Service's ports, and the error in the node's annotation.
fn explain_agent(
    report: &ServiceReport,
    node: &NodeInfo,
    port_rows: &[PortRow],
    should_serve: bool,
) -> String {
    let describe_problem =
        |problem: &PortProblem| describe_port_owner(&problem.port, &node.name, &problem.owner);
    let unpublished_node =
        report.decision.unpublished_nodes.iter().find(|unpublished_node| unpublished_node.node == node.name);
    let mut reasons = match report.agent_status(node) {
        AgentStatus::Refusing(problems) => problems.iter().map(describe_problem).collect(),
        AgentStatus::Serving => Vec::new(),
        AgentStatus::Absent => vec!["the node has no node agent".to_owned()],
        AgentStatus::Silent => vec!["the node agent does not report".to_owned()],
        AgentStatus::Paused => vec!["the node agent restarts".to_owned()],
        AgentStatus::Failing(error) => vec![format!("the node agent fails: {error}")],
        AgentStatus::Outdated => vec!["the node agent does not serve the Service yet".to_owned()],
    };
    if reasons.is_empty() && !should_serve {
        reasons.push(explain_conflict(report, node, port_rows));
    } else if let Some(unpublished_node) = unpublished_node.filter(|_| reasons.is_empty()) {
        reasons.push(format!("not published: {}", unpublished_node.cause));
    }
    let agent = report.state.agents.get(&node.name).map(|agent| &agent.observed_report.report);
    let doubly_used_ports =
        agent.map(|agent| service_problems(&agent.doubly_used_ports, &report.key)).unwrap_or_default();
    reasons.extend(doubly_used_ports.iter().map(describe_problem));
    reasons.extend(node.address_error.as_ref().map(ToString::to_string));
    reasons.join("; ")
}

/// Returns the reason why a node with a proxy is not published, and the error in the node's annotation.
fn explain_selected_node(report: &ServiceReport, spec: &LoadBalancerSpec, node: &NodeInfo) -> String {
    let policy = local_traffic_policy(spec, node)
        .filter(|_| !report.state.nodes_with_ready_endpoint.contains(&node.name));
    let unpublished_node =
        report.decision.unpublished_nodes.iter().find(|unpublished_node| unpublished_node.node == node.name);
    let reason = if let Some(unpublished_node) = unpublished_node {
        Some(format!("not published: {}", unpublished_node.cause))
    } else if !report.has_pod_on_node(node) {
        Some("no proxy pod runs on the node".to_owned())
    } else if let Some(policy) = policy {
        Some(format!("{policy} is Local and the node has no ready endpoint"))
    } else if report.has_ready_proxy_on_node(node) {
        None
    } else {
        Some("the proxy is not ready".to_owned())
    };
    let address_error = node.address_error.as_ref().map(ToString::to_string);
    reason.into_iter().chain(address_error).collect::<Vec<_>>().join("; ")
}

fn explain_outdated_proxy(proxy: &OutdatedProxy) -> String {
    let delay = proxy.delay.as_ref().map_or_else(|| "it is replaced soon".to_owned(), ToString::to_string);
    format!("the proxy still forwards with the previous configuration: {delay}")
}

/// Describes the first port of this Service that belongs to another Service on the node.
fn explain_conflict(report: &ServiceReport, node: &NodeInfo, port_rows: &[PortRow]) -> String {
    let rows = ports::filter_rows(port_rows.to_vec(), &report.host_ports());
    let key = report.key.to_string();
    let conflicting_row = rows.iter().find(|row| row.owner != key && row.nodes.contains(&node.name));
    conflicting_row.map_or_else(
        || "one of the ports of the Service belongs to another Service".to_owned(),
        |row| format!("{} belongs to {}", row.port_name(), row.owner),
    )
}

/// Describes an action. Returns `None` for an event, because events only report the other actions.
fn describe_action(action: &Action) -> Option<String> {
    match action {
        Action::Apply(workload) => Some(format!("apply {}", workload.full_name())),
        Action::Delete(workload) => Some(format!("delete {}", workload.full_name())),
        Action::DeleteKeepingPods(workload) => Some(format!(
            "recreate {}, because another field manager added fields to it",
            workload.full_name()
        )),
        Action::DeletePod(pod) => Some(format!("replace the proxy pod {} on node {}", pod.name, pod.node)),
        Action::PatchStatus { addresses, condition, .. } => {
            let addresses: Vec<_> = addresses.iter().filter_map(|entry| entry.ip.as_deref()).collect();
            let addresses =
                if addresses.is_empty() { "no addresses".to_owned() } else { addresses.join(", ") };
            let reason = condition.as_ref().map(|condition| format!(", reason {}", condition.reason));
            Some(format!("write the status: {addresses}{}", reason.unwrap_or_default()))
        }
        Action::EmitEvent { .. } => None,
    }
}

impl Explanation {
    /// Describes the nodes with ready endpoints. Endpoints without a node, which only other programs create, are
    /// possible.
    fn describe_endpoints(&self) -> String {
        if self.nodes_with_endpoint.is_empty() {
            return "no node has a ready endpoint".to_owned();
        }
        format!("ready on {}", join_first_items(&self.nodes_with_endpoint, MAX_LISTED_NODES))
    }

    pub(super) fn is_failing(&self) -> bool {
        self.status.is_failing()
    }

    /// Returns the explanation as text for a terminal.
    pub(super) fn format(&self, style: Style) -> String {
        let mut text = self.status.format_summary(style);
        let properties = [
            ("warnings", self.warnings.join(", ")),
            ("policy", self.external_traffic_policy.clone().unwrap_or_default()),
            ("endpoints", self.describe_endpoints()),
            ("mode", self.status.describe_mode()),
            ("proxies", self.workload.clone().unwrap_or_default()),
            ("arguments", self.arguments.join(" ")),
            ("addresses", self.status.joined_addresses()),
        ];
        for (name, value) in properties.into_iter().filter(|(_, value)| !value.is_empty()) {
            let _ = writeln!(text, "  {name:<10} {value}");
        }
        let program_heading = if self.status.has_proxies() { "PROXY" } else { "AGENT" };
        let nodes: Vec<_> = self.nodes.iter().map(NodeExplanation::cells).collect();
        let _ =
            write!(text, "\n{}", format_table(&["NODE", program_heading, "PUBLISHED", "WHY"], &nodes, style));
        if !self.ports.is_empty() {
            let _ = write!(text, "\n{}", ports::format_rows(&self.ports));
        }
        if !self.pending_actions.is_empty() {
            let _ = writeln!(text, "\n{}", style.make_bold("Pending actions of the operator"));
            self.pending_actions.iter().for_each(|action| _ = writeln!(text, "  {action}"));
        }
        text
    }
}

#[cfg(test)]
mod tests;
