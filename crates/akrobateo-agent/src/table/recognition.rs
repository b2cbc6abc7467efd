//! Recognizes packets that a peer has sent for a client outside of the cluster. Pure.
//!
//! A foreign source address in a frame with a peer's MAC address means that the packet has come through that peer. The
//! conntrack zone of the flow's original direction keeps this, and also separates flows with the same addresses and ports
//! that come through different nodes. Every packet that arrives passes these rules. So packets from pods leave at the first
//! comparison, packets from nodes leave after one lookup, and no set with intervals stands here.

use std::net::IpAddr;

use akrobateo_core::{Family, Protocol};
use netfilter::nft::Table;
use netfilter::nft::abi::ct;
use netfilter::nft::model::{
    Chain, ChainType, DataType, Direction, Element, Expr, Hook, PayloadBase, Reg, Rule, Set, SetDefinition,
    Value, Verdict,
};

use super::endpoint_chains::all_ip_versions;
use super::expressions::{accept, is_destination_port, is_input_interface, is_protocol, rule};
use super::ip_version::{IpVersion, address_value};
use crate::config::NodeConfig;
use crate::marks;
use crate::tunnel;

/// Before conntrack, and before the raw tables of other programs (`NF_IP_PRI_RAW` is -300).
const PRIORITY: i32 = -310;
/// The chain of packets that no pod has sent.
const RECOGNIZE: &str = "recognize";

pub(super) fn add_to(table: &mut Table, config: &NodeConfig) {
    let ip_versions = all_ip_versions();
    table.sets.push(peer_zones(config));
    table.sets.extend(ip_versions.iter().map(|ip_version| {
        let addresses =
            own_destinations(config, *ip_version).map(|address| Element::new(address_value(address)));
        Set::new(
            ip_version.add_suffix("own_destinations"),
            SetDefinition::set(ip_version.address_type),
            addresses.collect(),
        )
    }));
    table.sets.extend(ip_versions.iter().map(|ip_version| {
        let nodes =
            config.node_addresses(ip_version.family).map(|address| Element::new(address_value(address)));
        Set::new(ip_version.add_suffix("nodes"), SetDefinition::set(ip_version.address_type), nodes.collect())
    }));
    let is_tunnel_packet = [is_protocol(Protocol::Udp.number()), is_destination_port(tunnel::PORT)].concat();
    let untracked = rule([&is_tunnel_packet, &[Expr::NoTrack]]);
    let mut prerouting = Vec::new();
    for ip_version in &ip_versions {
        prerouting
            .extend(config.pod_ranges(ip_version.family).iter().map(|range| skip_pods(*ip_version, range)));
    }
    // The sources of these packets are nodes.
    if config.needs_tunnel() {
        prerouting.push(untracked.clone());
    }
    prerouting.extend(ip_versions.iter().map(|ip_version| {
        let goto = Expr::Verdict(Verdict::goto(ip_version.add_suffix(RECOGNIZE)));
        rule([&ip_version.match_packets(), &[goto]])
    }));
    let drop_strangers = ip_versions.map(|ip_version| {
        rule([
            &is_tunnel_packet,
            &ip_version.match_packets(),
            &[
                ip_version.source(Reg(0)),
                Expr::is_not_in(ip_version.add_suffix("nodes"), Reg(0)),
                Expr::Verdict(Verdict::Drop),
            ],
        ])
    });
    table.chains.extend(ip_versions.iter().map(|ip_version| {
        let mut rules = vec![skip_nodes(*ip_version), recognize(*ip_version, &config.node.uplink)];
        if config.needs_tunnel() {
            rules.push(recognize(*ip_version, tunnel::DEVICE));
        }
        Chain::regular(ip_version.add_suffix(RECOGNIZE), rules)
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
fn own_destinations(config: &NodeConfig, ip_version: IpVersion) -> impl Iterator<Item = IpAddr> {
    let services = config.services.iter().filter(|service| service.keeps_client_address);
    let endpoints = services.flat_map(|service| &service.ports).flat_map(|port| &port.endpoints);
    let local = endpoints.filter(|endpoint| config.is_local(endpoint)).map(|endpoint| endpoint.address.ip());
    local
        .chain(config.node.probe_addresses.iter().copied())
        .filter(move |address| Family::from_ip(*address) == ip_version.family)
}

/// Packets from pods leave the chain.
fn skip_pods(ip_version: IpVersion, range: &ipnet::IpNet) -> Rule {
    rule([&ip_version.match_packets(), &ip_version.is_source_in(range), &[accept()]])
}

/// Packets from nodes leave the chain: a peer masquerades its own packets and those of its pods.
fn skip_nodes(ip_version: IpVersion) -> Rule {
    let is_node = [ip_version.source(Reg(0)), Expr::is_in(ip_version.add_suffix("nodes"), Reg(0))];
    rule([&is_node, &[accept()]])
}

/// Sets the zone of packets that arrive at an own endpoint in a frame of a peer.
fn recognize(ip_version: IpVersion, interface: &str) -> Rule {
    rule([
        &[ip_version.destination(Reg(0)), Expr::is_in(ip_version.add_suffix("own_destinations"), Reg(0))],
        &is_input_interface(interface),
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
