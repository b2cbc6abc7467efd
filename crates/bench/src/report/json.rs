//! The results as JSON, with every sample. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::chain_costs::ChainSample;
use crate::footprint::Footprint;
use crate::neighbours::NeighbourSample;
use crate::node_table::{TableResult, TableStep};
use crate::replacement::ReplacementResult;
use crate::results::Results;
use crate::sample::Sample;
use crate::start::{Start, StartEvent};
use crate::target::{Target, TargetLimit};
use crate::targets;

/// Returns the results and the targets as JSON.
pub(crate) fn results_to_json(results: &Results) -> Value {
    let machine = &results.machine;
    json!({
        "machine": {
            "kernel": machine.kernel,
            "processor": machine.processor_model,
            "processors": machine.processor_count,
            "memory_mib": machine.memory_mebibytes,
            "programs": results.program_versions.iter().cloned().collect::<BTreeMap<_, _>>(),
        },
        "rounds": results.rounds,
        "seconds": results.seconds,
        "seed": results.seed,
        "samples": results.samples.iter().map(sample_to_json).collect::<Vec<_>>(),
        "starts": results.starts.iter().map(start_to_json).collect::<Vec<_>>(),
        "replacements": results.replacements.iter().map(replacement_result_to_json).collect::<Vec<_>>(),
        "footprints": results.footprints.iter().map(footprint_to_json).collect::<Vec<_>>(),
        "binary": results.binary_size.map(|size| {
            json!({"bytes": size.uncompressed_bytes, "compressed_bytes": size.compressed_bytes})
        }),
        "neighbours": results.neighbours.iter().map(neighbour_sample_to_json).collect::<Vec<_>>(),
        "chains": results.chains.iter().map(chain_sample_to_json).collect::<Vec<_>>(),
        "table": results.table.as_ref().map(table_result_to_json),
        "targets": targets::evaluate(results).iter().map(target_to_json).collect::<Vec<_>>(),
    })
}

fn sample_to_json(sample: &Sample) -> Value {
    json!({
        "measure": sample.load.name(),
        "variant": sample.variant,
        "round": sample.round,
        "per_second": sample.rate_per_second,
        "cpu_seconds_per_unit": sample.cpu_seconds_per_unit,
        "p10_seconds": sample.latencies.map(|latencies| latencies.p10),
        "p50_seconds": sample.latencies.map(|latencies| latencies.p50),
        "p99_seconds": sample.latencies.map(|latencies| latencies.p99),
        "failed": sample.failure_count,
        "other_cpu_share": sample.cpu_share_of_other_programs,
    })
}

fn start_to_json(start: &Start) -> Value {
    let event = match start.event {
        StartEvent::RulesActive => "rules active",
        StartEvent::Ready => "ready",
        StartEvent::FirstReply => "first reply",
    };
    json!({"variant": start.variant, "round": start.round, "until": event, "seconds": start.seconds})
}

fn replacement_result_to_json(result: &ReplacementResult) -> Value {
    json!({
        "variant": result.variant,
        "served": result.successful_connections,
        "failed": result.failed_connections,
        "slow": result.slow_connections,
    })
}

fn footprint_to_json(footprint: &Footprint) -> Value {
    let idle = footprint.idle_connections.map(|idle| {
        json!({
            "connections": idle.connection_count,
            "bytes_per_connection": idle.bytes_per_connection,
            "descriptors_per_connection": idle.descriptors_per_connection,
        })
    });
    json!({"variant": footprint.variant, "resident_bytes": footprint.resident_memory_bytes, "idle": idle})
}

fn neighbour_sample_to_json(sample: &NeighbourSample) -> Value {
    json!({
        "state": sample.state.name(),
        "traffic": sample.traffic.name(),
        "measure": sample.load.name(),
        "round": sample.round,
        "seconds": sample.seconds,
    })
}

fn chain_sample_to_json(sample: &ChainSample) -> Value {
    json!({
        "traffic": sample.traffic.name(),
        "addition": sample.addition,
        "passes": sample.pass_count,
        "copies": sample.copies,
        "round": sample.round,
        "round_trip_seconds": sample.seconds,
    })
}

fn table_result_to_json(result: &TableResult) -> Value {
    let step_to_json = |(step, seconds): &(TableStep, f64)| json!({"step": step.title(), "seconds": seconds});
    json!({
        "times": result.times.iter().map(step_to_json).collect::<Vec<_>>(),
        "resident_bytes": result.resident_memory_bytes,
        "anonymous_bytes": result.anonymous_memory_bytes,
    })
}

fn target_to_json(target: &Target) -> Value {
    let (comparison, value) = match target.limit {
        TargetLimit::AtLeast(value) => ("at_least", value),
        TargetLimit::AtMost(value) => ("at_most", value),
    };
    let quartiles = target
        .measured_value
        .map(|quartiles| json!([quartiles.lower_quartile, quartiles.median, quartiles.upper_quartile]));
    json!({
        "variant": target.variant,
        "baseline": target.baseline,
        "quantity": target.quantity,
        comparison: value,
        "quartiles": quartiles,
        "met": target.is_met(),
    })
}
