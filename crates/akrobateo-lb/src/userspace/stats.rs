//! What a proxy counts, and its form as metrics. Each worker counts for itself, so that none waits for another.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use rustix::io::Errno;

use super::ports::Port;
use crate::metrics::{BYTES, CONNECTIONS, Definition, Kind, REFUSED, Text};

const OPEN: Definition = Definition {
    name: "akrobateo_lb_open_connections",
    kind: Kind::Gauge,
    help: "Connections, and flows of datagrams, that are open, also those whose target has not answered yet.",
};
const DROPPED: Definition = Definition {
    name: "akrobateo_lb_dropped_datagrams_total",
    kind: Kind::Counter,
    help: "Datagrams dropped since there were too many flows, or the kernel did not take them.",
};
const FAILURES: Definition = Definition {
    name: "akrobateo_lb_dial_failures_total",
    kind: Kind::Counter,
    help: "Connections whose target could not be reached, by reason.",
};
const AT_LIMIT: Definition = Definition {
    name: "akrobateo_lb_connection_limit_reached_total",
    kind: Kind::Counter,
    help: "How often there were as many connections as are allowed: further clients wait.",
};
const OUT_OF_RESOURCES: Definition = Definition {
    name: "akrobateo_lb_accept_out_of_resources_total",
    kind: Kind::Counter,
    help: "How often clients had to wait since descriptors or memory were used up.",
};
const PIPES: Definition = Definition {
    name: "akrobateo_lb_pipes",
    kind: Kind::Gauge,
    help: "Pipes, which are held only while many bytes move.",
};

/// The metrics that the userspace data path can have.
pub const METRICS: &[Definition] =
    &[CONNECTIONS, OPEN, REFUSED, DROPPED, BYTES, FAILURES, AT_LIMIT, OUT_OF_RESOURCES, PIPES];

/// Why a target could not be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DialFailure {
    /// Nobody frontends there, or it resets at once.
    Refused,
    /// No answer in time.
    TimedOut,
    /// No way to get there.
    Unreachable,
    /// No source port is free.
    NoPort,
    /// No descriptor, or no memory, is free.
    NoResources,
    /// Something else.
    Other,
}

impl DialFailure {
    pub(super) const ALL: [Self; 6] =
        [Self::Refused, Self::TimedOut, Self::Unreachable, Self::NoPort, Self::NoResources, Self::Other];

    /// The metric's label.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::NoPort => "no_source_port",
            Self::NoResources => "no_resources",
            Self::Other => "other",
        }
    }
}

impl From<Errno> for DialFailure {
    fn from(error: Errno) -> Self {
        match error {
            Errno::CONNREFUSED | Errno::CONNRESET => Self::Refused,
            Errno::TIMEDOUT => Self::TimedOut,
            Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::HOSTDOWN | Errno::NETDOWN | Errno::ACCESS => {
                Self::Unreachable
            }
            Errno::ADDRNOTAVAIL | Errno::ADDRINUSE => Self::NoPort,
            Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => Self::NoResources,
            _ => Self::Other,
        }
    }
}

/// What one worker counts of one port.
#[derive(Debug, Default)]
pub(super) struct PortStats {
    /// Connections whose target answered, and flows of datagrams.
    pub(super) forwarded: AtomicU64,
    /// Connections, and flows of datagrams, that were let in.
    pub(super) opened: AtomicU64,
    /// Of these, how many are over.
    pub(super) closed: AtomicU64,
    /// Bytes from clients, and to them.
    pub(super) up: AtomicU64,
    pub(super) down: AtomicU64,
    /// Connections, or datagrams, from outside of the source ranges.
    pub(super) refused: AtomicU64,
    /// Datagrams that found no room for a new flow, or were not taken by the target's side.
    pub(super) dropped: AtomicU64,
    failures: [AtomicU64; DialFailure::ALL.len()],
}

impl PortStats {
    pub(super) fn failed(&self, why: DialFailure) {
        if let Some(count) = self.failures.get(why as usize) {
            count.fetch_add(1, Relaxed);
        }
    }
}

/// What one worker counts.
#[derive(Debug)]
pub(super) struct WorkerStats {
    ports: Box<[PortStats]>,
    /// How often accepting had to wait, since descriptors or memory were used up.
    pub(super) out_of_resources: AtomicU64,
    /// How often there were as many connections as are allowed.
    pub(super) at_limit: AtomicU64,
    /// Pipes, free ones and leased ones.
    pub(super) pipes: AtomicUsize,
}

impl WorkerStats {
    pub(super) fn new(ports: usize) -> Self {
        Self {
            ports: (0..ports).map(|_| PortStats::default()).collect(),
            out_of_resources: AtomicU64::default(),
            at_limit: AtomicU64::default(),
            pipes: AtomicUsize::default(),
        }
    }

    /// What is counted of a port, by its place in the list of ports.
    pub(super) fn port(&self, at: usize) -> &PortStats {
        &self.ports[at]
    }
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Relaxed);
}

/// All of it as metrics; `restricted` if there are source ranges.
pub(super) fn metrics(ports: &[Port], workers: &[&WorkerStats], restricted: bool) -> String {
    let mut text = Text::default();
    let sum =
        |at: usize, of: fn(&PortStats) -> u64| workers.iter().map(|worker| of(worker.port(at))).sum::<u64>();
    let mut per_port = |definition: &Definition, of: fn(&PortStats) -> u64| {
        let mut metric = text.metric(definition);
        for (at, port) in ports.iter().enumerate() {
            metric.sample(&port.labels(), sum(at, of));
        }
    };
    per_port(&CONNECTIONS, |stats| stats.forwarded.load(Relaxed));
    per_port(&OPEN, |stats| {
        let closed = stats.closed.load(Relaxed);
        stats.opened.load(Relaxed).saturating_sub(closed)
    });
    if restricted {
        per_port(&REFUSED, |stats| stats.refused.load(Relaxed));
    }
    per_port(&DROPPED, |stats| stats.dropped.load(Relaxed));
    let mut bytes = text.metric(&BYTES);
    for (at, port) in ports.iter().enumerate() {
        let [protocol, number, family] = port.labels();
        let up = sum(at, |stats| stats.up.load(Relaxed));
        let down = sum(at, |stats| stats.down.load(Relaxed));
        bytes.sample(&[protocol, number, family, ("direction", &"in")], up);
        bytes.sample(&[protocol, number, family, ("direction", &"out")], down);
    }
    failures(&mut text, ports, workers);
    whole(&mut text, workers);
    text.finish()
}

fn failures(text: &mut Text, ports: &[Port], workers: &[&WorkerStats]) {
    let mut metric = text.metric(&FAILURES);
    for (at, port) in ports.iter().enumerate() {
        for reason in DialFailure::ALL {
            let count = |worker: &&WorkerStats| worker.port(at).failures[reason as usize].load(Relaxed);
            let [protocol, number, family] = port.labels();
            let labels = [protocol, number, family, ("reason", &reason.as_str() as &dyn Display)];
            metric.sample(&labels, workers.iter().map(count).sum::<u64>());
        }
    }
}

fn whole(text: &mut Text, workers: &[&WorkerStats]) {
    let sum = |of: fn(&WorkerStats) -> u64| workers.iter().map(|worker| of(worker)).sum::<u64>();
    text.metric(&AT_LIMIT).value(sum(|worker| worker.at_limit.load(Relaxed)));
    text.metric(&OUT_OF_RESOURCES).value(sum(|worker| worker.out_of_resources.load(Relaxed)));
    text.metric(&PIPES).value(sum(|worker| worker.pipes.load(Relaxed) as u64));
}

#[cfg(test)]
mod tests {
    use akrobateo_core::{Family, Protocol};

    use super::*;

    #[test]
    fn text_has_every_metric_of_the_table() {
        let port = Port {
            protocol: Protocol::Tcp,
            family: Family::V4,
            number: 80.try_into().unwrap(),
            target: "10.96.3.7:80".parse().unwrap(),
            proxy_protocol_for: None,
        };
        let text = metrics(&[port], &[&WorkerStats::new(1)], true);
        let written: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# HELP ")).collect();
        let expected: Vec<_> =
            METRICS.iter().map(|metric| format!("{} {}", metric.name, metric.help)).collect();
        assert_eq!(written, expected);
    }
}
