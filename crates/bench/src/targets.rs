//! The targets, and whether they are met. Pure.

use crate::measure::{Measure, Quantity};
use crate::results::Results;
use crate::start::Until;
use crate::stats::{Spread, paired, ratio};

/// What a figure must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    /// No less.
    AtLeast(f64),
    /// No more.
    AtMost(f64),
}

impl Bound {
    /// Whether a figure is as it must be.
    pub(crate) fn met(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(least) => figure >= least,
            Self::AtMost(most) => figure <= most,
        }
    }
}

/// A target and what was measured.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Judged {
    /// The variant.
    pub(crate) of: &'static str,
    /// The variant to which its figure is set in relation, or the unit of the figure itself.
    pub(crate) against: &'static str,
    /// The figure.
    pub(crate) what: &'static str,
    /// What it must be.
    pub(crate) bound: Bound,
    /// What it is; `None` where it was not measured.
    pub(crate) measured: Option<Spread>,
}

impl Judged {
    /// Whether the target is met, by the median; `None` where it was not measured.
    pub(crate) fn met(&self) -> Option<bool> {
        Some(self.bound.met(self.measured?.median))
    }
}

type Goal = (Quantity, Bound);

/// One port: the same kernel does the same work.
const PARITY: [Goal; 10] = [
    (Quantity::Rate(Measure::Connections), Bound::AtLeast(0.97)),
    (Quantity::Rate(Measure::Up), Bound::AtLeast(0.97)),
    (Quantity::Rate(Measure::Down), Bound::AtLeast(0.97)),
    (Quantity::Rate(Measure::Datagrams), Bound::AtLeast(0.97)),
    (Quantity::Cpu(Measure::Connections), Bound::AtMost(1.03)),
    (Quantity::Cpu(Measure::Up), Bound::AtMost(1.03)),
    (Quantity::Cpu(Measure::Down), Bound::AtMost(1.03)),
    (Quantity::Cpu(Measure::Datagrams), Bound::AtMost(1.03)),
    (Quantity::Cpu(Measure::Requests), Bound::AtMost(1.03)),
    (Quantity::P50, Bound::AtMost(1.05)),
];
/// 1,000 ports: a map against lists of rules.
const MANY: [Goal; 5] = [
    (Quantity::Rate(Measure::Connections), Bound::AtLeast(2.0)),
    (Quantity::Rate(Measure::Down), Bound::AtLeast(1.7)),
    (Quantity::Rate(Measure::Up), Bound::AtLeast(1.4)),
    (Quantity::Rate(Measure::Datagrams), Bound::AtLeast(1.3)),
    (Quantity::P50, Bound::AtMost(0.65)),
];
/// 1,000 ports cost what one costs.
const FLAT: [Goal; 4] = [
    (Quantity::Rate(Measure::Connections), Bound::AtLeast(0.95)),
    (Quantity::Rate(Measure::Up), Bound::AtLeast(0.95)),
    (Quantity::Rate(Measure::Down), Bound::AtLeast(0.95)),
    (Quantity::Rate(Measure::Datagrams), Bound::AtLeast(0.95)),
];
/// Userspace against proxies as they come.
const COPIERS: [Goal; 5] = [
    (Quantity::Rate(Measure::Up), Bound::AtLeast(1.25)),
    (Quantity::Rate(Measure::Down), Bound::AtLeast(1.25)),
    (Quantity::Rate(Measure::Connections), Bound::AtLeast(1.05)),
    (Quantity::Cpu(Measure::Up), Bound::AtMost(0.7)),
    (Quantity::Cpu(Measure::Down), Bound::AtMost(0.7)),
];
/// Userspace against a proxy that splices.
const SPLICERS: [Goal; 3] = [
    (Quantity::Rate(Measure::Down), Bound::AtLeast(1.0)),
    (Quantity::Rate(Measure::Connections), Bound::AtLeast(1.0)),
    (Quantity::Rate(Measure::Up), Bound::AtLeast(1.0)),
];
const PAIRS: [(&str, &str, &[Goal]); 8] = [
    ("akrobateo", "klipper-nft", &PARITY),
    ("akrobateo", "klipper-legacy", &PARITY),
    ("akrobateo-1k", "klipper-nft-1k", &MANY),
    ("akrobateo-1k", "klipper-legacy-1k", &MANY),
    ("akrobateo-1k", "akrobateo", &FLAT),
    ("userspace", "haproxy-proxy", &COPIERS),
    ("userspace", "nginx", &COPIERS),
    ("userspace", "haproxy-splice", &SPLICERS),
];
/// Exec to rules active.
const STARTS: [(&str, &str, f64); 4] = [
    ("akrobateo", "klipper-nft", 1.0 / 4.0),
    ("akrobateo", "klipper-legacy", 1.0 / 4.0),
    ("akrobateo-1k", "klipper-nft-1k", 1.0 / 500.0),
    ("akrobateo-1k", "klipper-legacy-1k", 1.0 / 500.0),
];

/// All targets.
pub(crate) fn judge(results: &Results) -> Vec<Judged> {
    let loads = PAIRS.into_iter().flat_map(|(of, against, goals)| {
        goals.iter().map(move |&(quantity, bound)| {
            let measured = ratio(&results.samples, quantity, of, against);
            Judged { of, against, what: name(quantity), bound, measured }
        })
    });
    let starts = STARTS.into_iter().map(|(of, against, most)| Judged {
        of,
        against,
        what: "exec to rules active",
        bound: Bound::AtMost(most),
        measured: paired(&active(results, of), &active(results, against)),
    });
    loads.chain(starts).chain(figures(results)).collect()
}

/// A variant's starts to rules active, with their rounds.
fn active(results: &Results, variant: &str) -> Vec<(usize, f64)> {
    let starts =
        results.starts.iter().filter(|start| start.until == Until::Active && start.variant == variant);
    starts.map(|start| (start.round, start.seconds)).collect()
}

/// The targets that are figures by themselves.
fn figures(results: &Results) -> Vec<Judged> {
    let figure = |of, against, what, most, figure: Option<f64>| Judged {
        of,
        against,
        what,
        bound: Bound::AtMost(most),
        measured: figure.and_then(|figure| Spread::of(vec![figure])),
    };
    let footprint = |name| results.footprints.iter().find(|footprint| footprint.variant == name);
    let idle = footprint("userspace").and_then(|footprint| footprint.idle);
    let failed = |name| {
        let replaced = results.replaced.iter().find(|replaced| replaced.variant == name);
        replaced.map(|replaced| millionths(replaced.failed) * 1e6)
    };
    let replacements = "connections failed in 100 replacements";
    vec![
        figure("akrobateo", "-", replacements, 0.0, failed("akrobateo")),
        figure("akrobateo-1k", "-", replacements, 0.0, failed("akrobateo-1k")),
        figure(
            "akrobateo-1k",
            "MB",
            "memory",
            2.0,
            footprint("akrobateo-1k").map(|found| millionths(found.memory)),
        ),
        figure("akrobateo", "MB", "image, packed", 1.0, results.image.map(|[_, packed]| millionths(packed))),
        figure("userspace", "KB", "memory per idle connection", 4.0, idle.map(|idle| idle.memory / 1e3)),
        figure("userspace", "-", "descriptors per connection", 2.0, idle.map(|idle| idle.descriptors)),
    ]
}

fn millionths(count: u64) -> f64 {
    crate::sampling::precise(count) / 1e6
}

/// A quantity's name in tables.
pub(crate) fn name(quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::Rate(Measure::Connections) => "conn/s",
        Quantity::Rate(Measure::Up) => "bulk up",
        Quantity::Rate(Measure::Down) => "bulk down",
        Quantity::Rate(Measure::Datagrams) => "UDP pkt/s",
        Quantity::Rate(Measure::Requests) => "requests/s",
        Quantity::Cpu(Measure::Connections) => "CPU per conn",
        Quantity::Cpu(Measure::Up) => "CPU per GB up",
        Quantity::Cpu(Measure::Down) => "CPU per GB down",
        Quantity::Cpu(Measure::Datagrams) => "CPU per UDP pkt",
        Quantity::Cpu(Measure::Requests) => "CPU per request",
        Quantity::P50 => "keep-alive p50",
        Quantity::P99 => "keep-alive p99",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Sample;
    use crate::start::Start;
    use crate::variant::named;

    fn sample(variant: &'static str, rate: f64) -> Sample {
        let measure = Measure::Down;
        Sample { measure, variant, round: 0, rate, cpu: 1.0, latency: None, failed: 0, others: 0.0 }
    }

    #[test]
    fn targets_are_met_missed_or_not_measured() {
        let samples =
            vec![sample("akrobateo", 97.0), sample("klipper-nft", 100.0), sample("akrobateo-1k", 90.0)];
        let judged = judge(&Results { samples, ..Results::default() });
        let met = |of, against| {
            let found =
                judged.iter().find(|one| (one.of, one.against, one.what) == (of, against, "bulk down"));
            found.unwrap().met()
        };
        assert_eq!(met("akrobateo", "klipper-nft"), Some(true));
        assert_eq!(met("akrobateo-1k", "akrobateo"), Some(false));
        assert_eq!(met("userspace", "nginx"), None);
    }

    #[test]
    fn a_start_is_set_in_relation_to_one_of_the_same_round() {
        let start = |variant, round, seconds| Start { variant, round, until: Until::Active, seconds };
        let starts =
            vec![start("akrobateo", 1, 0.002), start("klipper-nft", 0, 5.0), start("klipper-nft", 1, 0.01)];
        let judged = judge(&Results { starts, ..Results::default() });
        let found =
            judged.iter().find(|one| one.what == "exec to rules active" && one.against == "klipper-nft");
        assert!((found.unwrap().measured.unwrap().median - 0.2).abs() < 1e-9);
    }

    #[test]
    fn targets_are_of_variants_that_exist() {
        for judged in judge(&Results::default()) {
            assert!(named(judged.of).is_ok(), "{}", judged.of);
            assert!(
                ["-", "MB", "KB"].contains(&judged.against) || named(judged.against).is_ok(),
                "{}",
                judged.against
            );
        }
    }
}
