//! The additional cost that the agent causes for packets that it does not forward: packets between pods, and packets
//! through kube-proxy's rules. Does I/O.
//!
//! The benchmark measures all states of a round in the same network. The difference between two networks is larger than
//! the allowed cost of the agent. Each round has a new network, and begins with the states without the tunnel. The
//! first routing rule of a network makes all route lookups slower, even after the rule is deleted
//! (`fib_has_custom_rules` in the kernel).

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use akrobateo_agent::config::Service;
use akrobateo_agent::probe::PeerPath;
use akrobateo_core::Protocol;
use fastrand::Rng;

use crate::agent;
use crate::cpu_time::CpuMeter;
use crate::error::BenchError;
use crate::load::Load;
use crate::neighbour_network::{NeighbourNetwork, Traffic};
use crate::network::addr;
use crate::quartiles::Quartiles;
use crate::sampling::take_sample;

/// The loads. Under both loads, an exchange takes as long as its CPU time.
const LOADS: [Load; 2] = [Load::SingleConnection, Load::SingleDatagram];
/// The port of the agent's Service. No client uses this port.
const CLUSTER_IP_PORT: NonZeroU16 = NonZeroU16::MIN;

/// The state of the agent on both nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AgentState {
    /// The nodes have no agent.
    Absent,
    /// The agent was removed from the nodes.
    Removed,
    /// The agent masquerades all clients, so that only the first packet of each flow passes its rules.
    Masquerade,
    /// The agent keeps the addresses of clients on the path *direct*.
    Direct,
    /// The agent keeps the addresses of clients on the path *tunnel*.
    Tunnel,
}

impl AgentState {
    /// All states. The first state is the baseline. The first three states need no tunnel.
    pub(crate) const ALL: [Self; 5] =
        [Self::Absent, Self::Masquerade, Self::Direct, Self::Tunnel, Self::Removed];

    /// The name in the results.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Absent => "without-agent",
            Self::Removed => "agent-removed",
            Self::Masquerade => "agent-masquerade",
            Self::Direct => "agent-direct",
            Self::Tunnel => "agent-tunnel",
        }
    }

    /// The name in tables.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Absent => "without the agent",
            Self::Removed => "after the removal of the agent",
            Self::Masquerade => "agent, clients' addresses masqueraded",
            Self::Direct => "agent, direct",
            Self::Tunnel => "agent, tunnel",
        }
    }
}

/// The CPU time of one exchange of packets that the agent does not forward.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct NeighbourSample {
    /// The state of the agent.
    pub(crate) state: AgentState,
    /// The path of the packets.
    pub(crate) traffic: Traffic,
    /// The load.
    pub(crate) load: Load,
    /// The number of the round.
    pub(crate) round: usize,
    /// The CPU time of an exchange, in seconds.
    pub(crate) seconds: f64,
}

/// Measures all states in each round: first the states without the tunnel in random order, and then the other states in
/// random order.
pub(crate) fn measure(
    rounds: u16,
    length: Duration,
    rng: &mut Rng,
) -> Result<Vec<NeighbourSample>, BenchError> {
    let cpu_meter = CpuMeter::new()?;
    let mut samples = Vec::new();
    for round in 0..usize::from(rounds) {
        eprintln!("bench: round {} of {rounds}: neighbours", round + 1);
        let network = NeighbourNetwork::new()?;
        let [absent, masquerade, direct, mut states_with_tunnel @ ..] = AgentState::ALL;
        let mut states_without_tunnel = [absent, masquerade, direct];
        rng.shuffle(&mut states_without_tunnel);
        rng.shuffle(&mut states_with_tunnel);
        for state in states_without_tunnel.into_iter().chain(states_with_tunnel) {
            set_agent_state(&network, state)?;
            for (traffic, load) in
                Traffic::ALL.into_iter().flat_map(|traffic| LOADS.map(|load| (traffic, load)))
            {
                let sample = take_sample(&network.load_path(traffic), load, round, length, &cpu_meter)?;
                let seconds = sample.latencies.map(|latencies| latencies.p10);
                samples.extend(seconds.map(|seconds| NeighbourSample {
                    state,
                    traffic,
                    load,
                    round,
                    seconds,
                }));
            }
        }
    }
    Ok(samples)
}

fn set_agent_state(network: &NeighbourNetwork, state: AgentState) -> Result<(), BenchError> {
    agent::clean_up(&network.network)?;
    let service = service();
    let masquerading_service = Service { keeps_client_address: false, ..service.clone() };
    match state {
        AgentState::Absent | AgentState::Removed => Ok(()),
        AgentState::Masquerade => agent::apply(&network.network, None, &[masquerading_service]),
        AgentState::Direct => agent::apply(&network.network, Some(PeerPath::Direct), &[service]),
        AgentState::Tunnel => agent::apply(&network.network, Some(PeerPath::Tunnel), &[service]),
    }
}

/// Returns a Service with the neighbours' backend as its endpoint.
pub(crate) fn service() -> Service {
    let address = SocketAddr::new(NeighbourNetwork::backend_address().into(), addr::BACKEND_PORT);
    let endpoint = agent::endpoint(address, NeighbourNetwork::LAYOUT.backend_node());
    agent::service(CLUSTER_IP_PORT, &[Protocol::Tcp, Protocol::Udp], &[endpoint])
}

/// Returns the CPU times of the exchanges of one state, traffic and load. Each time has its round.
pub(crate) fn exchange_times(
    samples: &[NeighbourSample],
    state: AgentState,
    traffic: Traffic,
    load: Load,
) -> Vec<(usize, f64)> {
    let is_matching =
        |sample: &&NeighbourSample| (sample.state, sample.traffic, sample.load) == (state, traffic, load);
    samples.iter().filter(is_matching).map(|sample| (sample.round, sample.seconds)).collect()
}

/// Returns the ratio of a state's CPU times to the CPU times without the agent.
pub(crate) fn ratio_to_absent_agent(
    samples: &[NeighbourSample],
    state: AgentState,
    traffic: Traffic,
    load: Load,
) -> Option<Quartiles> {
    let baseline = exchange_times(samples, AgentState::Absent, traffic, load);
    Quartiles::from_ratios_by_round(&exchange_times(samples, state, traffic, load), &baseline)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratio_compares_a_state_with_the_absent_agent_in_the_same_round() {
        let sample = |state, round, seconds| NeighbourSample {
            state,
            traffic: Traffic::KubeProxy,
            load: Load::SingleDatagram,
            round,
            seconds,
        };
        let samples = [
            sample(AgentState::Absent, 0, 10.0),
            sample(AgentState::Direct, 0, 11.0),
            sample(AgentState::Direct, 1, 50.0),
        ];
        let ratio = |state| ratio_to_absent_agent(&samples, state, Traffic::KubeProxy, Load::SingleDatagram);
        assert!((ratio(AgentState::Direct).unwrap().median - 1.1).abs() < 1e-9);
        assert_eq!(ratio(AgentState::Tunnel), None);
    }
}
