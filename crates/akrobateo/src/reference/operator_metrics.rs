//! The metrics of the operator as Prometheus scrapes them. Pure.

use akrobateo_services::key::ServiceKey;
use api_client::{CallLabels, CallResult, WatchLabels};

use super::document::read_file;
use crate::metrics::{AgentCounts, Metrics, ReconcileLabels};

/// The metadata of a metric.
pub(super) struct MetricMetadata {
    pub(super) name: String,
    /// The type in Prometheus, for example `counter`.
    pub(super) kind: String,
    pub(super) help: String,
}

/// Returns the metadata of all metrics of the operator.
pub(super) fn operator_metrics() -> Vec<MetricMetadata> {
    let metrics = Metrics::new();
    // The encoder omits a metric with labels until the first value is recorded.
    metrics.api.calls.get_or_create(&CallLabels { step: "", result: CallResult::Ok }).inc();
    metrics.reconciliations.get_or_create(&ReconcileLabels { result: "" }).inc();
    metrics.api.watch_errors.get_or_create(&WatchLabels { kind: String::new() }).inc();
    metrics.set_service_state(&ServiceKey { namespace: String::new(), name: String::new() }, Some(""));
    metrics.set_agents(&AgentCounts::from([("", 0)]));
    let text = metrics.text().unwrap();
    let help = |name: &str| {
        let help_prefix = format!("# HELP {name} ");
        text.lines().find_map(|line| line.strip_prefix(&help_prefix)).unwrap_or_default().to_owned()
    };
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let metadata: Vec<_> = types
        .map(|(name, kind)| {
            let suffix = if kind == "counter" { "_total" } else { "" };
            MetricMetadata { name: format!("{name}{suffix}"), kind: kind.to_owned(), help: help(name) }
        })
        .collect();
    let sources = ["crates/akrobateo/src/metrics.rs", "crates/api-client/src/metrics.rs"];
    let registered_metric_count: usize =
        sources.iter().map(|path| read_file(path).matches("registry.register").count()).sum();
    assert_eq!(metadata.len(), registered_metric_count, "a metric with labels has no value in this test");
    metadata
}
