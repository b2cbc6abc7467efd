//! The tables of the packets that the agent does not forward. Pure.

use super::table::{NOT_MEASURED_CELL, format_table_head, format_table_row};
use super::targets::format_quartiles;
use crate::chain_costs::{ChainCost, ChainSample, costs, total_share};
use crate::load::Load;
use crate::neighbour_network::Traffic;
use crate::neighbours::{AgentState, NeighbourSample, exchange_times, ratio_to_absent_agent};
use crate::quartiles::Quartiles;

/// The title of the table of states.
pub(super) const STATES_TITLE: &str = "Packets that the agent does not forward";
/// The title of the table of chains.
pub(super) const CHAINS_TITLE: &str = "The agent's chains, for packets that it does not forward";

/// Returns the table of the agent's states, or `None` if no state was measured.
pub(super) fn states(samples: &[NeighbourSample]) -> Option<String> {
    let quantities = [
        (Traffic::BetweenPods, Load::SingleConnection),
        (Traffic::BetweenPods, Load::SingleDatagram),
        (Traffic::KubeProxy, Load::SingleConnection),
        (Traffic::KubeProxy, Load::SingleDatagram),
    ];
    let columns = [
        "",
        "between pods: connection",
        "between pods: UDP round trip",
        "kube-proxy: connection",
        "kube-proxy: UDP round trip",
    ];
    let row = |state: AgentState| {
        let cell = |(traffic, load)| match state {
            AgentState::Absent => {
                let times =
                    exchange_times(samples, state, traffic, load).into_iter().map(|(_, seconds)| seconds);
                Quartiles::new(times.collect()).map(|time| format!("{:.2} µs", time.median * 1e6))
            }
            _ => ratio_to_absent_agent(samples, state, traffic, load).map(|ratio| format_quartiles(ratio, 3)),
        };
        let cells = quantities.map(|quantity| cell(quantity).unwrap_or(NOT_MEASURED_CELL.to_owned()));
        format_table_row([state.title().to_owned()].into_iter().chain(cells))
    };
    let rows = AgentState::ALL.into_iter().map(row);
    (!samples.is_empty()).then(|| [format_table_head(&columns)].into_iter().chain(rows).collect())
}

/// Returns the table of chains, or `None` if no chain was measured.
pub(super) fn chains(samples: &[ChainSample]) -> Option<String> {
    let costs = Traffic::ALL.map(|traffic| costs(samples, traffic));
    let [between_pods, _] = &costs;
    let rows = between_pods.iter().map(|cost| {
        let cells = costs.iter().flat_map(|costs| {
            let cost = costs.iter().find(|other| other.addition == cost.addition);
            cost.map_or([NOT_MEASURED_CELL; 2].map(str::to_owned), cost_cells)
        });
        format_table_row([cost.addition.clone()].into_iter().chain(cells))
    });
    let totals = Traffic::ALL.map(|traffic| total_share(samples, traffic));
    let total_cells = totals.into_iter().flat_map(|total| {
        let share_cell =
            total.map_or(NOT_MEASURED_CELL.to_owned(), |total| format!("{:.1} %", total * 100.0));
        [NOT_MEASURED_CELL.to_owned(), share_cell]
    });
    let total_row =
        format_table_row(["sum, without the empty chain".to_owned()].into_iter().chain(total_cells));
    let table_head = format_table_head(&[
        "",
        "between pods: per packet and node",
        "share of a UDP round trip",
        "kube-proxy: per packet and node",
        "share of a UDP round trip",
    ]);
    (!between_pods.is_empty()).then(|| [table_head].into_iter().chain(rows).chain([total_row]).collect())
}

fn cost_cells(cost: &ChainCost) -> [String; 2] {
    let Quartiles { lower_quartile, median, upper_quartile } = cost.seconds_per_pass;
    let [lower, median, upper] = [lower_quartile, median, upper_quartile].map(|seconds| seconds * 1e9);
    [
        format!("{median:.0} ns ({lower:.0} to {upper:.0})"),
        format!("{:.1} %", cost.share_of_round_trip * 100.0),
    ]
}
