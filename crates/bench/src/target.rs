//! The targets, and whether they are met. Pure.

use crate::load::Load;
use crate::quantity::Quantity;
use crate::quartiles::{Quartiles, to_f64};
use crate::results::Results;
use crate::start::StartEvent;

/// The bound of a target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    /// The value must not be lower.
    AtLeast(f64),
    /// The value must not be higher.
    AtMost(f64),
}

impl Bound {
    /// Returns true if the bound allows the value.
    pub(crate) fn allows(self, value: f64) -> bool {
        match self {
            Self::AtLeast(limit) => value >= limit,
            Self::AtMost(limit) => value <= limit,
        }
    }
}

/// A target with its measured value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    /// The variant.
    pub(crate) variant: &'static str,
    /// The variant that the value is a ratio to, or the unit of an absolute value.
    pub(crate) baseline: &'static str,
    /// The quantity's name in tables.
    pub(crate) quantity: &'static str,
    /// The bound of the value.
    pub(crate) bound: Bound,
    /// The measured value; `None` if it was not measured.
    pub(crate) measured: Option<Quartiles>,
}

impl Target {
    /// Returns whether the median meets the target; `None` if it was not measured.
    pub(crate) fn is_met(&self) -> Option<bool> {
        Some(self.bound.allows(self.measured?.median))
    }
}

/// A quantity and the bound of its ratio.
type RatioBound = (Quantity, Bound);

/// One port, against klipper-lb: the kernel does the same work.
const ONE_PORT: [RatioBound; 10] = [
    (Quantity::Rate(Load::Connections), Bound::AtLeast(0.97)),
    (Quantity::Rate(Load::Upload), Bound::AtLeast(0.97)),
    (Quantity::Rate(Load::Download), Bound::AtLeast(0.97)),
    (Quantity::Rate(Load::Udp), Bound::AtLeast(0.97)),
    (Quantity::Cpu(Load::Connections), Bound::AtMost(1.03)),
    (Quantity::Cpu(Load::Upload), Bound::AtMost(1.03)),
    (Quantity::Cpu(Load::Download), Bound::AtMost(1.03)),
    (Quantity::Cpu(Load::Udp), Bound::AtMost(1.03)),
    (Quantity::Cpu(Load::Requests), Bound::AtMost(1.03)),
    (Quantity::P50, Bound::AtMost(1.05)),
];
/// 1,000 ports, against klipper-lb: a map against lists of rules.
const MANY_PORTS: [RatioBound; 5] = [
    (Quantity::Rate(Load::Connections), Bound::AtLeast(2.0)),
    (Quantity::Rate(Load::Download), Bound::AtLeast(1.7)),
    (Quantity::Rate(Load::Upload), Bound::AtLeast(1.4)),
    (Quantity::Rate(Load::Udp), Bound::AtLeast(1.3)),
    (Quantity::P50, Bound::AtMost(0.65)),
];
/// 1,000 ports, against one port: the rates are the same.
const PORT_COUNT: [RatioBound; 4] = [
    (Quantity::Rate(Load::Connections), Bound::AtLeast(0.95)),
    (Quantity::Rate(Load::Upload), Bound::AtLeast(0.95)),
    (Quantity::Rate(Load::Download), Bound::AtLeast(0.95)),
    (Quantity::Rate(Load::Udp), Bound::AtLeast(0.95)),
];
/// Userspace mode, against proxies with their defaults.
const USERSPACE: [RatioBound; 5] = [
    (Quantity::Rate(Load::Upload), Bound::AtLeast(1.25)),
    (Quantity::Rate(Load::Download), Bound::AtLeast(1.25)),
    (Quantity::Rate(Load::Connections), Bound::AtLeast(1.05)),
    (Quantity::Cpu(Load::Upload), Bound::AtMost(0.7)),
    (Quantity::Cpu(Load::Download), Bound::AtMost(0.7)),
];
/// Userspace mode, against a proxy with forced splicing.
const USERSPACE_SPLICE: [RatioBound; 3] = [
    (Quantity::Rate(Load::Download), Bound::AtLeast(1.0)),
    (Quantity::Rate(Load::Connections), Bound::AtLeast(1.0)),
    (Quantity::Rate(Load::Upload), Bound::AtLeast(1.0)),
];
/// Variant, baseline, and the bounds of their ratios.
const COMPARISONS: [(&str, &str, &[RatioBound]); 8] = [
    ("akrobateo", "klipper-nft", &ONE_PORT),
    ("akrobateo", "klipper-legacy", &ONE_PORT),
    ("akrobateo-1k", "klipper-nft-1k", &MANY_PORTS),
    ("akrobateo-1k", "klipper-legacy-1k", &MANY_PORTS),
    ("akrobateo-1k", "akrobateo", &PORT_COUNT),
    ("userspace", "haproxy-proxy", &USERSPACE),
    ("userspace", "nginx", &USERSPACE),
    ("userspace", "haproxy-splice", &USERSPACE_SPLICE),
];
/// Variant, baseline, and the highest ratio of their times from exec to active rules.
const STARTS: [(&str, &str, f64); 4] = [
    ("akrobateo", "klipper-nft", 1.0 / 4.0),
    ("akrobateo", "klipper-legacy", 1.0 / 4.0),
    ("akrobateo-1k", "klipper-nft-1k", 1.0 / 500.0),
    ("akrobateo-1k", "klipper-legacy-1k", 1.0 / 500.0),
];
/// The quantity of [`STARTS`] in tables.
pub(crate) const RULES_ACTIVE: &str = "exec to rules active";

/// Returns all targets with the values that `results` has.
pub(crate) fn evaluate(results: &Results) -> Vec<Target> {
    let loads = COMPARISONS.into_iter().flat_map(|(variant, baseline, bounds)| {
        bounds.iter().map(move |&(quantity, bound)| {
            let measured = Quartiles::from_ratios(&results.samples, quantity, variant, baseline);
            Target { variant, baseline, quantity: quantity.title(), bound, measured }
        })
    });
    let starts = STARTS.into_iter().map(|(variant, baseline, limit)| {
        let [times, baseline_times] = [variant, baseline].map(|name| rules_active_times(results, name));
        let measured = Quartiles::from_pairs(&times, &baseline_times);
        Target { variant, baseline, quantity: RULES_ACTIVE, bound: Bound::AtMost(limit), measured }
    });
    loads.chain(starts).chain(absolute_targets(results)).collect()
}

/// Returns a variant's times from exec to active rules, each with its round.
fn rules_active_times(results: &Results, variant: &str) -> Vec<(usize, f64)> {
    let starts = results
        .starts
        .iter()
        .filter(|start| start.event == StartEvent::RulesActive && start.variant == variant);
    starts.map(|start| (start.round, start.seconds)).collect()
}

fn absolute_targets(results: &Results) -> Vec<Target> {
    let target = |variant, unit, quantity, limit, value: Option<f64>| Target {
        variant,
        baseline: unit,
        quantity,
        bound: Bound::AtMost(limit),
        measured: value.and_then(|value| Quartiles::new(vec![value])),
    };
    let megabytes = |bytes| to_f64(bytes) / 1e6;
    let footprint = |variant| results.footprints.iter().find(|footprint| footprint.variant == variant);
    let idle = footprint("userspace").and_then(|footprint| footprint.idle);
    let memory = footprint("akrobateo-1k").map(|footprint| megabytes(footprint.memory));
    let image = results.binary.map(|size| megabytes(size.compressed));
    let replacement_target = |variant| {
        let found = results.replacements.iter().find(|replacements| replacements.variant == variant);
        let failed = found.map(|replacements| to_f64(replacements.failed));
        target(variant, "-", "connections failed in 100 replacements", 0.0, failed)
    };
    vec![
        replacement_target("akrobateo"),
        replacement_target("akrobateo-1k"),
        target("akrobateo-1k", "MB", "memory", 2.0, memory),
        target("akrobateo", "MB", "image, compressed", 1.0, image),
        target("userspace", "KB", "memory per idle connection", 4.0, idle.map(|idle| idle.memory / 1e3)),
        target("userspace", "-", "descriptors per connection", 2.0, idle.map(|idle| idle.descriptors)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;
    use crate::start::Start;
    use crate::variant;

    fn sample(variant: &'static str, rate: f64) -> Sample {
        Sample {
            load: Load::Download,
            variant,
            round: 0,
            rate,
            cpu: 1.0,
            latency: None,
            failed: 0,
            other_cpu_share: 0.0,
        }
    }

    #[test]
    fn targets_are_met_missed_or_not_measured() {
        let samples =
            vec![sample("akrobateo", 97.0), sample("klipper-nft", 100.0), sample("akrobateo-1k", 90.0)];
        let targets = evaluate(&Results { samples, ..Results::default() });
        let is_met = |variant, baseline| {
            let key = (variant, baseline, "bulk down");
            let target =
                targets.iter().find(|target| (target.variant, target.baseline, target.quantity) == key);
            target.unwrap().is_met()
        };
        assert_eq!(is_met("akrobateo", "klipper-nft"), Some(true));
        assert_eq!(is_met("akrobateo-1k", "akrobateo"), Some(false));
        assert_eq!(is_met("userspace", "nginx"), None);
    }

    #[test]
    fn start_is_compared_with_the_baseline_of_the_same_round() {
        let start =
            |variant, round, seconds| Start { variant, round, event: StartEvent::RulesActive, seconds };
        let starts =
            vec![start("akrobateo", 1, 0.002), start("klipper-nft", 0, 5.0), start("klipper-nft", 1, 0.01)];
        let targets = evaluate(&Results { starts, ..Results::default() });
        let target = targets
            .iter()
            .find(|target| target.quantity == RULES_ACTIVE && target.baseline == "klipper-nft")
            .unwrap();
        assert!((target.measured.unwrap().median - 0.2).abs() < 1e-9);
    }

    #[test]
    fn targets_name_existing_variants() {
        for target in evaluate(&Results::default()) {
            assert!(variant::get(target.variant).is_ok(), "{}", target.variant);
            let is_unit = ["-", "MB", "KB"].contains(&target.baseline);
            assert!(is_unit || variant::get(target.baseline).is_ok(), "{}", target.baseline);
        }
    }
}
