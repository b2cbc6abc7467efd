//! The metrics of the kernel data path as text. Pure.

use std::fmt::Display;

use akrobateo_core::Frontend;
use netfilter::conntrack::Statistics;
use netfilter::nft::model::Counter;

use crate::metrics::{
    BYTES_METRIC, CONNECTIONS_METRIC, MetricDefinition, MetricKind, MetricsText, PACKETS_METRIC,
    REFUSED_CONNECTIONS_METRIC,
};
use crate::ruleset::Traffic;

const RULE_RESTORATIONS_METRIC: MetricDefinition = MetricDefinition {
    name: "akrobateo_lb_rules_restored_total",
    kind: MetricKind::Counter,
    help: "Number of times that another program changed the rules and the proxy restored them.",
};
const CONNTRACK_ENTRIES_METRIC: MetricDefinition = MetricDefinition {
    name: "akrobateo_lb_conntrack_entries",
    kind: MetricKind::Gauge,
    help: "Conntrack entries in the pod's network namespace.",
};
const CONNTRACK_LIMIT_METRIC: MetricDefinition = MetricDefinition {
    name: "akrobateo_lb_conntrack_limit",
    kind: MetricKind::Gauge,
    help: "Maximum number of conntrack entries in the pod's network namespace.",
};
const CONNTRACK_TABLE_FULL_DROPS_METRIC: MetricDefinition = MetricDefinition {
    name: "akrobateo_lb_conntrack_full_total",
    kind: MetricKind::Counter,
    help: "Packets dropped because the conntrack table was full.",
};
const CONNTRACK_EVICTIONS_METRIC: MetricDefinition = MetricDefinition {
    name: "akrobateo_lb_conntrack_evicted_total",
    kind: MetricKind::Counter,
    help: "Conntrack entries evicted because the conntrack table was full.",
};
const CONNTRACK_CLASHES_METRIC: MetricDefinition = MetricDefinition {
    name: "akrobateo_lb_conntrack_clashes_total",
    kind: MetricKind::Counter,
    help: "New flows dropped because another flow has the same addresses and ports. \
           If no source port is free, this number rises.",
};

/// The metrics that the kernel data path can have.
pub const METRICS: &[MetricDefinition] = &[
    CONNECTIONS_METRIC,
    REFUSED_CONNECTIONS_METRIC,
    PACKETS_METRIC,
    BYTES_METRIC,
    RULE_RESTORATIONS_METRIC,
    CONNTRACK_ENTRIES_METRIC,
    CONNTRACK_LIMIT_METRIC,
    CONNTRACK_TABLE_FULL_DROPS_METRIC,
    CONNTRACK_EVICTIONS_METRIC,
    CONNTRACK_CLASHES_METRIC,
];

/// Returns the text of all metrics whose values are known.
pub(super) fn format_metrics(
    traffic: &[(Frontend, Traffic)],
    conntrack_statistics: Option<&Statistics>,
    rule_restoration_count: u64,
) -> String {
    let mut text = MetricsText::default();
    if !traffic.is_empty() {
        write_traffic(&mut text, traffic);
    }
    text.begin_metric(&RULE_RESTORATIONS_METRIC).write_value(rule_restoration_count);
    if let Some(statistics) = conntrack_statistics {
        text.begin_metric(&CONNTRACK_ENTRIES_METRIC).write_value(statistics.entries);
        if let Some(max_entries) = statistics.max_entries {
            text.begin_metric(&CONNTRACK_LIMIT_METRIC).write_value(max_entries);
        }
        text.begin_metric(&CONNTRACK_TABLE_FULL_DROPS_METRIC).write_value(statistics.table_full_drops());
        text.begin_metric(&CONNTRACK_EVICTIONS_METRIC).write_value(statistics.evictions);
        text.begin_metric(&CONNTRACK_CLASHES_METRIC).write_value(statistics.failed_insertions);
    }
    text.finish()
}

fn write_traffic(text: &mut MetricsText, traffic: &[(Frontend, Traffic)]) {
    let mut connections = text.begin_metric(&CONNECTIONS_METRIC);
    for (frontend, traffic) in traffic {
        connections.write_sample(&labels(frontend), traffic.connections);
    }
    if traffic.iter().any(|(_, traffic)| traffic.refused_packets.is_some()) {
        let mut refused_connections = text.begin_metric(&REFUSED_CONNECTIONS_METRIC);
        for (frontend, traffic) in traffic {
            refused_connections.write_sample(&labels(frontend), traffic.refused_packets.unwrap_or(0));
        }
    }
    write_counters_of_both_directions(text, &PACKETS_METRIC, traffic, |counter| counter.packets);
    write_counters_of_both_directions(text, &BYTES_METRIC, traffic, |counter| counter.bytes);
}

fn write_counters_of_both_directions(
    text: &mut MetricsText,
    definition: &MetricDefinition,
    traffic: &[(Frontend, Traffic)],
    value: fn(Counter) -> u64,
) {
    let mut metric = text.begin_metric(definition);
    for (frontend, Traffic { incoming, outgoing, .. }) in traffic {
        let [protocol, port, family] = labels(frontend);
        metric.write_sample(&[protocol, port, family, ("direction", &"in")], value(*incoming));
        metric.write_sample(&[protocol, port, family, ("direction", &"out")], value(*outgoing));
    }
}

/// Returns the labels of a frontend. Each metric uses the same labels.
fn labels(frontend: &Frontend) -> [(&'static str, &dyn Display); 3] {
    [("protocol", &frontend.protocol), ("port", &frontend.port), ("family", &frontend.family)]
}

#[cfg(test)]
mod tests {
    use akrobateo_core::{Family, Protocol};

    use super::*;

    #[test]
    fn metrics_text_has_every_metric_of_the_kernel_path() {
        let frontend = Frontend { family: Family::V4, protocol: Protocol::Tcp, port: 80.try_into().unwrap() };
        let counter = Counter { packets: 2, bytes: 3 };
        let traffic =
            Traffic { connections: 1, refused_packets: Some(1), incoming: counter, outgoing: counter };
        let statistics = Statistics { max_entries: Some(8), ..Statistics::default() };
        let text = format_metrics(&[(frontend, traffic)], Some(&statistics), 0);
        let help_lines: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# HELP ")).collect();
        let expected_lines: Vec<_> =
            METRICS.iter().map(|metric| format!("{} {}", metric.name, metric.help)).collect();
        assert_eq!(help_lines, expected_lines);
    }
}
