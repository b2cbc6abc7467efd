//! The results as JSON, every sample of them. Pure.

use serde_json::{Value, json};

use crate::results::Results;
use crate::start::Until;
use crate::targets::{Bound, judge};

/// The results with their targets.
pub(crate) fn json(results: &Results) -> Value {
    let machine = &results.machine;
    let samples = results.samples.iter().map(|sample| {
        json!({
            "measure": sample.measure.name(),
            "variant": sample.variant,
            "round": sample.round,
            "per_second": sample.rate,
            "cpu_seconds_per_unit": sample.cpu,
            "p50_seconds": sample.latency.map(|[p50, _]| p50),
            "p99_seconds": sample.latency.map(|[_, p99]| p99),
            "failed": sample.failed,
            "others_share_of_cpu": sample.others,
        })
    });
    let starts = results.starts.iter().map(|start| {
        let until = match start.until {
            Until::Active => "rules active",
            Until::Ready => "ready",
            Until::FirstConnection => "first connection",
        };
        json!({"variant": start.variant, "round": start.round, "until": until, "seconds": start.seconds})
    });
    let replaced = results.replaced.iter().map(
        |one| json!({"variant": one.variant, "served": one.served, "failed": one.failed, "late": one.late}),
    );
    let footprints = results.footprints.iter().map(|one| {
        let idle = one.idle.map(|idle| {
            json!({
                "connections": idle.connections,
                "bytes_each": idle.memory,
                "descriptors_each": idle.descriptors,
            })
        });
        json!({"variant": one.variant, "resident_bytes": one.memory, "idle": idle})
    });
    json!({
        "machine": {
            "kernel": machine.kernel,
            "processor": machine.processor,
            "processors": machine.processors,
            "memory_mib": machine.memory,
            "programs": machine.programs.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        },
        "rounds": results.rounds,
        "seconds": results.seconds,
        "seed": results.seed,
        "samples": samples.collect::<Vec<_>>(),
        "starts": starts.collect::<Vec<_>>(),
        "replacements": replaced.collect::<Vec<_>>(),
        "footprints": footprints.collect::<Vec<_>>(),
        "binary": results.image.map(|[bytes, packed]| json!({"bytes": bytes, "packed_bytes": packed})),
        "targets": judge(results).iter().map(target).collect::<Vec<_>>(),
    })
}

fn target(judged: &crate::targets::Judged) -> Value {
    let (bound, figure) = match judged.bound {
        Bound::AtLeast(least) => ("at least", least),
        Bound::AtMost(most) => ("at most", most),
    };
    let measured = judged.measured.map(|spread| json!([spread.low, spread.median, spread.high]));
    json!({
        "of": judged.of,
        "against": judged.against,
        "what": judged.what,
        bound: figure,
        "quartiles": measured,
        "met": judged.met(),
    })
}
