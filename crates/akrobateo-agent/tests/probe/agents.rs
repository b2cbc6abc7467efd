//! Agents on the nodes of a laboratory: tunnel, rules and probe.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use akrobateo_agent::marks::{Marks, NodeNumber};
use akrobateo_agent::probe::{ForwardingMode, ProbeNode, ProbeService, Target, TargetId};
use akrobateo_agent::tunnel::{self, Tunnel};
use akrobateo_core::family::Family;
use links::Client;
use netns_testkit::laboratory::addresses::{node_address, pod_gateway};
use netns_testkit::laboratory::{Laboratory, Node, Options};
use netns_testkit::privileges::{CapabilitySet, keep_capabilities};

use crate::rules;

/// The longest time that a change of a mode may take. A lost path is used again after it has worked for at least 5
/// seconds.
const MODE_TIMEOUT: Duration = Duration::from_secs(40);
const UPLINK_MTU: u32 = 1500;

type Modes = Arc<Mutex<BTreeMap<TargetId, ForwardingMode>>>;

/// Agents on all nodes of a laboratory. Each agent can stop and start again.
#[derive(Debug)]
pub(crate) struct Agents {
    pub(crate) laboratory: Laboratory,
    pub(crate) families: &'static [Family],
    agent_by_node: Vec<Option<Agent>>,
}

#[derive(Debug)]
struct Agent {
    probe: ProbeService,
    modes: Modes,
}

impl Agents {
    /// Creates a laboratory with the kernel objects of all agents. The agents do not run yet.
    pub(crate) fn new(options: &Options) -> Self {
        let laboratory = Laboratory::new(options);
        for node in &laboratory.nodes {
            set_up_tunnel(&laboratory, node);
            node.namespace.load_nft(&rules::render_tables(&laboratory, node));
        }
        let agent_by_node = laboratory.nodes.iter().map(|_| None).collect();
        Self { laboratory, families: options.segment_families(), agent_by_node }
    }

    /// Creates a laboratory with running agents.
    pub(crate) fn start_all(options: &Options) -> Self {
        let mut agents = Self::new(options);
        (1..=options.node_count).for_each(|node| agents.start(node));
        agents
    }

    /// Starts the process of a node's agent. The process has only the capability `NET_ADMIN`.
    pub(crate) fn start(&mut self, node_number: usize) {
        let node = self.laboratory.node(node_number);
        let modes = Modes::default();
        let reported_modes = Arc::clone(&modes);
        let probe_node = ProbeNode {
            addresses: node.addresses.clone(),
            uplink_mtu: UPLINK_MTU,
            tunnel_mtu: tunnel::mtu(UPLINK_MTU, node.addresses[0]),
            marks: Marks::default(),
        };
        let on_change = move |modes: &BTreeMap<_, _>| reported_modes.lock().unwrap().clone_from(modes);
        let probe = node.namespace.run(|| {
            keep_capabilities(CapabilitySet::NET_ADMIN);
            ProbeService::start(&probe_node, on_change).unwrap()
        });
        probe.set_targets(self.targets(node_number));
        self.agent_by_node[node_number - 1] = Some(Agent { probe, modes });
    }

    /// Stops the process of a node's agent. Its rules remain.
    pub(crate) fn stop(&mut self, node_number: usize) {
        self.agent_by_node[node_number - 1] = None;
    }

    /// Stops the process of a node's agent as an upgrade does: the agent announces that its rules remain.
    pub(crate) fn pause(&mut self, node_number: usize) {
        self.agent_by_node[node_number - 1].take().unwrap().probe.pause();
    }

    fn targets(&self, node_number: usize) -> Vec<Target> {
        let mut targets = Vec::new();
        for peer in self.laboratory.nodes.iter().filter(|peer| peer.number != node_number) {
            for family in self.families {
                targets.push(Target {
                    id: id(peer.number, *family),
                    node_address: node_address(*family, peer.number),
                    pod_range_address: network_address(pod_gateway(*family, peer.number)),
                    has_tunnel: true,
                });
            }
        }
        targets
    }

    /// Returns the mode of a node towards a peer.
    pub(crate) fn mode(&self, node: usize, peer: usize, family: Family) -> Option<ForwardingMode> {
        let agent = self.agent_by_node[node - 1].as_ref().unwrap();
        agent.modes.lock().unwrap().get(&id(peer, family)).copied()
    }

    /// Waits until a node has the mode towards a peer in all families, and returns the time that this took.
    pub(crate) fn wait_for_mode(&self, node: usize, peer: usize, expected: ForwardingMode) -> Duration {
        let start = Instant::now();
        for family in self.families {
            loop {
                let mode = self.mode(node, peer, *family);
                if mode == Some(expected) {
                    break;
                }
                let elapsed = start.elapsed();
                assert!(
                    elapsed < MODE_TIMEOUT,
                    "node {node} to {peer} {family}: {mode:?} instead of {expected:?}"
                );
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        start.elapsed()
    }

    /// Writes the modes of all nodes into their tables.
    pub(crate) fn apply_modes(&self) {
        for (node, agent) in self.laboratory.nodes.iter().zip(&self.agent_by_node) {
            let Some(agent) = agent else { continue };
            let modes = agent.modes.lock().unwrap().clone();
            let commands: String =
                modes.into_iter().map(|(id, mode)| rules::render_mode_commands(id, mode)).collect();
            node.namespace.load_nft(&commands);
        }
    }
}

pub(crate) fn id(peer: usize, family: Family) -> TargetId {
    TargetId { peer: NodeNumber::try_from(peer).unwrap(), family }
}

fn set_up_tunnel(laboratory: &Laboratory, node: &Node) {
    let family = Family::from_ip(node.addresses[0]);
    let number = |node: &Node| NodeNumber::try_from(node.number).unwrap();
    let peers = laboratory.nodes.iter().filter(|peer| peer.number != node.number);
    let tunnel = Tunnel {
        node: number(node),
        local_address: node.addresses[0],
        uplink_mtu: UPLINK_MTU,
        peers: peers.map(|peer| (number(peer), peer.address(family))).collect(),
        families: Family::ALL.into(),
        marks: Marks::default(),
    };
    node.namespace.run(|| {
        keep_capabilities(CapabilitySet::NET_ADMIN);
        Client::open(tunnel::owner()).unwrap().reconcile(&tunnel.network_objects()).unwrap();
    });
}

/// Returns the network address of the gateway's network. No pod has this address.
fn network_address(gateway: IpAddr) -> IpAddr {
    match gateway {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            IpAddr::from([a, b, c, 0])
        }
        IpAddr::V6(address) => {
            let mut segments = address.segments();
            segments[7] = 0;
            IpAddr::from(segments)
        }
    }
}
