//! Recognizes packets that a peer has sent for a client outside of the cluster. Pure.
//!
//! A foreign source address in a frame with a peer's MAC address means that the packet has come through that peer. The
//! conntrack zone of the flow's original direction stores the peer. The zone also separates flows with the same
//! addresses and ports that come through different nodes. Every arriving packet passes these rules. Therefore packets
//! from pods leave the chain at the first comparison, and no rule uses a set with intervals.

use akrobateo_core::Protocol;
use netfilter::nft::Table;
use netfilter::nft::abi::ct;
use netfilter::nft::model::{
    Chain, ChainType, DataType, Direction, Element, Expr, Hook, PayloadBase, Reg, Rule, Set, SetDefinition,
    Value, Verdict,
};

use super::endpoint_chains::all_family_parts;
use super::expressions::{accept, is_destination_port, is_input_interface, is_protocol, rule};
use super::family::{FamilyPart, address_value};
use crate::config::NodeConfig;
use crate::marks;
use crate::tunnel;

/// The priority before conntrack, and before the raw tables of other programs (`NF_IP_PRI_RAW` is -300).
const PRIORITY: i32 = -310;

/// Adds the sets and chains that recognize packets of peers.
pub(super) fn add_to(table: &mut Table, config: &NodeConfig) {
    let families = all_family_parts();
    table.sets.push(peer_zones(config));
    table.sets.extend(families.iter().map(|part| {
        let addresses = own_destinations(config, *part).map(|address| Element::new(address_value(address)));
        Set::new(part.name("own_destinations"), SetDefinition::set(part.address_type), addresses.collect())
    }));
    table.sets.extend(families.iter().map(|part| {
        let nodes = config.node_addresses(part.family).map(|address| Element::new(address_value(address)));
        Set::new(part.name("nodes"), SetDefinition::set(part.address_type), nodes.collect())
    }));
    let is_tunnel_packet = [is_protocol(Protocol::Udp.number()), is_destination_port(tunnel::PORT)].concat();
    let no_track_rule = rule([&is_tunnel_packet, &[Expr::NoTrack]]);
    let mut prerouting = Vec::new();
    for part in &families {
        prerouting.extend(
            config.pod_ranges(part.family).iter().map(|range| accept_packets_from_pods(*part, range)),
        );
    }
    prerouting.extend(families.iter().map(|part| recognize(*part, &config.node.uplink, true)));
    prerouting.extend(families.iter().map(|part| recognize(*part, tunnel::DEVICE, false)));
    prerouting.push(no_track_rule.clone());
    let drop_tunnel_packets_of_others = families.map(|part| {
        rule([
            &is_tunnel_packet,
            &part.is_family(),
            &[part.source(Reg(0)), Expr::is_not_in(part.name("nodes"), Reg(0)), Expr::Verdict(Verdict::Drop)],
        ])
    });
    let base = |name, hook, rules| Chain::base(name, ChainType::Filter, hook, PRIORITY, rules);
    table.chains.extend([
        base("raw_pre", Hook::Prerouting, prerouting),
        base("raw_out", Hook::Output, vec![no_track_rule]),
        base("tunnel_in", Hook::Input, drop_tunnel_packets_of_others.into()),
    ]);
}

/// Returns the addresses to which peers send packets of clients: the addresses of this node's endpoints, and of probes.
fn own_destinations(config: &NodeConfig, part: FamilyPart) -> impl Iterator<Item = std::net::IpAddr> {
    let services = config.services.iter().filter(|service| service.keeps_client_address);
    let endpoints = services.flat_map(|service| &service.ports).flat_map(|port| &port.endpoints);
    let local_addresses =
        endpoints.filter(|endpoint| config.is_local(endpoint)).map(|endpoint| endpoint.address.ip());
    local_addresses
        .chain(config.node.probe_addresses.iter().copied())
        .filter(move |address| akrobateo_core::Family::from_ip(*address) == part.family)
}

/// Returns the rule that accepts packets from pods. An encapsulated packet does not match, because its outer source is
/// a node.
fn accept_packets_from_pods(part: FamilyPart, range: &ipnet::IpNet) -> Rule {
    rule([&part.is_family(), &[part.source(Reg(0)), FamilyPart::is_in_range(range, Reg(0)), accept()]])
}

/// Returns the rule that stores the peer of packets that arrive on an interface. If `excludes_nodes` is true, packets
/// that nodes send for themselves do not match.
fn recognize(part: FamilyPart, interface: &str, excludes_nodes: bool) -> Rule {
    let is_foreign: &[Expr] = if excludes_nodes {
        &[part.source(Reg(0)), Expr::is_not_in(part.name("nodes"), Reg(0))]
    } else {
        &[]
    };
    rule([
        &is_input_interface(interface),
        &part.is_family(),
        &[part.destination(Reg(0)), Expr::is_in(part.name("own_destinations"), Reg(0))],
        is_foreign,
        &[
            Expr::payload(PayloadBase::Link, 6, 6, Reg(0)),
            Expr::map("peer_zones", Reg(0), Reg(0)),
            Expr::SetCt { key: ct::KEY_ZONE, direction: Some(Direction::Original), sreg: Reg(0) },
        ],
    ])
}

/// Returns the map from each MAC address of a peer to the peer's zone. A peer has one address on its uplink, and
/// another address in the tunnel.
fn peer_zones(config: &NodeConfig) -> Set {
    let elements = config.peers.iter().flat_map(|peer| {
        let zone = Value::from(marks::zone(peer.number).to_ne_bytes());
        [peer.mac, tunnel::node_mac(peer.number)].map(|mac| Element::new(Value::from(mac.0)).with_value(zone))
    });
    Set::new("peer_zones", SetDefinition::map(DataType::MAC, DataType::ZONE), elements.collect())
}
