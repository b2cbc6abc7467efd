//! The kernel path's metrics as text. Pure.

use std::fmt::Display;

use crate::forwarding_config::Frontend;
use crate::metrics::{BYTES, CONNECTIONS, Definition, Kind, PACKETS, REFUSED, Text};
use crate::ruleset::Traffic;
use netfilter::conntrack::Statistics;
use netfilter::nft::model::Count;

const RESTORED: Definition = Definition {
    name: "akrobateo_lb_rules_restored_total",
    kind: Kind::Counter,
    help: "How often somebody else had changed the rules, and they were put back.",
};
const ENTRIES: Definition = Definition {
    name: "akrobateo_lb_conntrack_entries",
    kind: Kind::Gauge,
    help: "Flows that the kernel tracks in the pod's network.",
};
const LIMIT: Definition = Definition {
    name: "akrobateo_lb_conntrack_limit",
    kind: Kind::Gauge,
    help: "Flows that the kernel can track there; further ones are dropped.",
};
const FULL: Definition = Definition {
    name: "akrobateo_lb_conntrack_full_total",
    kind: Kind::Counter,
    help: "Packets dropped since the kernel could not track one more flow.",
};
const EVICTED: Definition = Definition {
    name: "akrobateo_lb_conntrack_evicted_total",
    kind: Kind::Counter,
    help: "Flows that were given up for new ones since the kernel could not track one more.",
};
const CLASHES: Definition = Definition {
    name: "akrobateo_lb_conntrack_clashes_total",
    kind: Kind::Counter,
    help: "Flows dropped at their beginning since another has their addresses and ports; many if source ports are used up.",
};

/// All metrics; what is unknown is left out.
pub(super) fn text(traffic: &[(Frontend, Traffic)], conntrack: Option<&Statistics>, restored: u64) -> String {
    let mut text = Text::default();
    ports(&mut text, traffic);
    text.metric(&RESTORED).value(restored);
    if let Some(conntrack) = conntrack {
        text.metric(&ENTRIES).value(conntrack.entries);
        if let Some(max) = conntrack.max {
            text.metric(&LIMIT).value(max);
        }
        text.metric(&FULL).value(conntrack.full());
        text.metric(&EVICTED).value(conntrack.early_drop);
        text.metric(&CLASHES).value(conntrack.insert_failed);
    }
    text.finish()
}

fn ports(text: &mut Text, traffic: &[(Frontend, Traffic)]) {
    if traffic.is_empty() {
        return;
    }
    let mut connections = text.metric(&CONNECTIONS);
    for (listen, traffic) in traffic {
        connections.sample(&labels(listen), traffic.connections);
    }
    if traffic.iter().any(|(_, traffic)| traffic.refused.is_some()) {
        let mut refused = text.metric(&REFUSED);
        for (listen, traffic) in traffic {
            refused.sample(&labels(listen), traffic.refused.unwrap_or(0));
        }
    }
    both_ways(text, &PACKETS, traffic, |count| count.packets);
    both_ways(text, &BYTES, traffic, |count| count.bytes);
}

fn both_ways(text: &mut Text, of: &Definition, traffic: &[(Frontend, Traffic)], figure: fn(Count) -> u64) {
    let mut metric = text.metric(of);
    for (listen, Traffic { incoming, outgoing, .. }) in traffic {
        let [protocol, port, family] = labels(listen);
        metric.sample(&[protocol, port, family, ("direction", &"in")], figure(*incoming));
        metric.sample(&[protocol, port, family, ("direction", &"out")], figure(*outgoing));
    }
}

/// What a port is called in each metric of ports.
fn labels((family, protocol, port): &Frontend) -> [(&'static str, &dyn Display); 3] {
    [("protocol", protocol), ("port", port), ("family", family)]
}
