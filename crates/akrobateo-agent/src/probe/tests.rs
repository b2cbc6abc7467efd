//! Two probes in a simulated network, with simulated time.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use akrobateo_core::family::Family;
use proptest::prelude::*;

use super::*;

const LATENCY: Duration = Duration::from_millis(1);
/// The documented time after which no node uses a broken path any more.
const MAX_TIME_TO_DETECT_LOSS: Duration = Duration::from_millis(3500);
const PAYLOAD_LENGTH: usize = 1472;

/// The properties of the network between two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    /// For each path: true if frames from node 1 to node 2 arrive.
    forward_works: [bool; 2],
    /// For each path: true if frames from node 2 to node 1 arrive.
    backward_works: [bool; 2],
    /// The length of the largest UDP payload that arrives.
    max_payload_length: usize,
}

const GOOD_NETWORK: Network =
    Network { forward_works: [true; 2], backward_works: [true; 2], max_payload_length: 2000 };
const BROKEN_NETWORK: Network =
    Network { forward_works: [false; 2], backward_works: [false; 2], max_payload_length: 2000 };
const TUNNEL_ONLY_NETWORK: Network =
    Network { forward_works: [false, true], backward_works: [false, true], max_payload_length: 2000 };

/// A datagram that has not arrived yet.
#[derive(Clone, Debug)]
struct InFlightDatagram {
    arrives_at: Instant,
    receiver: usize,
    transmission: Transmission,
}

/// Two nodes and the network between them.
#[derive(Clone, Debug)]
struct Simulation {
    now: Instant,
    probers: [Option<Prober>; 2],
    network: Network,
    in_flight: Vec<InFlightDatagram>,
    next_nonce: u64,
    sent_datagrams: usize,
    /// The simulation loses one of each so many datagrams; 0 means that no datagram is lost.
    datagrams_per_loss: usize,
    /// The changes of node 1's mode.
    mode_changes: Vec<(Instant, ForwardingMode)>,
}

fn address(node: usize) -> IpAddr {
    IpAddr::from([10, 99, 0, u8::try_from(node).unwrap() + 11])
}

fn new_prober(node: usize, now: Instant) -> Prober {
    let mut prober = Prober::new(vec![address(node)], 1500, 1500);
    let peer = 1 - node;
    let target = Target {
        id: TargetId { peer: u16::try_from(peer).unwrap() + 1, family: Family::V4 },
        node_address: address(peer),
        pod_range_address: IpAddr::from([10, 244, u8::try_from(peer).unwrap(), 0]),
        has_tunnel: true,
    };
    prober.set_targets(vec![target], now);
    prober
}

impl Simulation {
    fn new(network: Network) -> Self {
        let now = Instant::now();
        Self {
            now,
            probers: [0, 1].map(|node| Some(new_prober(node, now))),
            network,
            in_flight: Vec::new(),
            next_nonce: 0,
            sent_datagrams: 0,
            datagrams_per_loss: 0,
            mode_changes: Vec::new(),
        }
    }

    fn mode(&self, node: usize) -> ForwardingMode {
        let modes: BTreeMap<_, _> = self.probers[node].as_ref().unwrap().forwarding_modes();
        *modes.values().next().unwrap()
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            let arrives_at = self.in_flight.iter().map(|datagram| datagram.arrives_at).min();
            let events = self.probers.iter().flatten().filter_map(Prober::next_event_at);
            self.now = events.chain(arrives_at).min().unwrap_or(end).max(self.now).min(end);
            self.deliver();
            for node in 0..2 {
                let (now, nonce) = (self.now, &mut self.next_nonce);
                let Some(prober) = &mut self.probers[node] else { continue };
                let next_nonce = || {
                    *nonce += 1;
                    *nonce
                };
                for transmission in prober.on_timer(now, next_nonce) {
                    self.send(node, transmission);
                }
            }
            if self.probers[0].is_some()
                && self.mode_changes.last().map(|(_, mode)| *mode) != Some(self.mode(0))
            {
                self.mode_changes.push((self.now, self.mode(0)));
            }
        }
    }

    fn send(&mut self, sender: usize, transmission: Transmission) {
        self.sent_datagrams += 1;
        let paths = if sender == 0 { self.network.forward_works } else { self.network.backward_works };
        let is_dropped =
            self.datagrams_per_loss > 0 && self.sent_datagrams.is_multiple_of(self.datagrams_per_loss);
        if paths[transmission.path as usize]
            && transmission.bytes.len() <= self.network.max_payload_length
            && !is_dropped
        {
            self.in_flight.push(InFlightDatagram {
                arrives_at: self.now + LATENCY,
                receiver: 1 - sender,
                transmission,
            });
        }
    }

    fn deliver(&mut self) {
        let (arrived, still_in_flight) =
            self.in_flight.drain(..).partition::<Vec<_>, _>(|datagram| datagram.arrives_at <= self.now);
        self.in_flight = still_in_flight;
        for InFlightDatagram { receiver, transmission, .. } in arrived {
            let Some(prober) = &mut self.probers[receiver] else { continue };
            if transmission.is_answer {
                prober.on_answer(&transmission.bytes, self.now);
            } else {
                let source: SocketAddr = (foreign_address(Family::V4), 4000).into();
                let answer = prober.on_request(&transmission.bytes, source, self.now);
                if let Some(answer) = answer {
                    self.send(receiver, answer);
                }
            }
        }
    }
}

const fn masquerade(reason: MasqueradeReason) -> ForwardingMode {
    ForwardingMode::Masquerade(reason)
}

#[test]
fn first_mode_is_decided_within_two_seconds() {
    for (network, expected) in [
        (GOOD_NETWORK, ForwardingMode::Keep(PeerPath::Direct)),
        (TUNNEL_ONLY_NETWORK, ForwardingMode::Keep(PeerPath::Tunnel)),
        (BROKEN_NETWORK, masquerade(MasqueradeReason::NoAnswer)),
        (
            Network { max_payload_length: PAYLOAD_LENGTH - 1, ..GOOD_NETWORK },
            masquerade(MasqueradeReason::FullSizeLost),
        ),
        (Network { forward_works: [false; 2], ..GOOD_NETWORK }, masquerade(MasqueradeReason::NoAnswer)),
    ] {
        let mut simulation = Simulation::new(network);
        simulation.run(Duration::from_secs(2));
        assert_eq!(simulation.mode(0), expected, "{network:?}");
        assert_eq!(simulation.mode(1), expected, "{network:?}");
        assert!(simulation.mode_changes.len() <= 2, "{:?}", simulation.mode_changes);
    }
}

#[test]
fn lost_path_is_replaced_and_used_again_after_its_penalty() {
    let mut simulation = Simulation::new(GOOD_NETWORK);
    simulation.run(Duration::from_mins(1));
    for (losses, penalty) in [(1, 5), (2, 10), (3, 20)] {
        simulation.network = TUNNEL_ONLY_NETWORK;
        simulation.run(MAX_TIME_TO_DETECT_LOSS);
        assert_eq!(simulation.mode(0), ForwardingMode::Keep(PeerPath::Tunnel), "loss {losses}");
        simulation.network = GOOD_NETWORK;
        simulation.run(Duration::from_secs(penalty));
        assert_eq!(simulation.mode(0), ForwardingMode::Keep(PeerPath::Tunnel), "loss {losses}");
        simulation.run(Duration::from_secs(5));
        assert_eq!(simulation.mode(0), ForwardingMode::Keep(PeerPath::Direct), "loss {losses}");
    }
}

#[test]
fn single_lost_datagram_does_not_change_the_mode() {
    let mut simulation = Simulation::new(GOOD_NETWORK);
    simulation.run(Duration::from_secs(5));
    simulation.mode_changes.clear();
    simulation.datagrams_per_loss = 10;
    simulation.run(Duration::from_hours(1));
    assert_eq!(simulation.mode_changes.len(), 1, "{:?}", simulation.mode_changes);
}

#[test]
fn flapping_network_changes_the_mode_rarely() {
    let mut simulation = Simulation::new(GOOD_NETWORK);
    for _ in 0..60 {
        simulation.run(Duration::from_secs(30));
        simulation.network = TUNNEL_ONLY_NETWORK;
        simulation.run(Duration::from_secs(30));
        simulation.network = GOOD_NETWORK;
    }
    assert!(simulation.mode_changes.len() < 10, "{} changes", simulation.mode_changes.len());
}

#[test]
fn working_peer_is_probed_rarely() {
    let mut simulation = Simulation::new(GOOD_NETWORK);
    simulation.run(Duration::from_secs(10));
    let sent_before = simulation.sent_datagrams;
    simulation.run(Duration::from_secs(100));
    // Every two seconds, each of two nodes sends a request and an answer on two paths.
    assert!(
        simulation.sent_datagrams - sent_before <= 2 * 2 * 2 * 51,
        "{} datagrams",
        simulation.sent_datagrams - sent_before
    );
}

#[test]
fn mode_remains_for_a_minute_after_an_announced_stop() {
    let mut simulation = Simulation::new(GOOD_NETWORK);
    simulation.run(Duration::from_secs(10));
    let messages = simulation.probers[1].as_ref().unwrap().pause_messages();
    simulation.probers[1] = None;
    for message in messages {
        simulation.send(1, message);
    }
    simulation.mode_changes.clear();
    simulation.run(Duration::from_secs(59));
    assert_eq!(simulation.mode(0), ForwardingMode::Keep(PeerPath::Direct));
    let mut simulation_with_restart = simulation.clone();
    simulation_with_restart.probers[1] = Some(new_prober(1, simulation_with_restart.now));
    simulation_with_restart.run(Duration::from_mins(5));
    assert_eq!(simulation_with_restart.mode_changes.len(), 1, "{:?}", simulation_with_restart.mode_changes);
    simulation.run(Duration::from_secs(1) + MAX_TIME_TO_DETECT_LOSS);
    assert_eq!(simulation.mode(0), masquerade(MasqueradeReason::NoAnswer));
}

#[test]
fn unchanged_targets_keep_their_modes() {
    let mut simulation = Simulation::new(GOOD_NETWORK);
    simulation.run(Duration::from_secs(5));
    let now = simulation.now;
    let mut prober = simulation.probers[0].take().unwrap();
    let fresh_prober = new_prober(0, now);
    let (modes, id) = (prober.forwarding_modes(), *fresh_prober.forwarding_modes().keys().next().unwrap());
    let target = |peer: u16, pod: u8| Target {
        id: TargetId { peer, ..id },
        node_address: address(usize::from(peer) - 1),
        pod_range_address: IpAddr::from([10, 244, pod, 0]),
        has_tunnel: true,
    };
    prober.set_targets(vec![target(2, 1), target(3, 2)], now);
    assert_eq!(prober.forwarding_modes()[&id], modes[&id]);
    assert_eq!(prober.forwarding_modes()[&target(3, 2).id], masquerade(MasqueradeReason::Undecided));
    prober.set_targets(vec![target(2, 9)], now);
    assert_eq!(prober.forwarding_modes()[&id], masquerade(MasqueradeReason::Undecided));
    assert_eq!(prober.forwarding_modes().len(), 1);
}

fn network() -> impl Strategy<Value = Network> {
    let arrives = prop::array::uniform2(prop::bool::weighted(0.7));
    (arrives, arrives, prop::sample::select(vec![1000, 2000])).prop_map(
        |(forward_works, backward_works, max_payload_length)| Network {
            forward_works,
            backward_works,
            max_payload_length,
        },
    )
}

/// Returns the path that both nodes must find.
fn best_path(network: Network) -> Option<PeerPath> {
    let works = |path: &PeerPath| {
        let index = *path as usize;
        network.forward_works[index]
            && network.backward_works[index]
            && network.max_payload_length >= PAYLOAD_LENGTH
    };
    PeerPath::ALL.into_iter().find(works)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn both_nodes_find_the_best_path_after_any_changes_of_the_network(
        networks in prop::collection::vec((network(), 0..60u64), 1..8), last_network in network(),
    ) {
        let mut simulation = Simulation::new(GOOD_NETWORK);
        for (network, seconds) in networks {
            simulation.network = network;
            simulation.run(Duration::from_secs(seconds));
            // After the documented time, no node uses a broken path any more.
            if Duration::from_secs(seconds) > MAX_TIME_TO_DETECT_LOSS {
                for node in 0..2 {
                    if let ForwardingMode::Keep(path) = simulation.mode(node) {
                        let index = path as usize;
                        prop_assert!(network.forward_works[index] && network.backward_works[index]);
                    }
                }
            }
        }
        simulation.network = last_network;
        simulation.run(Duration::from_mins(6));
        let modes = [0, 1].map(|node| simulation.mode(node));
        for mode in modes {
            match best_path(last_network) {
                Some(path) => prop_assert_eq!(mode, ForwardingMode::Keep(path)),
                None => prop_assert!(matches!(mode, ForwardingMode::Masquerade(_)), "{:?}", mode),
            }
        }
    }
}
