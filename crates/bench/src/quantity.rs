//! The quantities that the benchmark compares. Pure.

use crate::load::Load;
use crate::sample::Sample;

/// A quantity of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quantity {
    /// Units per second.
    Rate(Load),
    /// CPU seconds per byte, request or connection, depending on the load.
    CpuTimePerUnitOfLoad(Load),
    /// The median latency of requests.
    MedianLatency,
    /// The 99th percentile of the latency of requests.
    P99Latency,
    /// The 10th percentile of the time of an exchange on one processor. On one processor, this time equals the CPU time
    /// of the exchange.
    ExchangeTime(Load),
}

impl Quantity {
    /// Returns the value in `sample`, or `None` if the sample belongs to another load.
    pub(crate) fn value(self, sample: &Sample) -> Option<f64> {
        let latencies = |load| sample.latencies.filter(|_| sample.load == load);
        match self {
            Self::Rate(load) => (sample.load == load).then_some(sample.rate_per_second),
            Self::CpuTimePerUnitOfLoad(load) => (sample.load == load).then_some(sample.cpu_seconds_per_unit),
            Self::MedianLatency => latencies(Load::Requests).map(|latencies| latencies.p50),
            Self::P99Latency => latencies(Load::Requests).map(|latencies| latencies.p99),
            Self::ExchangeTime(load) => latencies(load).map(|latencies| latencies.p10),
        }
    }

    /// The name in tables.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Rate(Load::Connections) => "conn/s",
            Self::Rate(Load::Upload) => "bulk up",
            Self::Rate(Load::Download) => "bulk down",
            Self::Rate(Load::Udp) => "UDP pkt/s",
            Self::Rate(Load::Requests) => "requests/s",
            Self::Rate(Load::SingleConnection) => "single conn/s",
            Self::Rate(Load::SingleDatagram) => "single UDP/s",
            Self::CpuTimePerUnitOfLoad(Load::SingleConnection) => "CPU per single conn",
            Self::CpuTimePerUnitOfLoad(Load::SingleDatagram) => "CPU per single UDP",
            Self::ExchangeTime(Load::SingleDatagram) => "time of a UDP round trip",
            Self::ExchangeTime(_) => "time of a connection",
            Self::CpuTimePerUnitOfLoad(Load::Connections) => "CPU per conn",
            Self::CpuTimePerUnitOfLoad(Load::Upload) => "CPU per uploaded GB",
            Self::CpuTimePerUnitOfLoad(Load::Download) => "CPU per downloaded GB",
            Self::CpuTimePerUnitOfLoad(Load::Udp) => "CPU per UDP pkt",
            Self::CpuTimePerUnitOfLoad(Load::Requests) => "CPU per request",
            Self::MedianLatency => "keep-alive p50",
            Self::P99Latency => "keep-alive p99",
        }
    }
}
