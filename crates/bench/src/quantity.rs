//! The quantities that are compared. Pure.

use crate::load::Load;
use crate::sample::Sample;

/// A quantity of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quantity {
    /// Units per second.
    Rate(Load),
    /// CPU seconds per unit.
    CpuPerUnit(Load),
    /// The median latency of requests.
    P50,
    /// The 99th percentile of the latency of requests.
    P99,
}

impl Quantity {
    /// Returns the value in `sample`, or `None` if the sample belongs to another load.
    pub(crate) fn value(self, sample: &Sample) -> Option<f64> {
        match self {
            Self::Rate(load) => (sample.load == load).then_some(sample.rate),
            Self::CpuPerUnit(load) => (sample.load == load).then_some(sample.cpu),
            Self::P50 => sample.latency.map(|[p50, _]| p50),
            Self::P99 => sample.latency.map(|[_, p99]| p99),
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
            Self::CpuPerUnit(Load::Connections) => "CPU per conn",
            Self::CpuPerUnit(Load::Upload) => "CPU per GB up",
            Self::CpuPerUnit(Load::Download) => "CPU per GB down",
            Self::CpuPerUnit(Load::Udp) => "CPU per UDP pkt",
            Self::CpuPerUnit(Load::Requests) => "CPU per request",
            Self::P50 => "keep-alive p50",
            Self::P99 => "keep-alive p99",
        }
    }
}
