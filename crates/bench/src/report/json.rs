//! The results as JSON, with every sample. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::footprint::Footprint;
use crate::replacement::Replacements;
use crate::results::Results;
use crate::sample::Sample;
use crate::start::{Start, StartEvent};
use crate::target::{Bound, Target, evaluate};

/// Returns the results and targets.
pub(crate) fn json(results: &Results) -> Value {
    let machine = &results.machine;
    json!({
        "machine": {
            "kernel": machine.kernel,
            "processor": machine.processor,
            "processors": machine.processors,
            "memory_mib": machine.memory,
            "programs": machine.programs.iter().cloned().collect::<BTreeMap<_, _>>(),
        },
        "rounds": results.rounds,
        "seconds": results.seconds,
        "seed": results.seed,
        "samples": results.samples.iter().map(sample).collect::<Vec<_>>(),
        "starts": results.starts.iter().map(start).collect::<Vec<_>>(),
        "replacements": results.replacements.iter().map(replacements).collect::<Vec<_>>(),
        "footprints": results.footprints.iter().map(footprint).collect::<Vec<_>>(),
        "binary": results.binary.map(|size| {
            json!({"bytes": size.uncompressed, "compressed_bytes": size.compressed})
        }),
        "targets": evaluate(results).iter().map(target).collect::<Vec<_>>(),
    })
}

fn sample(sample: &Sample) -> Value {
    json!({
        "measure": sample.load.name(),
        "variant": sample.variant,
        "round": sample.round,
        "per_second": sample.rate,
        "cpu_seconds_per_unit": sample.cpu,
        "p50_seconds": sample.latency.map(|[p50, _]| p50),
        "p99_seconds": sample.latency.map(|[_, p99]| p99),
        "failed": sample.failed,
        "other_cpu_share": sample.other_cpu_share,
    })
}

fn start(start: &Start) -> Value {
    let event = match start.event {
        StartEvent::RulesActive => "rules active",
        StartEvent::Ready => "ready",
        StartEvent::FirstReply => "first reply",
    };
    json!({"variant": start.variant, "round": start.round, "until": event, "seconds": start.seconds})
}

fn replacements(replacements: &Replacements) -> Value {
    json!({
        "variant": replacements.variant,
        "served": replacements.served,
        "failed": replacements.failed,
        "slow": replacements.slow,
    })
}

fn footprint(footprint: &Footprint) -> Value {
    let idle = footprint.idle.map(|idle| {
        json!({
            "connections": idle.connections,
            "bytes_per_connection": idle.memory,
            "descriptors_per_connection": idle.descriptors,
        })
    });
    json!({"variant": footprint.variant, "resident_bytes": footprint.memory, "idle": idle})
}

fn target(target: &Target) -> Value {
    let (bound, limit) = match target.bound {
        Bound::AtLeast(limit) => ("at_least", limit),
        Bound::AtMost(limit) => ("at_most", limit),
    };
    let quartiles =
        target.measured.map(|quartiles| json!([quartiles.lower, quartiles.median, quartiles.upper]));
    json!({
        "variant": target.variant,
        "baseline": target.baseline,
        "quantity": target.quantity,
        bound: limit,
        "quartiles": quartiles,
        "met": target.is_met(),
    })
}
