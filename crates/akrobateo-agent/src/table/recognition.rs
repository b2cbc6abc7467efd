//! Recognizes packets that a peer has sent for a client outside of the cluster. Pure.
//!
//! A foreign source address in a frame with a peer's MAC address means that the packet has come through that peer. The
//! conntrack zone of the flow's original direction keeps this, and also separates flows with the same addresses and ports
//! that come through different nodes. Every packet that arrives passes these rules, so neighbours leave at the first
//! comparison, and no set with intervals stands here.

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

/// Before conntrack, and before the raw tables of other programs (`NF_IP_PRI_RAW` is -300).
const PRIORITY: i32 = -310;
/// The chain of packets to own endpoints.
const RECOGNIZE: &str = "recognize";

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
    let untracked = rule([&is_tunnel_packet, &[Expr::NoTrack]]);
    let mut prerouting = Vec::new();
    for part in &families {
        prerouting.extend(config.pod_ranges(part.family).iter().map(|range| skip_pods(*part, range)));
    }
    prerouting.extend(families.iter().map(|part| find_own_destination(*part)));
    if config.needs_tunnel() {
        prerouting.push(untracked.clone());
    }
    let drop_strangers = families.map(|part| {
        rule([
            &is_tunnel_packet,
            &part.is_family(),
            &[part.source(Reg(0)), Expr::is_not_in(part.name("nodes"), Reg(0)), Expr::Verdict(Verdict::Drop)],
        ])
    });
    table.chains.extend(families.iter().map(|part| {
        let rules =
            vec![recognize(*part, &config.node.uplink, true), recognize(*part, tunnel::DEVICE, false)];
        Chain::regular(part.name(RECOGNIZE), rules)
    }));
    let base = |name, hook, rules| Chain::base(name, ChainType::Filter, hook, PRIORITY, rules);
    table.chains.push(base("raw_pre", Hook::Prerouting, prerouting));
    if config.needs_tunnel() {
        table.chains.extend([
            base("raw_out", Hook::Output, vec![untracked]),
            base("tunnel_in", Hook::Input, drop_strangers.into()),
        ]);
    }
}

/// Returns the addresses to which peers send packets of clients: those of the node's endpoints, and the probe's.
fn own_destinations(config: &NodeConfig, part: FamilyPart) -> impl Iterator<Item = std::net::IpAddr> {
    let services = config.services.iter().filter(|service| service.keeps_client_address);
    let endpoints = services.flat_map(|service| &service.ports).flat_map(|port| &port.endpoints);
    let local = endpoints.filter(|endpoint| config.is_local(endpoint)).map(|endpoint| endpoint.address.ip());
    local
        .chain(config.node.probe_addresses.iter().copied())
        .filter(move |address| akrobateo_core::Family::from_ip(*address) == part.family)
}

/// Packets from pods leave the chain.
fn skip_pods(part: FamilyPart, range: &ipnet::IpNet) -> Rule {
    rule([&part.is_family(), &part.is_source_in(range), &[accept()]])
}

/// Sends packets to own endpoints to the chain that recognizes them. All other packets need one lookup only.
fn find_own_destination(part: FamilyPart) -> Rule {
    let is_own = [part.destination(Reg(0)), Expr::is_in(part.name("own_destinations"), Reg(0))];
    rule([&part.is_family(), &is_own, &[Expr::Verdict(Verdict::jump(part.name(RECOGNIZE)))]])
}

fn recognize(part: FamilyPart, interface: &str, excludes_nodes: bool) -> Rule {
    let is_foreign: &[Expr] = if excludes_nodes {
        &[part.source(Reg(0)), Expr::is_not_in(part.name("nodes"), Reg(0))]
    } else {
        &[]
    };
    rule([
        &is_input_interface(interface),
        is_foreign,
        &[
            Expr::payload(PayloadBase::Link, 6, 6, Reg(0)),
            Expr::map("peer_zones", Reg(0), Reg(0)),
            Expr::SetCt { key: ct::KEY_ZONE, direction: Some(Direction::Original), sreg: Reg(0) },
        ],
    ])
}

/// Returns the map from a peer's MAC address, on the uplink or in the tunnel, to its zone.
fn peer_zones(config: &NodeConfig) -> Set {
    let elements = config.peers.iter().flat_map(|peer| {
        let zone = Value::from(marks::zone(peer.number).to_ne_bytes());
        [peer.mac, tunnel::node_mac(peer.number)].map(|mac| Element::new(Value::from(mac.0)).with_value(zone))
    });
    Set::new("peer_zones", SetDefinition::map(DataType::MAC, DataType::ZONE), elements.collect())
}
