//! The targets of the node agent. Pure.

use crate::chain_costs::total_share;
use crate::load::Load;
use crate::neighbour_network::Traffic;
use crate::neighbours::{self, AgentState};
use crate::node_table::{TableResult, TableStep};
use crate::quantity::Quantity;
use crate::quartiles::{Quartiles, to_f64};
use crate::results::Results;
use crate::target::{Comparison, RatioLimit, Target, TargetLimit, compare_loads};

const CONNECTIONS: Quantity = Quantity::Rate(Load::Connections);
const UDP: Quantity = Quantity::Rate(Load::Udp);
const UPLOAD: Quantity = Quantity::Rate(Load::Upload);
const DOWNLOAD: Quantity = Quantity::Rate(Load::Download);

/// Returns the same limit for the rates of all loads.
const fn same_limit_for_all_loads(minimum: f64) -> [RatioLimit; 4] {
    let limit = TargetLimit::AtLeast(minimum);
    [(CONNECTIONS, limit), (UDP, limit), (UPLOAD, limit), (DOWNLOAD, limit)]
}

/// The agent translates the destination once, as kube-proxy does.
const LIMITS_LOCAL: [RatioLimit; 4] = same_limit_for_all_loads(1.0);
/// The packets do not pass the network stack of a proxy pod.
const LIMITS_LOCAL_VERSUS_PROXY_POD: [RatioLimit; 2] =
    [(CONNECTIONS, TargetLimit::AtLeast(1.4)), (UDP, TargetLimit::AtLeast(1.4))];
const LIMITS_MASQUERADE: [RatioLimit; 4] = same_limit_for_all_loads(0.98);
const LIMITS_DIRECT_VERSUS_MASQUERADE: [RatioLimit; 4] = same_limit_for_all_loads(0.97);
const LIMITS_DIRECT: [RatioLimit; 4] = same_limit_for_all_loads(0.95);
const LIMITS_DIRECT_VERSUS_PROXY_POD: [RatioLimit; 4] = [
    (CONNECTIONS, TargetLimit::AtLeast(1.25)),
    (UDP, TargetLimit::AtLeast(1.3)),
    (UPLOAD, TargetLimit::AtLeast(1.05)),
    (DOWNLOAD, TargetLimit::AtLeast(1.05)),
];
const LIMITS_TUNNEL_VERSUS_PROXY_POD: [RatioLimit; 4] = same_limit_for_all_loads(1.0);
const LIMITS_MANY_SERVICES: [RatioLimit; 4] = same_limit_for_all_loads(0.98);
/// Each entry has a variant, its baseline, and the limits for their ratios.
const LOAD_COMPARISONS: [Comparison; 9] = [
    ("agent-local", "local-dnat", &LIMITS_LOCAL),
    ("agent-local", "local-lb", &LIMITS_LOCAL_VERSUS_PROXY_POD),
    ("agent-masquerade", "remote-dnat", &LIMITS_MASQUERADE),
    ("agent-direct", "agent-masquerade", &LIMITS_DIRECT_VERSUS_MASQUERADE),
    ("agent-direct", "remote-dnat", &LIMITS_DIRECT),
    ("agent-direct", "remote-lb", &LIMITS_DIRECT_VERSUS_PROXY_POD),
    ("agent-direct", "remote-klipper", &LIMITS_DIRECT_VERSUS_PROXY_POD),
    ("agent-tunnel", "remote-lb", &LIMITS_TUNNEL_VERSUS_PROXY_POD),
    ("agent-direct-1k", "agent-direct-10", &LIMITS_MANY_SERVICES),
];

/// Each entry has a state of the agent, and the maximum ratio of its CPU times to the CPU times without the agent.
const NEIGHBOUR_LIMITS: [(AgentState, f64); 3] =
    [(AgentState::Masquerade, 1.01), (AgentState::Direct, 1.03), (AgentState::Tunnel, 1.03)];
/// Each entry has packets that the agent does not forward, and the quantity's name in tables.
const NEIGHBOUR_QUANTITIES: [(Traffic, Load, &str); 4] = [
    (Traffic::BetweenPods, Load::SingleConnection, "time of a connection between pods"),
    (Traffic::BetweenPods, Load::SingleDatagram, "time of a UDP round trip between pods"),
    (Traffic::KubeProxy, Load::SingleConnection, "time of a connection through kube-proxy"),
    (Traffic::KubeProxy, Load::SingleDatagram, "time of a UDP round trip through kube-proxy"),
];

/// Each entry has packets that the agent does not forward, and the quantity's name in tables.
const CHAIN_QUANTITIES: [(Traffic, &str); 2] = [
    (Traffic::BetweenPods, "time of a UDP round trip between pods, sum of all parts"),
    (Traffic::KubeProxy, "time of a UDP round trip through kube-proxy, sum of all parts"),
];
/// The name of the agent's table with many Services in the table of targets.
pub(crate) const TABLE_VARIANT: &str = "agent-table-1k";

/// Returns the targets of the node agent, with the measured values from `results`.
pub(crate) fn evaluate(results: &Results) -> Vec<Target> {
    let mut targets = compare_loads(&LOAD_COMPARISONS, &results.samples);
    for (state, maximum) in NEIGHBOUR_LIMITS {
        targets.extend(NEIGHBOUR_QUANTITIES.map(|(traffic, load, quantity)| Target {
            variant: state.name(),
            baseline: AgentState::Absent.name(),
            quantity,
            limit: TargetLimit::AtMost(maximum),
            measured_value: neighbours::ratio_to_absent_agent(&results.neighbours, state, traffic, load),
        }));
    }
    targets.extend(CHAIN_QUANTITIES.map(|(traffic, quantity)| Target {
        variant: AgentState::Direct.name(),
        baseline: AgentState::Absent.name(),
        quantity,
        limit: TargetLimit::AtMost(1.03),
        measured_value:
            total_share(&results.chains, traffic).and_then(|share| Quartiles::new(vec![1.0 + share])),
    }));
    targets.extend(evaluate_table(results.table.as_ref()));
    targets
}

fn evaluate_table(result: Option<&TableResult>) -> Vec<Target> {
    let time_target = |step, maximum| {
        let to_milliseconds = |quartiles: Quartiles| Quartiles {
            lower_quartile: quartiles.lower_quartile * 1e3,
            median: quartiles.median * 1e3,
            upper_quartile: quartiles.upper_quartile * 1e3,
        };
        let measured_value = result.and_then(|result| result.quartiles(step)).map(to_milliseconds);
        (step.title(), "ms", maximum, measured_value)
    };
    let median = |step| result.and_then(|result| result.quartiles(step)).map(|quartiles| quartiles.median);
    let creation = median(TableStep::Create).zip(median(TableStep::CreateWithNftProgram));
    let creation = creation.and_then(|(agent, nft)| Quartiles::new(vec![agent / nft]));
    let memory = result.and_then(|result| Quartiles::new(vec![to_f64(result.resident_memory_bytes) / 1e6]));
    let targets = [
        time_target(TableStep::ChangeEndpointInKernel, 1.0),
        time_target(TableStep::ChangeEndpoint, 5.0),
        (TableStep::Create.title(), "nft program", 0.5, creation),
        ("memory of the process", "MB", 25.0, memory),
    ];
    let build_target = |(quantity, baseline, maximum, measured_value)| Target {
        variant: TABLE_VARIANT,
        baseline,
        quantity,
        limit: TargetLimit::AtMost(maximum),
        measured_value,
    };
    targets.map(build_target).into()
}
