//! Medians and quartiles. Pure.

use crate::measure::{Quantity, Sample};

/// The middle of several figures, and the quarters around it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    /// A quarter of the figures is below.
    pub(crate) low: f64,
    /// Half of the figures is below.
    pub(crate) median: f64,
    /// A quarter of the figures is above.
    pub(crate) high: f64,
}

impl Spread {
    /// Of these figures; `None` of none.
    pub(crate) fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.retain(|figure| figure.is_finite());
        figures.sort_by(f64::total_cmp);
        let last = figures.len().checked_sub(1)?;
        // Between two figures the mean of both, as is usual for the median.
        let at = |quarter: usize| {
            let (below, rest) = (last * quarter / 4, last * quarter % 4);
            let above = (below + 1).min(last);
            let weight = [0.0, 0.25, 0.5, 0.75][rest];
            figures[below] * (1.0 - weight) + figures[above] * weight
        };
        Some(Self { low: at(1), median: at(2), high: at(3) })
    }
}

/// A variant's figures, each with its round.
pub(crate) fn figures(samples: &[Sample], quantity: Quantity, variant: &str) -> Vec<(usize, f64)> {
    let of_variant = samples.iter().filter(|sample| sample.variant == variant);
    of_variant.filter_map(|sample| Some((sample.round, quantity.of(sample)?))).collect()
}

/// A variant's figures by themselves.
pub(crate) fn absolute(samples: &[Sample], quantity: Quantity, of: &str) -> Option<Spread> {
    Spread::of(figures(samples, quantity, of).into_iter().map(|(_, figure)| figure).collect())
}

/// The ratios of a variant's figures to another's of the same round.
pub(crate) fn ratio(samples: &[Sample], quantity: Quantity, of: &str, against: &str) -> Option<Spread> {
    paired(&figures(samples, quantity, of), &figures(samples, quantity, against))
}

/// The ratios of figures to those of the same round.
pub(crate) fn paired(of: &[(usize, f64)], against: &[(usize, f64)]) -> Option<Spread> {
    let ratios = of.iter().filter_map(|(round, figure)| {
        let (_, base) = against.iter().find(|(other, _)| other == round)?;
        Some(figure / base)
    });
    Spread::of(ratios.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Measure;

    fn sample(variant: &'static str, round: usize, rate: f64) -> Sample {
        let measure = Measure::Up;
        Sample { measure, variant, round, rate, cpu: 1.0 / rate, latency: None, failed: 0, others: 0.0 }
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_two_in_the_middle() {
        let spread = Spread::of(vec![4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(spread, Spread { low: 1.75, median: 2.5, high: 3.25 });
        assert_eq!(Spread::of(vec![7.0]), Some(Spread { low: 7.0, median: 7.0, high: 7.0 }));
        assert_eq!(Spread::of(vec![]), None);
    }

    #[test]
    fn ratios_are_between_samples_of_one_round_only() {
        let samples = [
            sample("a", 0, 10.0),
            sample("b", 0, 20.0),
            sample("b", 1, 200.0),
            sample("a", 1, 50.0),
            sample("a", 2, 1.0),
        ];
        let rate = ratio(&samples, Quantity::Rate(Measure::Up), "a", "b").unwrap();
        assert!((rate.median - 0.375).abs() < 1e-9);
        let cpu = ratio(&samples, Quantity::Cpu(Measure::Up), "a", "b").unwrap();
        assert!((cpu.median - 3.0).abs() < 1e-9);
        assert_eq!(ratio(&samples, Quantity::P50, "a", "b"), None);
        assert_eq!(ratio(&samples, Quantity::Rate(Measure::Up), "a", "c"), None);
    }
}
