//! The metrics of the kernel data path as text. Pure.

use std::fmt::Display;

use akrobateo_core::Frontend;
use netfilter::conntrack::Statistics;
use netfilter::nft::model::Count;

use crate::metrics::{BYTES, CONNECTIONS, Definition, Kind, PACKETS, REFUSED, Text};
use crate::ruleset::Traffic;

const RESTORED: Definition = Definition {
    name: "akrobateo_lb_rules_restored_total",
    kind: Kind::Counter,
    help: "Number of times that another program changed the rules and the proxy restored them.",
};
const ENTRIES: Definition = Definition {
    name: "akrobateo_lb_conntrack_entries",
    kind: Kind::Gauge,
    help: "Conntrack entries in the pod's network namespace.",
};
const LIMIT: Definition = Definition {
    name: "akrobateo_lb_conntrack_limit",
    kind: Kind::Gauge,
    help: "Maximum number of conntrack entries in the pod's network namespace.",
};
const FULL: Definition = Definition {
    name: "akrobateo_lb_conntrack_full_total",
    kind: Kind::Counter,
    help: "Packets dropped because the conntrack table was full.",
};
const EVICTED: Definition = Definition {
    name: "akrobateo_lb_conntrack_evicted_total",
    kind: Kind::Counter,
    help: "Conntrack entries evicted for new ones because the conntrack table was full.",
};
const CLASHES: Definition = Definition {
    name: "akrobateo_lb_conntrack_clashes_total",
    kind: Kind::Counter,
    help: "New flows dropped because another flow has the same addresses and ports, for example because all source \
           ports are in use.",
};

/// The metrics that the kernel data path can have.
pub const METRICS: &[Definition] =
    &[CONNECTIONS, REFUSED, PACKETS, BYTES, RESTORED, ENTRIES, LIMIT, FULL, EVICTED, CLASHES];

/// Writes all metrics, except those whose values are unknown.
pub(super) fn format_metrics(
    traffic: &[(Frontend, Traffic)],
    conntrack: Option<&Statistics>,
    restorations: u64,
) -> String {
    let mut text = Text::default();
    if !traffic.is_empty() {
        write_traffic(&mut text, traffic);
    }
    text.metric(&RESTORED).value(restorations);
    if let Some(conntrack) = conntrack {
        text.metric(&ENTRIES).value(conntrack.entries);
        if let Some(max) = conntrack.max {
            text.metric(&LIMIT).value(max);
        }
        text.metric(&FULL).value(conntrack.table_full_drops());
        text.metric(&EVICTED).value(conntrack.early_drop);
        text.metric(&CLASHES).value(conntrack.insert_failed);
    }
    text.finish()
}

fn write_traffic(text: &mut Text, traffic: &[(Frontend, Traffic)]) {
    let mut connections = text.metric(&CONNECTIONS);
    for (frontend, traffic) in traffic {
        connections.sample(&labels(frontend), traffic.connections);
    }
    if traffic.iter().any(|(_, traffic)| traffic.refused.is_some()) {
        let mut refused = text.metric(&REFUSED);
        for (frontend, traffic) in traffic {
            refused.sample(&labels(frontend), traffic.refused.unwrap_or(0));
        }
    }
    write_directions(text, &PACKETS, traffic, |count| count.packets);
    write_directions(text, &BYTES, traffic, |count| count.bytes);
}

fn write_directions(
    text: &mut Text,
    definition: &Definition,
    traffic: &[(Frontend, Traffic)],
    value: fn(Count) -> u64,
) {
    let mut metric = text.metric(definition);
    for (frontend, Traffic { incoming, outgoing, .. }) in traffic {
        let [protocol, port, family] = labels(frontend);
        metric.sample(&[protocol, port, family, ("direction", &"in")], value(*incoming));
        metric.sample(&[protocol, port, family, ("direction", &"out")], value(*outgoing));
    }
}

/// Returns the labels of a frontend, the same in each metric.
fn labels(frontend: &Frontend) -> [(&'static str, &dyn Display); 3] {
    [("protocol", &frontend.protocol), ("port", &frontend.port), ("family", &frontend.family)]
}

#[cfg(test)]
mod tests {
    use akrobateo_core::{Family, Protocol};

    use super::*;

    #[test]
    fn text_has_every_metric_of_the_table() {
        let frontend = Frontend { family: Family::V4, protocol: Protocol::Tcp, port: 80.try_into().unwrap() };
        let count = Count { packets: 2, bytes: 3 };
        let traffic = Traffic { connections: 1, refused: Some(1), incoming: count, outgoing: count };
        let statistics = Statistics { max: Some(8), ..Statistics::default() };
        let text = format_metrics(&[(frontend, traffic)], Some(&statistics), 0);
        let written: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# HELP ")).collect();
        let expected: Vec<_> =
            METRICS.iter().map(|metric| format!("{} {}", metric.name, metric.help)).collect();
        assert_eq!(written, expected);
    }
}
