//! This node, its peers, and the ranges of pods, for the configuration of the data path. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use akrobateo_services::agent_report::{AgentReport, NodeNetwork};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;

use super::observation::{Observation, PeerReports};
use crate::config::{LocalNode, Peer};
use crate::marks::NodeNumber;

/// The label with the zone of a node (<https://kubernetes.io/docs/reference/labels-annotations-taints/>).
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// Returns the description of this node for the data path. `node` is the Node object.
pub(super) fn local_node(observation: &Observation, node: &Node) -> LocalNode {
    LocalNode {
        number: observation.number,
        name: observation.node_name.to_owned(),
        zone: node.labels().get(ZONE_LABEL).cloned(),
        addresses: observation.network.local_addresses.clone(),
        uplink: observation.network.uplink.clone(),
        uplink_mtu: observation.network.mtu,
        probe_addresses: probe_addresses(node),
        // The thread of the data path sets this to false if the kernel lacks the hook.
        has_egress_hook: true,
        marks: observation.marks,
    }
}

/// Returns the facts that peers need to send packets through this node.
pub(super) fn node_network(observation: &Observation, node: &Node) -> NodeNetwork {
    NodeNetwork {
        number: observation.number,
        addresses: observation.network.local_addresses.clone(),
        mac: observation.network.mac.map(|mac| mac.to_string()).unwrap_or_default(),
        probe_addresses: probe_addresses(node),
    }
}

/// Returns the other nodes with an agent, sorted by number.
///
/// A node without a MAC address is not a peer. A node whose number or MAC address belongs to another node is not a peer
/// either. The endpoints on these nodes get packets with masqueraded addresses.
///
/// The node of a silent agent is a peer only if all its addresses still belong to it.
pub(super) fn peers(observation: &Observation) -> Vec<Peer> {
    let mut peers: BTreeMap<NodeNumber, Peer> = BTreeMap::new();
    let mut macs: BTreeSet<_> = observation.network.mac.into_iter().collect();
    let mut used_addresses: BTreeSet<_> = observation.network.local_addresses.iter().copied().collect();
    for (report, is_silent) in all_reports(observation) {
        let Some(network) = &report.network else { continue };
        let Ok(mac) = network.mac.parse() else { continue };
        if network.number == observation.number
            || peers.contains_key(&network.number)
            || (is_silent && network.addresses.iter().any(|address| used_addresses.contains(address)))
            || !macs.insert(mac)
        {
            continue;
        }
        used_addresses.extend(&network.addresses);
        peers.insert(
            network.number,
            Peer {
                number: network.number,
                addresses: network.addresses.clone(),
                mac,
                probe_addresses: network.probe_addresses.clone(),
                paths: BTreeMap::new(),
                last_paths: BTreeMap::new(),
                is_silent,
            },
        );
    }
    peers.into_values().collect()
}

/// Returns the reports of the other agents. The second value is true if the agent does not renew its Lease. The alive
/// agents come first, because a new node may have the addresses of a lost node.
fn all_reports<'a>(observation: &Observation<'a>) -> impl Iterator<Item = (&'a AgentReport, bool)> {
    let PeerReports { alive, silent } = observation.peer_reports;
    alive.iter().map(|report| (report, false)).chain(silent.iter().map(|report| (report, true)))
}

/// The numbers of nodes, by the names of the nodes.
pub(super) type NodeNumbers = BTreeMap<String, NodeNumber>;

/// Returns the numbers of this node and of the peers.
pub(super) fn node_numbers(observation: &Observation, peers: &[Peer]) -> NodeNumbers {
    let name_and_number = |(report, _): (&AgentReport, bool)| {
        let number = report.network.as_ref()?.number;
        peers.iter().any(|peer| peer.number == number).then(|| (report.node.clone(), number))
    };
    let peer_numbers = all_reports(observation).filter_map(name_and_number);
    peer_numbers.chain([(observation.node_name.to_owned(), observation.number)]).collect()
}

/// Returns the address ranges of the pods of all nodes, together with the configured ranges.
pub(super) fn pod_ranges<'a>(
    nodes: impl Iterator<Item = &'a Node>,
    configured_ranges: &[IpNet],
) -> Vec<IpNet> {
    let ranges = nodes.flat_map(node_pod_ranges).chain(configured_ranges.iter().copied()).collect();
    IpNet::aggregate(&ranges)
}

fn node_pod_ranges(node: &Node) -> Vec<IpNet> {
    let ranges = node.spec.iter().flat_map(|spec| spec.pod_cidrs.iter().flatten());
    ranges.filter_map(|range| range.parse::<IpNet>().ok()).map(|range| range.trunc()).collect()
}

/// Returns the addresses to which peers send probes: the first address of each range of the node's pods. No pod has
/// this address.
fn probe_addresses(node: &Node) -> Vec<IpAddr> {
    node_pod_ranges(node).iter().map(IpNet::network).collect()
}
