//! Writes metrics in Prometheus' text format. A registry is not necessary, because each scrape reads the current
//! values. Pure.

use std::fmt::{self, Display, Write};

/// The content type of Prometheus' text format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The name, type and help of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricDefinition {
    /// The name, with the prefix `akrobateo_lb_`.
    pub name: &'static str,
    /// The type.
    pub kind: MetricKind,
    /// The help: one line without a backslash.
    pub help: &'static str,
}

/// The connections of each port. The userspace path counts only connections that reached a backend.
pub const CONNECTIONS_METRIC: MetricDefinition = MetricDefinition {
    name: "akrobateo_lb_connections_total",
    kind: MetricKind::Counter,
    help: "Forwarded TCP connections, and UDP flows, by the port to which clients connect.",
};
/// The denied connections of each port. Only a proxy with source ranges has this metric.
pub const REFUSED_CONNECTIONS_METRIC: MetricDefinition = MetricDefinition {
    name: "akrobateo_lb_refused_connections_total",
    kind: MetricKind::Counter,
    help: "Connection attempts from outside the source ranges; each retry is counted.",
};
/// The packets of each port and direction.
pub const PACKETS_METRIC: MetricDefinition = MetricDefinition {
    name: "akrobateo_lb_packets_total",
    kind: MetricKind::Counter,
    help: "Packets forwarded from clients (in) and to clients (out); \
           segments merged by the kernel are counted as one packet.",
};
/// The bytes of each port and direction.
pub const BYTES_METRIC: MetricDefinition = MetricDefinition {
    name: "akrobateo_lb_bytes_total",
    kind: MetricKind::Counter,
    help: "Bytes forwarded from clients (in) and to clients (out); the kernel data path includes IP headers.",
};

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// A number that only increases, and starts from zero after a restart.
    Counter,
    /// A number that can increase and decrease.
    Gauge,
}

impl MetricKind {
    /// Returns Prometheus' name of the type.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// The text of a metrics response, to which metrics are appended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsText(String);

impl MetricsText {
    /// Begins a metric. The caller must write all samples of this metric before the next metric begins.
    pub fn begin_metric(&mut self, definition: &MetricDefinition) -> Metric<'_> {
        let MetricDefinition { name, kind, help } = *definition;
        let kind = kind.as_str();
        // Writing to a String cannot fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Metric { text: self, name }
    }

    /// Returns the complete text of the metrics.
    #[must_use]
    pub fn finish(self) -> String {
        self.0
    }
}

/// A metric to which samples are appended.
#[derive(Debug)]
pub struct Metric<'a> {
    text: &'a mut MetricsText,
    name: &'static str,
}

impl Metric<'_> {
    /// Writes the only sample of a metric without labels.
    pub fn write_value(&mut self, value: impl Display) -> &mut Self {
        self.write_sample(&[], value)
    }

    /// Writes a sample with labels. The label values are not escaped, so only fixed texts and numbers are allowed, not
    /// names of objects.
    pub fn write_sample(&mut self, labels: &[(&str, &dyn Display)], value: impl Display) -> &mut Self {
        let _ = self.write_line(labels, value);
        self
    }

    fn write_line(&mut self, labels: &[(&str, &dyn Display)], value: impl Display) -> fmt::Result {
        let out = &mut self.text.0;
        out.push_str(self.name);
        for (index, (name, label)) in labels.iter().enumerate() {
            let separator = if index == 0 { '{' } else { ',' };
            write!(out, "{separator}{name}=\"{label}\"")?;
        }
        if !labels.is_empty() {
            out.push('}');
        }
        writeln!(out, " {value}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_written_in_prometheus_text_format() {
        let mut text = MetricsText::default();
        let up = MetricDefinition {
            name: "akrobateo_lb_up",
            kind: MetricKind::Gauge,
            help: "1 if the proxy is up.",
        };
        let packets = MetricDefinition {
            name: "akrobateo_lb_packets_total",
            kind: MetricKind::Counter,
            help: "Packets.",
        };
        text.begin_metric(&up).write_value(1);
        text.begin_metric(&packets)
            .write_sample(&[("protocol", &"tcp"), ("port", &80)], 7)
            .write_sample(&[("protocol", &"udp"), ("port", &53)], u64::MAX);
        let expected = "\
# HELP akrobateo_lb_up 1 if the proxy is up.
# TYPE akrobateo_lb_up gauge
akrobateo_lb_up 1
# HELP akrobateo_lb_packets_total Packets.
# TYPE akrobateo_lb_packets_total counter
akrobateo_lb_packets_total{protocol=\"tcp\",port=\"80\"} 7
akrobateo_lb_packets_total{protocol=\"udp\",port=\"53\"} 18446744073709551615
";
        assert_eq!(text.finish(), expected);
    }
}
