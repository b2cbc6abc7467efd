//! The results of all sizes. Pure.

use std::time::Duration;

use crate::size::Size;

/// The unit of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Milliseconds,
    /// Per cent of one processor.
    PercentOfCore,
    /// Megabytes of 1,000,000 bytes.
    Megabytes,
    Count,
    PerSecond,
    MegabytesPerSecond,
}

impl Unit {
    /// The name in tables.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
            Self::PercentOfCore => "% of a core",
            Self::Megabytes => "MB",
            Self::Count => "",
            Self::PerSecond => "/s",
            Self::MegabytesPerSecond => "MB/s",
        }
    }
}

/// One measured value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Measurement {
    /// The name of the measure.
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: Unit,
    /// The largest value that meets the target at 1,000 Services on 100 nodes; `None` without a target.
    pub(crate) target: Option<f64>,
}

/// The measurements of one size.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SizeResults {
    pub(crate) size: Size,
    pub(crate) measurements: Vec<Measurement>,
}

impl SizeResults {
    /// Returns results without measurements.
    pub(crate) const fn new(size: Size) -> Self {
        Self { size, measurements: Vec::new() }
    }

    /// Adds a value without a target.
    pub(crate) fn add(&mut self, name: &str, value: f64, unit: Unit) {
        self.add_with_target(name, value, unit, None);
    }

    /// Adds a value that must not exceed the target.
    pub(crate) fn add_with_target(&mut self, name: &str, value: f64, unit: Unit, target: Option<f64>) {
        self.measurements.push(Measurement { name: name.to_owned(), value, unit, target });
    }

    /// Adds a duration in milliseconds. Adds nothing if the duration was not measured.
    pub(crate) fn add_latency(&mut self, name: &str, duration: Option<Duration>, target: Option<f64>) {
        let Some(duration) = duration else { return };
        self.add_with_target(name, duration.as_secs_f64() * 1e3, Unit::Milliseconds, target);
    }

    /// Returns the measurement with this name.
    pub(crate) fn get(&self, name: &str) -> Option<&Measurement> {
        self.measurements.iter().find(|it| it.name == name)
    }
}

/// Converts a count. The conversion is exact up to 2^52.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(crate) fn to_f64(count: usize) -> f64 {
    count as f64
}
