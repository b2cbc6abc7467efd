//! Prometheus' text format, written without a registry: figures are read when they are asked for. Pure.

use std::fmt::{self, Display, Write};

/// Of an answer in this format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A metric, as its users are told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Begins with `akrobateo_lb_`.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// One line without a backslash.
    pub help: &'static str,
}

/// By port. In userspace, those that reached a backend.
pub const CONNECTIONS: Definition = Definition {
    name: "akrobateo_lb_connections_total",
    kind: Kind::Counter,
    help: "Flows forwarded, by the port that clients address: TCP connections, and UDP clients that were not silent for long.",
};
/// By port, only with source ranges.
pub const REFUSED: Definition = Definition {
    name: "akrobateo_lb_refused_connections_total",
    kind: Kind::Counter,
    help: "Attempts to connect from outside of the source ranges; each retry counts.",
};
/// By port and direction.
pub const PACKETS: Definition = Definition {
    name: "akrobateo_lb_packets_total",
    kind: Kind::Counter,
    help: "Packets forwarded from clients (in) and to them (out); segments that the kernel handles as one count once.",
};
/// By port and direction.
pub const BYTES: Definition = Definition {
    name: "akrobateo_lb_bytes_total",
    kind: Kind::Counter,
    help: "Bytes forwarded from clients (in) and to them (out); by the kernel with IP headers, in userspace without.",
};

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; begins anew from zero at times.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// An answer under construction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text(String);

impl Text {
    /// Begins a metric, of which all samples follow.
    pub fn metric(&mut self, definition: &Definition) -> Metric<'_> {
        let Definition { name, kind, help } = *definition;
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        // Writing to a String can't fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Metric { text: self, name }
    }

    /// The whole answer.
    #[must_use]
    pub fn finish(self) -> String {
        self.0
    }
}

/// A metric whose samples are being written.
#[derive(Debug)]
pub struct Metric<'a> {
    text: &'a mut Text,
    name: &'static str,
}

impl Metric<'_> {
    /// The only sample of a metric without labels.
    pub fn value(&mut self, value: impl Display) -> &mut Self {
        self.sample(&[], value)
    }

    /// A sample with labels, whose values need no escaping: never names of objects, never texts of errors.
    pub fn sample(&mut self, labels: &[(&str, &dyn Display)], value: impl Display) -> &mut Self {
        let _ = self.write(labels, value);
        self
    }

    fn write(&mut self, labels: &[(&str, &dyn Display)], value: impl Display) -> fmt::Result {
        let out = &mut self.text.0;
        out.push_str(self.name);
        for (at, (name, label)) in labels.iter().enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            write!(out, "{before}{name}=\"{label}\"")?;
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
    fn metrics_are_written_as_prometheus_reads_them() {
        let mut text = Text::default();
        let up = Definition { name: "akrobateo_lb_up", kind: Kind::Gauge, help: "Whether it is." };
        let packets =
            Definition { name: "akrobateo_lb_packets_total", kind: Kind::Counter, help: "Packets." };
        text.metric(&up).value(1);
        text.metric(&packets)
            .sample(&[("protocol", &"tcp"), ("port", &80)], 7)
            .sample(&[("protocol", &"udp"), ("port", &53)], u64::MAX);
        let expected = "\
# HELP akrobateo_lb_up Whether it is.
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
