//! The counters of the userspace path, and their metrics. Pure.
//!
//! Each worker has its own counters, so that no worker waits for another worker.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use rustix::io::Errno;

use super::port::Port;
use crate::metrics::{
    BYTES_METRIC, CONNECTIONS_METRIC, MetricDefinition, MetricKind, MetricsText, REFUSED_CONNECTIONS_METRIC,
};

const OPEN_CONNECTIONS_METRIC: MetricDefinition = MetricDefinition {
    name: "akrobateo_lb_open_connections",
    kind: MetricKind::Gauge,
    help: "Open TCP connections and UDP sessions, including connections whose target has not answered yet.",
};
const DROPPED_DATAGRAMS_METRIC: MetricDefinition = MetricDefinition {
    name: "akrobateo_lb_dropped_datagrams_total",
    kind: MetricKind::Counter,
    help: "Datagrams dropped because the UDP session limit was reached or the kernel did not accept them.",
};
const DIAL_FAILURES_METRIC: MetricDefinition = MetricDefinition {
    name: "akrobateo_lb_dial_failures_total",
    kind: MetricKind::Counter,
    help: "Failed attempts to reach the target, by reason.",
};
const CONNECTION_LIMIT_REACHED_METRIC: MetricDefinition = MetricDefinition {
    name: "akrobateo_lb_connection_limit_reached_total",
    kind: MetricKind::Counter,
    help: "Number of times that the connection limit was reached; further clients wait in the kernel's queue.",
};
const ACCEPT_OUT_OF_RESOURCES_METRIC: MetricDefinition = MetricDefinition {
    name: "akrobateo_lb_accept_out_of_resources_total",
    kind: MetricKind::Counter,
    help: "Number of times that clients had to wait because file descriptors or memory ran out.",
};
const OPEN_PIPES_METRIC: MetricDefinition = MetricDefinition {
    name: "akrobateo_lb_pipes",
    kind: MetricKind::Gauge,
    help: "Open pipes for splicing; idle pipes are closed after about one second.",
};

/// All metrics of the userspace path.
pub const METRICS: &[MetricDefinition] = &[
    CONNECTIONS_METRIC,
    OPEN_CONNECTIONS_METRIC,
    REFUSED_CONNECTIONS_METRIC,
    DROPPED_DATAGRAMS_METRIC,
    BYTES_METRIC,
    DIAL_FAILURES_METRIC,
    CONNECTION_LIMIT_REACHED_METRIC,
    ACCEPT_OUT_OF_RESOURCES_METRIC,
    OPEN_PIPES_METRIC,
];

/// The reason why a target could not be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DialFailure {
    /// The target refused or reset the connection.
    Refused,
    /// The target did not answer within the connect timeout.
    TimedOut,
    /// The network has no route to the target, or rejects the traffic.
    Unreachable,
    /// No source port is free.
    NoSourcePort,
    /// File descriptors or memory have run out.
    NoResources,
    /// An error that no other variant describes.
    Other,
}

impl DialFailure {
    pub(super) const ALL: [Self; 6] = [
        Self::Refused,
        Self::TimedOut,
        Self::Unreachable,
        Self::NoSourcePort,
        Self::NoResources,
        Self::Other,
    ];

    /// Returns the value of the metric's label `reason`.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::NoSourcePort => "no_source_port",
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
            Errno::ADDRNOTAVAIL | Errno::ADDRINUSE => Self::NoSourcePort,
            Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => Self::NoResources,
            _ => Self::Other,
        }
    }
}

/// The counters of one worker for one port.
#[derive(Debug, Default)]
pub(super) struct PortStats {
    /// Number of TCP connections that the target has accepted, plus number of UDP sessions.
    pub(super) forwarded_sessions: AtomicU64,
    /// Number of accepted TCP connections, plus number of UDP sessions.
    pub(super) opened_sessions: AtomicU64,
    /// Number of closed TCP connections, plus number of closed UDP sessions.
    pub(super) closed_sessions: AtomicU64,
    /// Bytes from clients.
    pub(super) bytes_in: AtomicU64,
    /// Bytes to clients.
    pub(super) bytes_out: AtomicU64,
    /// Number of connections and datagrams from outside the source ranges.
    pub(super) refused_connections: AtomicU64,
    /// Number of datagrams dropped because the UDP session limit was reached or the kernel did not accept the datagram.
    pub(super) dropped_datagrams: AtomicU64,
    dial_failures: [AtomicU64; DialFailure::ALL.len()],
}

impl PortStats {
    pub(super) fn count_dial_failure(&self, failure: DialFailure) {
        if let Some(counter) = self.dial_failures.get(failure as usize) {
            add(counter, 1);
        }
    }
}

/// The counters of one worker.
#[derive(Debug)]
pub(super) struct WorkerStats {
    ports: Box<[PortStats]>,
    /// Number of times that clients had to wait because file descriptors or memory ran out.
    pub(super) out_of_resources_count: AtomicU64,
    /// Number of times that the connection limit was reached.
    pub(super) connection_limit_reached_count: AtomicU64,
    /// Number of idle and leased pipes.
    pub(super) pipe_count: AtomicUsize,
}

impl WorkerStats {
    pub(super) fn new(port_count: usize) -> Self {
        Self {
            ports: (0..port_count).map(|_| PortStats::default()).collect(),
            out_of_resources_count: AtomicU64::default(),
            connection_limit_reached_count: AtomicU64::default(),
            pipe_count: AtomicUsize::default(),
        }
    }

    /// Returns the counters of a port.
    pub(super) fn port(&self, port_index: usize) -> &PortStats {
        &self.ports[port_index]
    }
}

/// Adds `amount` to a counter.
pub(super) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Relaxed);
}

/// Formats the sum of all workers' counters as metrics. If `has_source_ranges` is true, the metrics include the refused
/// connections.
pub(super) fn format_metrics(ports: &[Port], workers: &[&WorkerStats], has_source_ranges: bool) -> String {
    let mut text = MetricsText::default();
    write_counter(&mut text, &CONNECTIONS_METRIC, ports, workers, |stats| {
        stats.forwarded_sessions.load(Relaxed)
    });
    write_counter(&mut text, &OPEN_CONNECTIONS_METRIC, ports, workers, |stats| {
        let closed_count = stats.closed_sessions.load(Relaxed);
        stats.opened_sessions.load(Relaxed).saturating_sub(closed_count)
    });
    if has_source_ranges {
        write_counter(&mut text, &REFUSED_CONNECTIONS_METRIC, ports, workers, |stats| {
            stats.refused_connections.load(Relaxed)
        });
    }
    write_counter(&mut text, &DROPPED_DATAGRAMS_METRIC, ports, workers, |stats| {
        stats.dropped_datagrams.load(Relaxed)
    });
    write_bytes(&mut text, ports, workers);
    write_dial_failures(&mut text, ports, workers);
    let sum_workers =
        |value: fn(&WorkerStats) -> u64| workers.iter().map(|worker| value(worker)).sum::<u64>();
    text.begin_metric(&CONNECTION_LIMIT_REACHED_METRIC)
        .write_value(sum_workers(|worker| worker.connection_limit_reached_count.load(Relaxed)));
    text.begin_metric(&ACCEPT_OUT_OF_RESOURCES_METRIC)
        .write_value(sum_workers(|worker| worker.out_of_resources_count.load(Relaxed)));
    text.begin_metric(&OPEN_PIPES_METRIC)
        .write_value(sum_workers(|worker| worker.pipe_count.load(Relaxed) as u64));
    text.finish()
}

/// Returns the sum of one value of a port over all workers.
fn sum_port_value(workers: &[&WorkerStats], port_index: usize, value: impl Fn(&PortStats) -> u64) -> u64 {
    workers.iter().map(|worker| value(worker.port(port_index))).sum()
}

/// Writes a metric with one sample per port.
fn write_counter(
    text: &mut MetricsText,
    definition: &MetricDefinition,
    ports: &[Port],
    workers: &[&WorkerStats],
    value: fn(&PortStats) -> u64,
) {
    let mut metric = text.begin_metric(definition);
    for (port_index, port) in ports.iter().enumerate() {
        metric.write_sample(&port.labels(), sum_port_value(workers, port_index, value));
    }
}

fn write_bytes(text: &mut MetricsText, ports: &[Port], workers: &[&WorkerStats]) {
    let mut metric = text.begin_metric(&BYTES_METRIC);
    for (port_index, port) in ports.iter().enumerate() {
        let [protocol, number, family] = port.labels();
        let bytes_in = sum_port_value(workers, port_index, |stats| stats.bytes_in.load(Relaxed));
        let bytes_out = sum_port_value(workers, port_index, |stats| stats.bytes_out.load(Relaxed));
        metric.write_sample(&[protocol, number, family, ("direction", &"in")], bytes_in);
        metric.write_sample(&[protocol, number, family, ("direction", &"out")], bytes_out);
    }
}

fn write_dial_failures(text: &mut MetricsText, ports: &[Port], workers: &[&WorkerStats]) {
    let mut metric = text.begin_metric(&DIAL_FAILURES_METRIC);
    for (port_index, port) in ports.iter().enumerate() {
        for reason in DialFailure::ALL {
            let [protocol, number, family] = port.labels();
            let labels = [protocol, number, family, ("reason", &reason.as_str() as &dyn Display)];
            let count = sum_port_value(workers, port_index, |stats| {
                stats.dial_failures[reason as usize].load(Relaxed)
            });
            metric.write_sample(&labels, count);
        }
    }
}

#[cfg(test)]
mod tests {
    use akrobateo_core::{Family, Protocol};

    use super::*;

    #[test]
    fn metrics_text_has_every_metric_of_the_userspace_path() {
        let port = Port {
            protocol: Protocol::Tcp,
            family: Family::V4,
            number: 80.try_into().unwrap(),
            target: "10.96.3.7:80".parse().unwrap(),
            proxy_protocol: None,
        };
        let text = format_metrics(&[port], &[&WorkerStats::new(1)], true);
        let help_lines: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# HELP ")).collect();
        let expected_lines: Vec<_> =
            METRICS.iter().map(|metric| format!("{} {}", metric.name, metric.help)).collect();
        assert_eq!(help_lines, expected_lines);
    }
}
