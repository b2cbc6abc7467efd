//! A target of the benchmark, and the check that a measured value meets it. Pure.

use crate::quantity::Quantity;
use crate::quartiles::Quartiles;
use crate::sample::Sample;

/// The lower or upper limit of a target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum TargetLimit {
    /// The measured value must be at least this limit.
    AtLeast(f64),
    /// The measured value must be at most this limit.
    AtMost(f64),
}

impl TargetLimit {
    /// Returns true if the limit allows the measured value.
    pub(crate) fn allows(self, value: f64) -> bool {
        match self {
            Self::AtLeast(minimum) => value >= minimum,
            Self::AtMost(maximum) => value <= maximum,
        }
    }
}

/// A target with its measured value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    /// The variant.
    pub(crate) variant: &'static str,
    /// The variant to compare with. If the measured value is not a ratio, this field is its unit.
    pub(crate) baseline: &'static str,
    /// The quantity's name in tables.
    pub(crate) quantity: &'static str,
    /// The limit for the measured value.
    pub(crate) limit: TargetLimit,
    /// The measured value, or `None` if this value was not measured.
    pub(crate) measured_value: Option<Quartiles>,
}

impl Target {
    /// Returns true if the median meets the target, or `None` if the value was not measured.
    pub(crate) fn is_met(&self) -> Option<bool> {
        Some(self.limit.allows(self.measured_value?.median))
    }
}

/// A quantity, and the limit for its ratio to the baseline.
pub(crate) type RatioLimit = (Quantity, TargetLimit);

/// A variant, its baseline, and the limits for their ratios.
pub(crate) type Comparison = (&'static str, &'static str, &'static [RatioLimit]);

/// Returns one target for each limit of each comparison. The samples were measured under load.
pub(crate) fn compare_loads(comparisons: &[Comparison], samples: &[Sample]) -> Vec<Target> {
    let targets = comparisons.iter().flat_map(|&(variant, baseline, limits)| {
        limits.iter().map(move |&(quantity, limit)| {
            let measured_value = Quartiles::from_ratios(samples, quantity, variant, baseline);
            Target { variant, baseline, quantity: quantity.title(), limit, measured_value }
        })
    });
    targets.collect()
}
