//! The cost of each chain of the agent that packets of neighbours pass. Does I/O.
//!
//! The cost of one chain is lower than the differences between samples. So the nodes get many copies of the chain, and the
//! additional time is divided by their number. The agent itself is absent.

use std::time::Duration;

use akrobateo_agent::probe::Way;
use akrobateo_agent::table::NodeTables;
use fastrand::Rng;
use netfilter::nft::client::Nftables;
use netfilter::nft::model::{BaseChain, Chain, ChainType, Hook, Table, TableId};
use netfilter::nft::{NftError, Transaction};

use crate::agent;
use crate::cpu_time::CpuMeter;
use crate::error::BenchError;
use crate::layout::{INTERFACE, NODES};
use crate::load::Load;
use crate::neighbour_network::{NeighbourNetwork, Traffic};
use crate::neighbours::service;
use crate::quartiles::{Quartiles, to_f64};
use crate::sampling::take_sample;

/// The number of copies of a chain.
const COPIES: u8 = 16;
/// The name of the tables with the copies.
const COPIES_TABLE: &str = "akrobateo_copies";
/// The number of samples of a state in a round. The lowest counts.
const SAMPLES_PER_ROUND: usize = 2;
/// The name of a chain without rules. Its cost is that of the hook.
const EMPTY_CHAIN: &str = "(empty chain)";

/// The round trip time of neighbours with copies of a chain.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ChainSample {
    /// The chain's name; `None` for the round trip without copies.
    pub(crate) chain: Option<String>,
    /// The number of times that the packets of a round trip pass the hook of the chain, on both nodes together.
    pub(crate) passes: u8,
    /// The number of the round.
    pub(crate) round: usize,
    /// The time of a round trip, in seconds.
    pub(crate) seconds: f64,
}

/// A chain, and one table with copies of it for each node.
struct CopiedChain {
    name: String,
    passes: u8,
    tables: Vec<Table>,
}

/// Measures each chain in each round, in random order.
pub(crate) fn measure(rounds: u16, length: Duration, rng: &mut Rng) -> Result<Vec<ChainSample>, BenchError> {
    let network = NeighbourNetwork::new()?;
    let cpu_meter = CpuMeter::new()?;
    let mut states: Vec<_> = [None].into_iter().chain(copied_chains().into_iter().map(Some)).collect();
    let mut samples = Vec::new();
    for round in 0..usize::from(rounds) {
        eprintln!("bench: round {} of {rounds}: chains", round + 1);
        rng.shuffle(&mut states);
        for state in &states {
            let tables = state.as_ref().map_or(&[][..], |chain| &chain.tables);
            execute(&network, tables, |table| Transaction::create(table))?;
            let mut seconds = f64::INFINITY;
            for _ in 0..SAMPLES_PER_ROUND {
                let path = network.load_path(Traffic::BetweenPods);
                let sample = take_sample(&path, Load::SingleDatagram, round, length, &cpu_meter)?;
                seconds = sample.latencies.map_or(seconds, |latencies| latencies.p10.min(seconds));
            }
            execute(&network, tables, |table| Transaction::delete(&table.id))?;
            let (chain, passes) = state.as_ref().map_or((None, 0), |it| (Some(it.name.clone()), it.passes));
            samples.push(ChainSample { chain, passes, round, seconds });
        }
    }
    Ok(samples)
}

/// Executes a transaction for the table of each node.
fn execute(
    network: &NeighbourNetwork,
    tables: &[Table],
    transaction: impl Fn(&Table) -> Transaction<'_> + Sync,
) -> Result<(), BenchError> {
    for (node, table) in network.network.nodes.iter().zip(tables) {
        let result: Result<(), NftError> = node.run(|| Nftables::open()?.execute(&transaction(table)));
        result.map_err(|error| BenchError::UnexpectedState(format!("copies of a chain: {error}")))?;
    }
    Ok(())
}

/// Returns the agent's chains that forwarded packets of others pass, and an empty chain.
fn copied_chains() -> Vec<CopiedChain> {
    let tables: Vec<_> = NODES
        .iter()
        .map(|node| NodeTables::new(&agent::config(*node, Some(Way::Direct), &[service()])))
        .collect();
    let inet: Vec<_> = tables.iter().map(|tables| &tables.inet).collect();
    let netdev: Vec<_> = tables.iter().filter_map(|tables| tables.netdev.as_ref()).collect();
    let empty = Chain::base(EMPTY_CHAIN, ChainType::Filter, Hook::Prerouting, 0, Vec::new());
    let empty_copies = inet.iter().map(|table| copy_chain(table, &empty)).collect();
    let empty = passes_per_round_trip(&empty).map(|passes| CopiedChain {
        name: EMPTY_CHAIN.to_owned(),
        passes,
        tables: empty_copies,
    });
    let mut copied: Vec<_> = empty.into_iter().collect();
    for family in [inet, netdev] {
        for chain in family.first().map_or(&[][..], |table| &table.chains) {
            let Some(passes) = passes_per_round_trip(chain) else { continue };
            let chains = family.iter().filter_map(|table| Some((table, table.chain(&chain.name)?)));
            let tables = chains.map(|(table, chain)| copy_chain(table, chain)).collect();
            copied.push(CopiedChain { name: chain.name.to_string(), passes, tables });
        }
    }
    copied
}

/// Returns the number of times that the packets of a round trip between two nodes pass a chain, or `None` if not every
/// forwarded packet passes it. A packet in each direction passes both nodes, but leaves only one of them through the
/// uplink.
fn passes_per_round_trip(chain: &Chain) -> Option<u8> {
    let BaseChain { chain_type, hook, .. } = chain.base.as_ref()?;
    match hook {
        Hook::Prerouting | Hook::Forward | Hook::Postrouting => (*chain_type != ChainType::Nat).then_some(4),
        Hook::Egress(interfaces) => interfaces.iter().any(|name| **name == *INTERFACE).then_some(2),
        Hook::Ingress(interfaces) => interfaces.iter().any(|name| **name == *INTERFACE).then_some(2),
        Hook::Input | Hook::Output => None,
    }
}

/// Returns a table with copies of a chain, and with the sets that the chain uses.
fn copy_chain(table: &Table, chain: &Chain) -> Table {
    let expressions = || chain.rules.iter().flat_map(|rule| &rule.expressions);
    let is_used = |name: &str| expressions().any(|expr| expr.set_name().is_some_and(|set| **set == *name));
    let copy = |number: u8| Chain {
        name: format!("copy{number}").into(),
        base: chain
            .base
            .clone()
            .map(|base| BaseChain { priority: base.priority + i32::from(number), ..base }),
        rules: chain.rules.clone(),
    };
    Table {
        id: TableId::new(table.id.family, COPIES_TABLE),
        sets: table.sets.iter().filter(|set| is_used(&set.name)).cloned().collect(),
        chains: (0..COPIES).map(copy).collect(),
    }
}

/// The cost of a chain.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ChainCost {
    /// The chain's name.
    pub(crate) chain: String,
    /// The additional seconds per packet and node.
    pub(crate) seconds_per_pass: Quartiles,
    /// The share of a round trip that all passes of the chain take.
    pub(crate) share_of_round_trip: f64,
}

/// Calculates the cost of each chain.
pub(crate) fn costs(samples: &[ChainSample]) -> Vec<ChainCost> {
    let times = |chain: Option<&String>| -> Vec<_> {
        let samples = samples.iter().filter(|sample| sample.chain.as_ref() == chain);
        samples.map(|sample| (sample.round, sample.seconds)).collect()
    };
    let base = times(None);
    let Some(round_trip) = Quartiles::new(base.iter().map(|(_, seconds)| *seconds).collect()) else {
        return Vec::new();
    };
    let mut chains: Vec<_> =
        samples.iter().filter_map(|sample| Some((sample.chain.as_ref()?, sample.passes))).collect();
    chains.sort_unstable();
    chains.dedup();
    let cost = |(chain, passes): (&String, u8)| {
        let divisor = to_f64(u64::from(COPIES) * u64::from(passes));
        let differences = times(Some(chain)).into_iter().filter_map(|(round, seconds)| {
            let (_, base) = base.iter().find(|(base_round, _)| *base_round == round)?;
            Some((seconds - base) / divisor)
        });
        let seconds_per_pass = Quartiles::new(differences.collect())?;
        let share_of_round_trip = seconds_per_pass.median * f64::from(passes) / round_trip.median;
        Some(ChainCost { chain: chain.clone(), seconds_per_pass, share_of_round_trip })
    };
    chains.into_iter().filter_map(cost).collect()
}

/// Returns the share of a round trip that all chains of the agent take together, or `None` if it was not measured.
pub(crate) fn total_share(samples: &[ChainSample]) -> Option<f64> {
    let costs = costs(samples);
    let shares = costs.iter().filter(|cost| cost.chain != EMPTY_CHAIN).map(|cost| cost.share_of_round_trip);
    (!costs.is_empty()).then(|| shares.sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_of_forwarded_packets_are_copied_with_their_sets() {
        let chains = copied_chains();
        let names: Vec<_> = chains.iter().map(|chain| (&*chain.name, chain.passes)).collect();
        assert!(names.contains(&("raw_pre", 4)) && names.contains(&("uplink", 2)), "{names:?}");
        assert!(
            !names.iter().any(|(name, _)| ["nat_pre", "steer_out", "tunnel_in"].contains(name)),
            "{names:?}"
        );
        for chain in &chains {
            assert_eq!(chain.tables.len(), 2);
            for table in &chain.tables {
                assert_eq!((table.check(), table.chains.len()), (Ok(()), 16));
            }
        }
    }

    #[test]
    fn cost_of_a_chain_is_the_additional_time_per_copy_and_pass() {
        let sample = |chain: Option<&str>, passes, round, seconds| ChainSample {
            chain: chain.map(str::to_owned),
            passes,
            round,
            seconds,
        };
        let samples = [
            sample(None, 0, 0, 10.0),
            sample(Some("post"), 4, 0, 74.0),
            sample(None, 0, 1, 10.0),
            sample(Some("post"), 4, 1, 74.0),
        ];
        let costs = costs(&samples);
        assert_eq!(costs.len(), 1);
        assert!((costs[0].seconds_per_pass.median - 1.0).abs() < 1e-9);
        assert!((costs[0].share_of_round_trip - 0.4).abs() < 1e-9);
    }
}
