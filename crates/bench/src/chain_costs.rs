//! The cost of the agent's chains and of the tunnel's routing rules for packets that the agent does not forward. Does
//! I/O.
//!
//! The nodes get many copies of the chain, because the cost of one chain is smaller than the differences between
//! samples. The benchmark divides the additional time by the number of copies. The nodes have no agent.

use std::time::Duration;

use akrobateo_agent::probe::PeerPath;
use akrobateo_agent::tunnel;
use fastrand::Rng;
use netfilter::nft::client::Nftables;
use netfilter::nft::{NftError, Transaction};

use crate::agent;
use crate::chain_copies::{Addition, EMPTY_CHAIN, additions};
use crate::cpu_time::CpuMeter;
use crate::error::BenchError;
use crate::layout::NODES;
use crate::load::Load;
use crate::neighbour_network::{NeighbourNetwork, Traffic};
use crate::neighbours::service;
use crate::quartiles::{Quartiles, to_f64};
use crate::sampling::take_sample;

/// The number of samples of one addition and traffic in a round. Only the lowest of these samples is used.
const SAMPLES_PER_ROUND: usize = 2;

/// The round trip time of packets that the agent does not forward, with an addition on both nodes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ChainSample {
    /// The path of the packets.
    pub(crate) traffic: Traffic,
    /// The addition's name; `None` for the round trip without an addition.
    pub(crate) addition: Option<String>,
    /// The number of times that the packets of a round trip pass each copy.
    pub(crate) pass_count: u64,
    /// The number of copies.
    pub(crate) copies: u64,
    /// The number of the round.
    pub(crate) round: usize,
    /// The time of a round trip, in seconds.
    pub(crate) seconds: f64,
}

/// Measures each addition in each round, in a new network. The chains have a random order.
pub(crate) fn measure(rounds: u16, length: Duration, rng: &mut Rng) -> Result<Vec<ChainSample>, BenchError> {
    let cpu_meter = CpuMeter::new()?;
    let configs = NODES.map(|node| agent::config(node, Some(PeerPath::Direct), &[service()]));
    let (mut chains, tunnel): (Vec<_>, Vec<_>) =
        additions(&configs).into_iter().partition(|addition| addition.tunnels.is_empty());
    let mut samples = Vec::new();
    for round in 0..usize::from(rounds) {
        eprintln!("bench: round {} of {rounds}: chains", round + 1);
        rng.shuffle(&mut chains);
        let network = NeighbourNetwork::new()?;
        // The tunnel is the last addition, because it adds routing rules. Even after the deletion of these rules, the
        // kernel looks up routes more slowly.
        for state in [None].into_iter().chain(chains.iter().chain(&tunnel).map(Some)) {
            add(&network, state)?;
            for traffic in Traffic::ALL {
                let mut seconds = f64::INFINITY;
                for _ in 0..SAMPLES_PER_ROUND {
                    let path = network.load_path(traffic);
                    let sample = take_sample(&path, Load::SingleDatagram, round, length, &cpu_meter)?;
                    seconds = sample.latencies.map_or(seconds, |latencies| latencies.p10.min(seconds));
                }
                samples.push(ChainSample {
                    traffic,
                    addition: state.map(|addition| addition.name.clone()),
                    pass_count: state.map_or(0, |addition| addition.pass_count(traffic).into()),
                    copies: state.map_or(0, |addition| addition.copies.into()),
                    round,
                    seconds,
                });
            }
            remove(&network, state)?;
        }
    }
    Ok(samples)
}

fn add(network: &NeighbourNetwork, addition: Option<&Addition>) -> Result<(), BenchError> {
    let Some(addition) = addition else { return Ok(()) };
    for (node, table) in network.network.nodes.iter().zip(&addition.tables) {
        let result: Result<(), NftError> =
            node.run(|| Nftables::open()?.execute(&Transaction::create(table)));
        result.map_err(|error| addition_error(addition, &error))?;
    }
    for (node, objects) in network.network.nodes.iter().zip(&addition.tunnels) {
        let result = node.run(|| links::Client::open(tunnel::owner())?.reconcile(objects));
        result.map_err(|error| addition_error(addition, &error))?;
    }
    Ok(())
}

fn remove(network: &NeighbourNetwork, addition: Option<&Addition>) -> Result<(), BenchError> {
    let Some(addition) = addition else { return Ok(()) };
    for (node, table) in network.network.nodes.iter().zip(&addition.tables) {
        let result: Result<(), NftError> =
            node.run(|| Nftables::open()?.execute(&Transaction::delete(&table.id)));
        result.map_err(|error| addition_error(addition, &error))?;
    }
    for (node, _) in network.network.nodes.iter().zip(&addition.tunnels) {
        let result = node.run(|| links::Client::open(tunnel::owner())?.cleanup());
        result.map_err(|error| addition_error(addition, &error))?;
    }
    Ok(())
}

fn addition_error(addition: &Addition, error: &dyn std::error::Error) -> BenchError {
    BenchError::UnexpectedState(format!("{}: {error}", addition.name))
}

/// The cost of an addition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ChainCost {
    /// The addition's name.
    pub(crate) addition: String,
    /// The additional seconds per packet and node.
    pub(crate) seconds_per_pass: Quartiles,
    /// The share of a round trip that packets spend in the addition.
    pub(crate) share_of_round_trip: f64,
}

/// Calculates the cost of each addition.
pub(crate) fn costs(samples: &[ChainSample], traffic: Traffic) -> Vec<ChainCost> {
    let samples_of_traffic = || samples.iter().filter(|sample| sample.traffic == traffic);
    let baseline_samples = || samples_of_traffic().filter(|sample| sample.addition.is_none());
    let Some(round_trip) = Quartiles::new(baseline_samples().map(|sample| sample.seconds).collect()) else {
        return Vec::new();
    };
    let mut additions: Vec<_> = samples_of_traffic()
        .filter_map(|sample| Some((sample.addition.as_ref()?, sample.pass_count, sample.copies)))
        .collect();
    additions.sort_unstable();
    additions.dedup();
    let cost = |(addition, pass_count, copies): (&String, u64, u64)| {
        let differences = samples_of_traffic()
            .filter(|sample| sample.addition.as_ref() == Some(addition))
            .filter_map(|sample| {
                let sample_without_addition = baseline_samples().find(|other| other.round == sample.round)?;
                Some((sample.seconds - sample_without_addition.seconds) / to_f64(pass_count * copies))
            });
        let seconds_per_pass = Quartiles::new(differences.collect())?;
        let share_of_round_trip = seconds_per_pass.median * to_f64(pass_count) / round_trip.median;
        Some(ChainCost { addition: addition.clone(), seconds_per_pass, share_of_round_trip })
    };
    additions.into_iter().filter_map(cost).collect()
}

/// Adds up the shares of all additions in a round trip. Returns `None` if the additions were not measured. The empty
/// chain is not included.
pub(crate) fn total_share(samples: &[ChainSample], traffic: Traffic) -> Option<f64> {
    let costs = costs(samples, traffic);
    let shares =
        costs.iter().filter(|cost| cost.addition != EMPTY_CHAIN).map(|cost| cost.share_of_round_trip);
    (!costs.is_empty()).then(|| shares.sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_of_a_chain_is_the_additional_time_per_copy_and_pass() {
        let sample = |addition: Option<&str>, pass_count, round, seconds| ChainSample {
            traffic: Traffic::KubeProxy,
            addition: addition.map(str::to_owned),
            pass_count,
            copies: 16,
            round,
            seconds,
        };
        let samples = [
            sample(None, 0, 0, 10.0),
            sample(Some("post"), 4, 0, 74.0),
            sample(None, 0, 1, 10.0),
            sample(Some("post"), 4, 1, 74.0),
        ];
        let costs = costs(&samples, Traffic::KubeProxy);
        assert_eq!(costs.len(), 1);
        assert!((costs[0].seconds_per_pass.median - 1.0).abs() < 1e-9);
        assert!((costs[0].share_of_round_trip - 0.4).abs() < 1e-9);
        assert_eq!(total_share(&samples, Traffic::BetweenPods), None);
    }
}
