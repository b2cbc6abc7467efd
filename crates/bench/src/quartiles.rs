//! Medians and quartiles of values, and of ratios between two variants. Pure.

use crate::quantity::Quantity;
use crate::sample::Sample;

/// The quartiles of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quartiles {
    /// The lower quartile: a quarter of the values is lower.
    pub(crate) lower_quartile: f64,
    /// The median: half of the values is lower.
    pub(crate) median: f64,
    /// The upper quartile: a quarter of the values is higher.
    pub(crate) upper_quartile: f64,
}

impl Quartiles {
    /// Returns the quartiles of the finite values, or `None` if no value is finite.
    pub(crate) fn new(mut values: Vec<f64>) -> Option<Self> {
        values.retain(|value| value.is_finite());
        values.sort_by(f64::total_cmp);
        let last_index = values.len().checked_sub(1)?;
        // Interpolates between two values, as usual for a median.
        let quartile = |number: usize| {
            let (index, rest) = (last_index * number / 4, last_index * number % 4);
            let interpolation_weight = [0.0, 0.25, 0.5, 0.75][rest];
            values[index] * (1.0 - interpolation_weight)
                + values[(index + 1).min(last_index)] * interpolation_weight
        };
        Some(Self { lower_quartile: quartile(1), median: quartile(2), upper_quartile: quartile(3) })
    }

    /// Returns the quartiles of a variant's values.
    pub(crate) fn from_samples(samples: &[Sample], quantity: Quantity, variant: &str) -> Option<Self> {
        Self::new(values(samples, quantity, variant).into_iter().map(|(_, value)| value).collect())
    }

    /// Returns the quartiles of the ratios of a variant's values to the baseline's values.
    pub(crate) fn from_ratios(
        samples: &[Sample],
        quantity: Quantity,
        variant: &str,
        baseline: &str,
    ) -> Option<Self> {
        Self::from_ratios_by_round(&values(samples, quantity, variant), &values(samples, quantity, baseline))
    }

    /// Returns the quartiles of the ratios between values of the same round. Each pair consists of a round and the
    /// value of the round.
    pub(crate) fn from_ratios_by_round(values: &[(usize, f64)], baseline: &[(usize, f64)]) -> Option<Self> {
        let ratios = values.iter().filter_map(|(round, value)| {
            let (_, base) = baseline.iter().find(|(base_round, _)| base_round == round)?;
            Some(value / base)
        });
        Self::new(ratios.collect())
    }
}

/// Returns a variant's values, each with its round.
fn values(samples: &[Sample], quantity: Quantity, variant: &str) -> Vec<(usize, f64)> {
    let variant_samples = samples.iter().filter(|sample| sample.variant == variant);
    variant_samples.filter_map(|sample| Some((sample.round, quantity.value(sample)?))).collect()
}

/// Converts a count. The conversion is exact up to 2^52.
#[expect(clippy::cast_precision_loss, reason = "counts of one sample are far below 2^52")]
pub(crate) fn to_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Load;

    fn sample(variant: &'static str, round: usize, rate: f64) -> Sample {
        Sample {
            load: Load::Upload,
            variant,
            round,
            rate_per_second: rate,
            cpu_seconds_per_unit: 1.0 / rate,
            latencies: None,
            failure_count: 0,
            cpu_share_of_other_programs: 0.0,
        }
    }

    #[test]
    fn median_of_an_even_number_of_values_is_interpolated() {
        let quartiles = Quartiles::new(vec![4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(quartiles, Quartiles { lower_quartile: 1.75, median: 2.5, upper_quartile: 3.25 });
        assert_eq!(
            Quartiles::new(vec![7.0]),
            Some(Quartiles { lower_quartile: 7.0, median: 7.0, upper_quartile: 7.0 })
        );
        assert_eq!(Quartiles::new(vec![]), None);
    }

    #[test]
    fn ratios_compare_samples_of_the_same_round() {
        let samples = [
            sample("a", 0, 10.0),
            sample("b", 0, 20.0),
            sample("b", 1, 200.0),
            sample("a", 1, 50.0),
            sample("a", 2, 1.0),
        ];
        let rate_ratios = Quartiles::from_ratios(&samples, Quantity::Rate(Load::Upload), "a", "b").unwrap();
        assert!((rate_ratios.median - 0.375).abs() < 1e-9);
        let cpu_ratios =
            Quartiles::from_ratios(&samples, Quantity::CpuTimePerUnitOfLoad(Load::Upload), "a", "b").unwrap();
        assert!((cpu_ratios.median - 3.0).abs() < 1e-9);
        assert_eq!(Quartiles::from_ratios(&samples, Quantity::MedianLatency, "a", "b"), None);
        assert_eq!(Quartiles::from_ratios(&samples, Quantity::Rate(Load::Upload), "a", "c"), None);
    }
}
