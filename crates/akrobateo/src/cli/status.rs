//! `akrobateo status`: each Service in a line.

use k8s_openapi::serde::Serialize;

use super::cluster::Cluster;
use super::output::Style;
use super::service_report::ServiceReport;
use super::table::{Cell, table};
use crate::spec::why_not_eligible;

/// Addresses in a line of the table; JSON and YAML have them all.
const SHOWN: usize = 3;

/// A Service's line.
#[derive(Clone, Debug, Serialize)]
#[serde(crate = "k8s_openapi::serde", rename_all = "camelCase")]
pub(super) struct Row {
    namespace: String,
    name: String,
    /// The loadBalancerClass.
    class: Option<String>,
    ports: Vec<String>,
    /// Nodes with a proxy that answers.
    ready: usize,
    /// Nodes that should have one.
    wanted: usize,
    addresses: Vec<String>,
    /// Whether it is Akrobateo's to serve.
    ours: bool,
    /// As the condition akrobateo.io/Exposed should be.
    exposed: bool,
    reason: Option<String>,
    message: Option<String>,
}

impl Row {
    pub(super) fn listed_addresses(&self) -> String {
        self.addresses.join(", ")
    }

    /// The state in a line, and why in the next.
    pub(super) fn headline(&self, paint: Style) -> String {
        let state = self.reason.as_deref().unwrap_or("NotServed");
        let state = match (self.ours, self.is_trouble()) {
            (false, _) => state.to_owned(),
            (true, trouble) => {
                if trouble {
                    paint.bad(state)
                } else {
                    paint.good(state)
                }
            }
        };
        let why = self.message.as_ref().map(|message| format!("  {message}\n")).unwrap_or_default();
        let name = paint.heading(&format!("{}/{}", self.namespace, self.name));
        format!("{name}: {state}, {} of {} proxies ready\n{why}", self.ready, self.wanted)
    }

    /// Whether it should have addresses and has none.
    pub(super) fn is_trouble(&self) -> bool {
        self.ours && (!self.exposed || self.addresses.is_empty())
    }
}

/// A line for each Service of type LoadBalancer, and for what is left of one.
pub(super) fn rows(cluster: &Cluster, namespace: Option<&str>) -> Vec<Row> {
    let chosen =
        |subject: &&ServiceReport| namespace.is_none_or(|namespace| subject.key.namespace == namespace);
    let subjects = cluster.subjects.iter().filter(|subject| subject.is_of_interest()).filter(chosen);
    subjects.map(|subject| row(subject, cluster.defaults.default_class)).collect()
}

pub(super) fn row(subject: &ServiceReport, default_class: bool) -> Row {
    let spec = subject.service().and_then(|service| service.spec.as_ref());
    let exposure = subject.decision.status.as_ref().and_then(|status| status.exposure.as_ref());
    let foreign = match subject.service() {
        None => Some("it is gone; its proxies are about to be removed".to_owned()),
        Some(service) => why_not_eligible(service, default_class).map(|why| why.to_string()),
    };
    let addresses = subject.addresses();
    let message = match exposure {
        None => foreign,
        Some(exposure) if exposure.reason.is_exposed() && addresses.is_empty() => {
            Some("the operator has not published the addresses: does it run?".to_owned())
        }
        Some(exposure) => Some(exposure.message.clone()).filter(|message| !message.is_empty()),
    };
    Row {
        namespace: subject.key.namespace.clone(),
        name: subject.key.name.clone(),
        class: spec.and_then(|spec| spec.load_balancer_class.clone()),
        ports: subject.ports(),
        ready: subject.ready(),
        wanted: subject.wanted(),
        addresses,
        ours: subject.observed.admission.is_some(),
        exposed: exposure.is_some_and(|exposure| exposure.reason.is_exposed()),
        reason: exposure.map(|exposure| exposure.reason.as_str().to_owned()),
        message,
    }
}

/// The table for people.
pub(super) fn text(rows: &[Row], paint: Style) -> String {
    if rows.is_empty() {
        return "no Services of type LoadBalancer\n".to_owned();
    }
    let headings = ["NAMESPACE", "NAME", "CLASS", "PORTS", "READY", "ADDRESSES", "STATE", "WHY"];
    let cells = |row: &Row| {
        let state = row.reason.as_deref().unwrap_or("NotServed");
        vec![
            Cell::new(&row.namespace),
            Cell::new(&row.name),
            Cell::new(row.class.clone().unwrap_or_default()),
            Cell::new(shortened(&row.ports)),
            Cell::new(if row.ours { format!("{}/{}", row.ready, row.wanted) } else { String::new() }),
            Cell::new(shortened(&row.addresses)),
            if row.ours { Cell::judged(state, !row.is_trouble()) } else { Cell::new(state) },
            Cell::new(row.message.clone().unwrap_or_default()),
        ]
    };
    table(&headings, &rows.iter().map(cells).collect::<Vec<_>>(), paint)
}

fn shortened(items: &[String]) -> String {
    let shown = items.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(",");
    match items.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown},+{more}"),
    }
}

#[cfg(test)]
mod tests;
