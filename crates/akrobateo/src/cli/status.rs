//! `akrobateo status`: one row for each Service. Pure.

use akrobateo_services::spec::ineligibility_reason;
use k8s_openapi::serde::Serialize;

use super::cluster::Cluster;
use super::output::{Health, Style};
use super::service_report::ServiceReport;
use super::table::{Cell, format_table, join_first_items};

/// The maximum number of ports and of addresses in a row of the table. The JSON and YAML output contains all ports and
/// addresses.
const MAX_LISTED_ITEMS: usize = 3;

/// A row about one Service. Scripts read the JSON output, so its keys must not change.
#[derive(Clone, Debug, Serialize)]
#[serde(crate = "k8s_openapi::serde", rename_all = "camelCase")]
pub(super) struct StatusRow {
    namespace: String,
    name: String,
    /// The loadBalancerClass of the Service.
    class: Option<String>,
    /// The ports in the form `80/TCP`.
    ports: Vec<String>,
    /// The programs that forward the Service: `Shared`, `DaemonSet` or `Deployment`.
    mode: Option<&'static str>,
    /// The number of nodes with a ready proxy; in shared mode, the number of nodes whose agents serve the Service.
    #[serde(rename = "ready")]
    ready_proxy_count: usize,
    /// The number of proxies that should run; in shared mode, the number of nodes whose agents should serve the
    /// Service.
    #[serde(rename = "wanted")]
    desired_proxy_count: usize,
    /// The number of nodes with an outdated proxy.
    #[serde(rename = "outdated")]
    outdated_proxy_count: usize,
    addresses: Vec<String>,
    /// True if Akrobateo serves this Service.
    #[serde(rename = "ours")]
    is_served: bool,
    /// True if the operator decided that the condition `akrobateo.io/Exposed` is `True`.
    #[serde(rename = "exposed")]
    is_exposed: bool,
    /// True if the Service works, at least on some nodes.
    #[serde(skip)]
    is_healthy: bool,
    /// The reason of the condition.
    reason: Option<String>,
    /// The message of the condition `akrobateo.io/Exposed`, or the reason why Akrobateo does not serve the Service.
    message: Option<String>,
}

impl StatusRow {
    /// Builds the row of a Service.
    pub(super) fn new(report: &ServiceReport, is_default_class: bool) -> Self {
        let exposure = report.decision.status.as_ref().and_then(|status| status.exposure.as_ref());
        let addresses = report.addresses();
        let message = match exposure {
            None => unserved_reason(report, is_default_class),
            Some(exposure) if exposure.reason.is_exposed() && addresses.is_empty() => Some(
                "the nodes are ready, but the operator has not published the addresses; check that the operator runs"
                    .to_owned(),
            ),
            Some(exposure) => Some(exposure.message.clone()).filter(|message| !message.is_empty()),
        };
        Self {
            namespace: report.key.namespace.clone(),
            name: report.key.name.clone(),
            class: report.service_spec().and_then(|spec| spec.load_balancer_class.clone()),
            ports: report.port_names(),
            mode: report.forwarding_mode(),
            ready_proxy_count: report.ready_proxy_count(),
            desired_proxy_count: report.desired_proxy_count(),
            outdated_proxy_count: report.decision.rollout.outdated_proxies.len(),
            addresses,
            is_served: report.state.allocation_result.is_some(),
            is_exposed: exposure.is_some_and(|exposure| exposure.status() == "True"),
            is_healthy: exposure.is_some_and(|exposure| exposure.reason.is_exposed()),
            reason: exposure.map(|exposure| exposure.reason.as_str().to_owned()),
            message,
        }
    }

    /// Returns the addresses in one line.
    pub(super) fn joined_addresses(&self) -> String {
        self.addresses.join(", ")
    }

    /// Returns one line with the Service's state and one line with the message.
    pub(super) fn format_summary(&self, style: Style) -> String {
        let name = style.make_bold(&format!("{}/{}", self.namespace, self.name));
        let state = style.color_by_health(self.reason_or_not_served(), self.health());
        let message = self.message.as_ref().map(|message| format!("  {message}\n")).unwrap_or_default();
        let outdated_note = match self.outdated_proxy_count {
            0 => String::new(),
            count => format!(", {count} outdated"),
        };
        // A Service without a mode is rejected or not served. The counts mean something only if earlier proxies remain.
        if self.mode.is_none() && self.desired_proxy_count == 0 {
            return format!("{name}: {state}\n{message}");
        }
        let unit = if self.is_shared() { "nodes" } else { "proxies" };
        format!(
            "{name}: {state}, {} of {} {unit} ready{outdated_note}\n{message}",
            self.ready_proxy_count, self.desired_proxy_count
        )
    }

    /// Describes the mode and the program that forwards. The text is empty for a Service without a mode.
    pub(super) fn describe_mode(&self) -> String {
        match self.mode {
            Some("Shared") => "Shared: the node agents forward".to_owned(),
            Some(workload) => format!("dedicated: a {workload} of proxies forwards"),
            None => String::new(),
        }
    }

    /// Returns true if the Service has proxies, or should have proxies.
    pub(super) fn has_proxies(&self) -> bool {
        !self.is_shared() && (self.mode.is_some() || self.desired_proxy_count > 0)
    }

    /// Returns true if the node agents forward the Service.
    pub(super) fn is_shared(&self) -> bool {
        self.mode == Some("Shared")
    }

    /// Returns true if the Service is rejected, or if it should have addresses and has none.
    pub(super) fn is_failing(&self) -> bool {
        self.health() == Health::Failing
    }

    fn health(&self) -> Health {
        if !self.is_served {
            Health::NotApplicable
        } else if self.is_healthy && !self.addresses.is_empty() {
            Health::Healthy
        } else {
            Health::Failing
        }
    }

    /// Returns the reason of the condition `akrobateo.io/Exposed`, or `NotServed` if there is no condition.
    fn reason_or_not_served(&self) -> &str {
        self.reason.as_deref().unwrap_or("NotServed")
    }

    fn cells(&self) -> Vec<Cell> {
        let proxy_counts = if self.is_served && self.outdated_proxy_count > 0 {
            let Self { ready_proxy_count, desired_proxy_count, outdated_proxy_count, .. } = self;
            format!("{ready_proxy_count}/{desired_proxy_count} ({outdated_proxy_count} outdated)")
        } else if self.is_served {
            format!("{}/{}", self.ready_proxy_count, self.desired_proxy_count)
        } else {
            String::new()
        };
        vec![
            Cell::new(&self.namespace),
            Cell::new(&self.name),
            Cell::new(self.class.clone().unwrap_or_default()),
            Cell::new(join_first_items(&self.ports, MAX_LISTED_ITEMS)),
            Cell::new(proxy_counts),
            Cell::new(join_first_items(&self.addresses, MAX_LISTED_ITEMS)),
            Cell::with_health(self.reason_or_not_served(), self.health()),
            Cell::new(self.message.clone().unwrap_or_default()),
        ]
    }
}

fn unserved_reason(report: &ServiceReport, is_default_class: bool) -> Option<String> {
    match report.service() {
        None => Some("the Service was deleted; the operator is about to delete its proxies".to_owned()),
        Some(service) => {
            ineligibility_reason(service, is_default_class).map(|ineligible| ineligible.to_string())
        }
    }
}

/// Returns a row for each Service of type LoadBalancer and for the remaining proxies of each deleted Service.
pub(super) fn status_rows(cluster: &Cluster, namespace: Option<&str>) -> Vec<StatusRow> {
    let is_in_namespace =
        |report: &&ServiceReport| namespace.is_none_or(|namespace| report.key.namespace == namespace);
    let reports =
        cluster.service_reports.iter().filter(|report| report.is_shown_by_commands()).filter(is_in_namespace);
    reports.map(|report| StatusRow::new(report, cluster.defaults.is_default_class)).collect()
}

/// Returns the table of all rows.
pub(super) fn format_rows(rows: &[StatusRow], style: Style) -> String {
    if rows.is_empty() {
        return "no Services of type LoadBalancer\n".to_owned();
    }
    let headings = ["NAMESPACE", "NAME", "CLASS", "PORTS", "READY", "ADDRESSES", "STATE", "WHY"];
    let cells: Vec<_> = rows.iter().map(StatusRow::cells).collect();
    format_table(&headings, &cells, style)
}

#[cfg(test)]
mod tests;
