//! The targets of proxies in pods. Pure.

use crate::load::Load;
use crate::quantity::Quantity;
use crate::quartiles::{Quartiles, to_f64};
use crate::results::Results;
use crate::start::StartEvent;
use crate::target::{Comparison, RatioLimit, Target, TargetLimit, compare_loads};

/// Limits for one port, compared with klipper-lb. The kernel does the same work for Akrobateo and for klipper-lb.
const ONE_PORT_LIMITS: [RatioLimit; 10] = [
    (Quantity::Rate(Load::Connections), TargetLimit::AtLeast(0.97)),
    (Quantity::Rate(Load::Upload), TargetLimit::AtLeast(0.97)),
    (Quantity::Rate(Load::Download), TargetLimit::AtLeast(0.97)),
    (Quantity::Rate(Load::Udp), TargetLimit::AtLeast(0.97)),
    (Quantity::CpuTimePerUnitOfLoad(Load::Connections), TargetLimit::AtMost(1.03)),
    (Quantity::CpuTimePerUnitOfLoad(Load::Upload), TargetLimit::AtMost(1.03)),
    (Quantity::CpuTimePerUnitOfLoad(Load::Download), TargetLimit::AtMost(1.03)),
    (Quantity::CpuTimePerUnitOfLoad(Load::Udp), TargetLimit::AtMost(1.03)),
    (Quantity::CpuTimePerUnitOfLoad(Load::Requests), TargetLimit::AtMost(1.03)),
    (Quantity::MedianLatency, TargetLimit::AtMost(1.05)),
];
/// Limits for 1,000 ports, compared with klipper-lb. Akrobateo uses a map, and klipper-lb uses lists of rules.
const MANY_PORTS_LIMITS: [RatioLimit; 5] = [
    (Quantity::Rate(Load::Connections), TargetLimit::AtLeast(2.0)),
    (Quantity::Rate(Load::Download), TargetLimit::AtLeast(1.7)),
    (Quantity::Rate(Load::Upload), TargetLimit::AtLeast(1.4)),
    (Quantity::Rate(Load::Udp), TargetLimit::AtLeast(1.3)),
    (Quantity::MedianLatency, TargetLimit::AtMost(0.65)),
];
/// Limits for 1,000 ports, compared with one port. The rates with 1,000 ports and with one port should be nearly equal.
const MANY_PORTS_VERSUS_ONE_PORT_LIMITS: [RatioLimit; 4] = [
    (Quantity::Rate(Load::Connections), TargetLimit::AtLeast(0.95)),
    (Quantity::Rate(Load::Upload), TargetLimit::AtLeast(0.95)),
    (Quantity::Rate(Load::Download), TargetLimit::AtLeast(0.95)),
    (Quantity::Rate(Load::Udp), TargetLimit::AtLeast(0.95)),
];
/// Limits for userspace mode, compared with proxies that have default settings.
const USERSPACE_LIMITS: [RatioLimit; 5] = [
    (Quantity::Rate(Load::Upload), TargetLimit::AtLeast(1.25)),
    (Quantity::Rate(Load::Download), TargetLimit::AtLeast(1.25)),
    (Quantity::Rate(Load::Connections), TargetLimit::AtLeast(1.05)),
    (Quantity::CpuTimePerUnitOfLoad(Load::Upload), TargetLimit::AtMost(0.7)),
    (Quantity::CpuTimePerUnitOfLoad(Load::Download), TargetLimit::AtMost(0.7)),
];
/// Limits for userspace mode, compared with a proxy that has forced splicing.
const USERSPACE_SPLICE_LIMITS: [RatioLimit; 3] = [
    (Quantity::Rate(Load::Download), TargetLimit::AtLeast(1.0)),
    (Quantity::Rate(Load::Connections), TargetLimit::AtLeast(1.0)),
    (Quantity::Rate(Load::Upload), TargetLimit::AtLeast(1.0)),
];
/// Each entry has a variant, its baseline, and the limits for their ratios.
const LOAD_COMPARISONS: [Comparison; 8] = [
    ("akrobateo", "klipper-nft", &ONE_PORT_LIMITS),
    ("akrobateo", "klipper-legacy", &ONE_PORT_LIMITS),
    ("akrobateo-1k", "klipper-nft-1k", &MANY_PORTS_LIMITS),
    ("akrobateo-1k", "klipper-legacy-1k", &MANY_PORTS_LIMITS),
    ("akrobateo-1k", "akrobateo", &MANY_PORTS_VERSUS_ONE_PORT_LIMITS),
    ("userspace", "haproxy-proxy", &USERSPACE_LIMITS),
    ("userspace", "nginx", &USERSPACE_LIMITS),
    ("userspace", "haproxy-splice", &USERSPACE_SPLICE_LIMITS),
];
/// Each entry has a variant, its baseline, and the maximum ratio of their start times. A start time ends when the rules
/// are active.
const START_TIME_COMPARISONS: [(&str, &str, f64); 4] = [
    ("akrobateo", "klipper-nft", 1.0 / 4.0),
    ("akrobateo", "klipper-legacy", 1.0 / 4.0),
    ("akrobateo-1k", "klipper-nft-1k", 1.0 / 500.0),
    ("akrobateo-1k", "klipper-legacy-1k", 1.0 / 500.0),
];
/// The name that tables show for the quantity of [`START_TIME_COMPARISONS`].
pub(crate) const RULES_ACTIVE_QUANTITY: &str = "time to active rules";

/// Returns the targets of proxies, with the measured values from `results`.
pub(crate) fn evaluate(results: &Results) -> Vec<Target> {
    let load_targets = compare_loads(&LOAD_COMPARISONS, &results.samples);
    let start_time_targets = START_TIME_COMPARISONS.into_iter().map(|(variant, baseline, maximum)| {
        let [times, baseline_times] = [variant, baseline].map(|name| rules_active_times(results, name));
        let measured_value = Quartiles::from_ratios_by_round(&times, &baseline_times);
        Target {
            variant,
            baseline,
            quantity: RULES_ACTIVE_QUANTITY,
            limit: TargetLimit::AtMost(maximum),
            measured_value,
        }
    });
    load_targets.into_iter().chain(start_time_targets).chain(absolute_targets(results)).collect()
}

/// Returns the times from the start of a variant's program until its rules are active, each with its round.
fn rules_active_times(results: &Results, variant: &str) -> Vec<(usize, f64)> {
    let start_times = results
        .starts
        .iter()
        .filter(|start| start.event == StartEvent::RulesActive && start.variant == variant);
    start_times.map(|start| (start.round, start.seconds)).collect()
}

fn absolute_targets(results: &Results) -> Vec<Target> {
    let new_target = |variant, unit, quantity, maximum, value: Option<f64>| Target {
        variant,
        baseline: unit,
        quantity,
        limit: TargetLimit::AtMost(maximum),
        measured_value: value.and_then(|value| Quartiles::new(vec![value])),
    };
    let to_megabytes = |bytes| to_f64(bytes) / 1e6;
    let footprint = |variant| results.footprints.iter().find(|footprint| footprint.variant == variant);
    let idle = footprint("userspace").and_then(|footprint| footprint.idle_connections);
    let memory = footprint("akrobateo-1k").map(|footprint| to_megabytes(footprint.resident_memory_bytes));
    let image = results.binary_size.map(|size| to_megabytes(size.compressed_bytes));
    let failed_connections_target = |variant| {
        let variant_result = results.replacements.iter().find(|result| result.variant == variant);
        let failed_connections = variant_result.map(|result| to_f64(result.failed_connections));
        new_target(variant, "-", "connections failed in 100 replacements", 0.0, failed_connections)
    };
    vec![
        failed_connections_target("akrobateo"),
        failed_connections_target("akrobateo-1k"),
        new_target("akrobateo-1k", "MB", "memory", 2.0, memory),
        new_target("akrobateo", "MB", "image, compressed", 1.0, image),
        new_target(
            "userspace",
            "KB",
            "memory per idle connection",
            4.0,
            idle.map(|idle| idle.bytes_per_connection / 1e3),
        ),
        new_target(
            "userspace",
            "-",
            "descriptors per connection",
            2.0,
            idle.map(|idle| idle.descriptors_per_connection),
        ),
    ]
}
