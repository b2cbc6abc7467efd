//! All targets of the benchmark. Pure.

use crate::results::Results;
use crate::target::Target;
use crate::{agent_targets, proxy_targets};

/// Returns all targets, with the measured values from `results`.
pub(crate) fn evaluate(results: &Results) -> Vec<Target> {
    [proxy_targets::evaluate(results), agent_targets::evaluate(results)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent_targets::TABLE_VARIANT;
    use crate::load::Load;
    use crate::neighbours::AgentState;
    use crate::proxy_targets::RULES_ACTIVE_QUANTITY;
    use crate::sample::Sample;
    use crate::start::{Start, StartEvent};
    use crate::variant;

    fn sample(variant: &'static str, rate: f64) -> Sample {
        Sample {
            load: Load::Download,
            variant,
            round: 0,
            rate_per_second: rate,
            cpu_seconds_per_unit: 1.0,
            latencies: None,
            failure_count: 0,
            cpu_share_of_other_programs: 0.0,
        }
    }

    #[test]
    fn each_target_is_met_or_missed_or_not_measured() {
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
    fn start_time_is_compared_with_the_baseline_in_the_same_round() {
        let start =
            |variant, round, seconds| Start { variant, round, event: StartEvent::RulesActive, seconds };
        let starts =
            vec![start("akrobateo", 1, 0.002), start("klipper-nft", 0, 5.0), start("klipper-nft", 1, 0.01)];
        let targets = evaluate(&Results { starts, ..Results::default() });
        let target = targets
            .iter()
            .find(|target| target.quantity == RULES_ACTIVE_QUANTITY && target.baseline == "klipper-nft")
            .unwrap();
        assert!((target.measured_value.unwrap().median - 0.2).abs() < 1e-9);
    }

    #[test]
    fn targets_refer_to_existing_variants() {
        for target in evaluate(&Results::default()) {
            let baseline_is_unit = ["-", "MB", "KB"].contains(&target.baseline);
            if target.baseline == AgentState::Absent.name() || target.variant == TABLE_VARIANT {
                continue;
            }
            assert!(variant::get(target.variant).is_ok(), "{}", target.variant);
            assert!(baseline_is_unit || variant::get(target.baseline).is_ok(), "{}", target.baseline);
        }
    }
}
