//! The agent's metrics. No I/O.

use akrobateo_services::agent_report::AgentReport;
use api_client::ApiMetrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// All metrics of the agent.
pub(super) struct Metrics {
    pub(super) api: ApiMetrics,
    /// Attempts to change the rules by result.
    rule_changes: Family<ChangeLabels, Counter>,
    services: Gauge,
    refused_services: Gauge,
    masqueraded_peers: Gauge,
    conntrack_entries: Gauge,
    conntrack_limit: Gauge,
    registry: Registry,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ChangeLabels {
    /// `ok` or `failed`.
    result: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("akrobateo_agent");
        let api = ApiMetrics::default();
        api.register(&mut registry);
        let rule_changes = Family::<ChangeLabels, Counter>::default();
        registry.register("rule_changes", "Attempts to change the rules by result", rule_changes.clone());
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        Self {
            services: gauge("services", "Services that the node serves"),
            refused_services: gauge(
                "refused_services",
                "Services that the node refuses, because a port has another owner",
            ),
            masqueraded_peers: gauge(
                "masqueraded_peers",
                "Nodes whose endpoints do not see the addresses of this node's clients",
            ),
            conntrack_entries: gauge("conntrack_entries", "Entries in the node's conntrack table"),
            conntrack_limit: gauge(
                "conntrack_limit",
                "Maximum number of entries in the node's conntrack table",
            ),
            api,
            rule_changes,
            registry,
        }
    }
}

impl Metrics {
    /// Counts an attempt to change the rules.
    pub(super) fn count_change(&self, is_ok: bool) {
        let result = if is_ok { "ok" } else { "failed" };
        self.rule_changes.get_or_create(&ChangeLabels { result }).inc();
    }

    /// Sets the values that a report contains.
    pub(super) fn set_report(&self, report: &AgentReport) {
        let to_i64 = |count: usize| count.try_into().unwrap_or(i64::MAX);
        self.services.set(to_i64(report.served_count));
        self.refused_services.set(to_i64(report.refused.len()));
        self.masqueraded_peers.set(to_i64(report.masqueraded_peers.len()));
        if let Some(conntrack) = report.conntrack {
            self.conntrack_entries.set(conntrack.count.try_into().unwrap_or(i64::MAX));
            self.conntrack_limit.set(conntrack.max.try_into().unwrap_or(i64::MAX));
        }
    }

    /// Returns the metrics in the `OpenMetrics` text format.
    pub(super) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_begin_with_the_name_of_the_agent() {
        let text = Metrics::default().text().unwrap();
        assert!(text.contains("akrobateo_agent_services") && text.ends_with("# EOF\n"), "{text}");
    }
}
