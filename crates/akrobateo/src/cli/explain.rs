//! `akrobateo explain`: what is made for one Service, where, and why; who has its ports.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use akrobateo_core::HostPort;
use k8s_openapi::serde::Serialize;

use super::cluster::Cluster;
use super::error::CliError;
use super::output::Style;
use super::ports;
use super::service_report::ServiceReport;
use super::status::{self, Row};
use super::table::{Cell, table};
use crate::allocation::Admission;
use crate::decide::{Action, ProxyDecision, Workload, is_published, plan_actions};
use crate::key::ServiceKey;
use crate::node_info::NodeInfo;

/// Everything about one Service.
#[derive(Clone, Debug, Serialize)]
#[serde(crate = "k8s_openapi::serde", rename_all = "camelCase")]
pub(super) struct Explanation {
    #[serde(flatten)]
    status: Row,
    external_traffic_policy: Option<String>,
    /// What should run the proxies: `DaemonSet kube-system/akrobateo-default-web`.
    proxies: Option<String>,
    /// The proxies' arguments.
    arguments: Vec<String>,
    nodes: Vec<Node>,
    ports: Vec<ports::Row>,
    /// What the operator has still to do.
    pending: Vec<String>,
}

/// What is the matter with the Service on one node.
#[derive(Clone, Debug, Serialize)]
#[serde(crate = "k8s_openapi::serde", rename_all = "camelCase")]
struct Node {
    name: String,
    /// Whether it should have a proxy.
    chosen: bool,
    /// Whether it has one that answers.
    ready: bool,
    /// Whether its addresses are in the Service's status.
    published: bool,
    why: String,
}

/// Explains a Service, or what is left of it.
pub(super) fn explain(cluster: &Cluster, key: &ServiceKey) -> Result<Explanation, CliError> {
    let found = cluster.subjects.iter().find(|subject| subject.key == *key);
    let subject = found.ok_or_else(|| CliError::NoService(key.clone()))?;
    let spec = subject.service().and_then(|service| service.spec.as_ref());
    let table = ports::rows(&cluster.subjects, &cluster.nodes);
    let (proxies, arguments) = match &subject.decision.proxy {
        ProxyDecision::Present(workload) => (Some(named(workload)), workload.arguments()),
        ProxyDecision::Unchanged => (subject.observed.workloads.first().map(named), Vec::new()),
        ProxyDecision::Absent => (None, Vec::new()),
    };
    Ok(Explanation {
        status: status::row(subject, cluster.defaults.default_class),
        external_traffic_policy: spec.and_then(|spec| spec.external_traffic_policy.clone()),
        proxies,
        arguments,
        nodes: subject.observed.nodes.iter().map(|on| node(subject, on, &table)).collect(),
        ports: ports::of(table, &wanted_ports(subject)),
        pending: plan_actions(&subject.observed, &subject.decision, cluster.now)
            .iter()
            .filter_map(pending)
            .collect(),
    })
}

fn wanted_ports(subject: &ServiceReport) -> BTreeSet<HostPort> {
    match &subject.observed.admission {
        Some(Admission::Accepted(wish, _)) => wish.host_ports(),
        _ => subject.holds().0,
    }
}

fn node(subject: &ServiceReport, node: &NodeInfo, table: &[ports::Row]) -> Node {
    let chosen = subject.holds().1.iter().any(|held| held.name == node.name);
    let ready = subject.is_ready_on(node);
    Node {
        name: node.name.clone(),
        chosen,
        ready,
        published: subject.service().is_some_and(|service| is_published(service, node)),
        why: why(subject, node, chosen, ready, table),
    }
}

fn why(subject: &ServiceReport, node: &NodeInfo, chosen: bool, ready: bool, table: &[ports::Row]) -> String {
    let Some(case) = &subject.observed.admission else { return "the Service is not served".to_owned() };
    if let Some(exclusion) = node.exclusion.as_ref().filter(|_| chosen) {
        return format!("not published: {exclusion}");
    }
    match case {
        Admission::Rejected(_) if chosen => "a proxy from before the refusal".to_owned(),
        Admission::Rejected(_) => "the Service is refused".to_owned(),
        Admission::Accepted(wish, _) if !wish.nodes.matches(node) => {
            if node.is_linux {
                "not chosen: its labels, or a taint that is not tolerated".to_owned()
            } else {
                "not chosen: it does not run Linux".to_owned()
            }
        }
        Admission::Accepted(wish, _) if !chosen => {
            let others = ports::of(table.to_vec(), &wish.host_ports());
            let mut others = others.iter().filter(|row| row.owner != subject.key.to_string());
            let owner = others.find(|row| row.nodes.contains(&node.name));
            owner.map_or_else(
                || "another of its ports belongs to another Service".to_owned(),
                |row| format!("{} belongs to {}", row.name(), row.owner),
            )
        }
        Admission::Accepted(wish, _)
            if wish.is_traffic_policy_local && !subject.observed.endpoint_nodes.contains(&node.name) =>
        {
            "externalTrafficPolicy is Local and it has no ready endpoint".to_owned()
        }
        Admission::Accepted(..) if !ready && subject.has_pod(node) => "its proxy is not ready".to_owned(),
        Admission::Accepted(..) if !ready => "it has no proxy".to_owned(),
        Admission::Accepted(..) => String::new(),
    }
}

fn named(workload: &Workload) -> String {
    let kind = match workload {
        Workload::DaemonSet(_) => "DaemonSet",
        Workload::Deployment(_) => "Deployment",
    };
    let metadata = workload.metadata();
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{kind} {}/{}", part(&metadata.namespace), part(&metadata.name))
}

fn pending(change: &Action) -> Option<String> {
    match change {
        Action::Apply(workload) => Some(format!("apply {}", named(workload))),
        Action::Delete(workload) => Some(format!("delete {}", named(workload))),
        Action::Recreate(workload) => {
            Some(format!("make {} anew, without what others added", named(workload)))
        }
        Action::PatchStatus { addresses, condition, .. } => {
            let addresses: Vec<_> = addresses.iter().filter_map(|entry| entry.ip.as_deref()).collect();
            let addresses =
                if addresses.is_empty() { "no addresses".to_owned() } else { addresses.join(", ") };
            let reason = condition.as_ref().map(|condition| format!(", reason {}", condition.reason));
            Some(format!("write the status: {addresses}{}", reason.unwrap_or_default()))
        }
        // Follows from the others.
        Action::EmitEvent { .. } => None,
    }
}

impl Explanation {
    pub(super) fn is_trouble(&self) -> bool {
        self.status.is_trouble()
    }

    /// For people.
    pub(super) fn text(&self, paint: Style) -> String {
        let policy = self.external_traffic_policy.as_deref().unwrap_or_default();
        let facts = [
            ("policy", policy.to_owned()),
            ("proxies", self.proxies.clone().unwrap_or_else(|| "none".to_owned())),
            ("arguments", self.arguments.join(" ")),
            ("addresses", self.status.listed_addresses()),
        ];
        let mut text = self.status.headline(paint);
        for (name, value) in facts.into_iter().filter(|(_, value)| !value.is_empty()) {
            let _ = writeln!(text, "  {name:<10} {value}");
        }
        let yes = |yes: bool| if yes { "yes" } else { "no" };
        let nodes: Vec<_> = self
            .nodes
            .iter()
            .map(|node| {
                let proxy = match (node.chosen, node.ready) {
                    (true, true) => Cell::judged("ready", true),
                    (true, false) => Cell::judged("not ready", false),
                    (false, _) => Cell::new("none"),
                };
                vec![Cell::new(&node.name), proxy, Cell::new(yes(node.published)), Cell::new(&node.why)]
            })
            .collect();
        let _ = write!(text, "\n{}", table(&["NODE", "PROXY", "PUBLISHED", "WHY"], &nodes, paint));
        if !self.ports.is_empty() {
            let _ = write!(text, "\n{}", ports::text(&self.ports));
        }
        if !self.pending.is_empty() {
            let _ = write!(text, "\n{}\n", paint.heading("The operator has still to"));
            self.pending.iter().for_each(|pending| _ = writeln!(text, "  {pending}"));
        }
        text
    }
}

#[cfg(test)]
mod tests;
