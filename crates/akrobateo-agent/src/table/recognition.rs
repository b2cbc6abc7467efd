//! Recognizes packets that a peer has sent for a client outside of the cluster. Pure.
//!
//! A packet has come through a peer if its source IP address is outside of the cluster and its source MAC address
//! belongs to the peer. The conntrack zone of the flow's original direction stores the peer. Because of the zones,
//! flows through different peers have different conntrack entries, even if their addresses and ports are the same.
//!
//! Every packet that arrives at the node passes these rules, so the rules must be fast. Packets from pods leave the
//! chain after the first comparison, and packets from nodes after one lookup. No rule looks up a set with intervals.

use std::net::IpAddr;

use akrobateo_core::{Family, Protocol};
use netfilter::nft::Table;
use netfilter::nft::abi::ct;
use netfilter::nft::model::{
    Chain, ChainType, DataType, Direction, Element, Expr, Hook, PayloadBase, Reg, Rule, Set, SetDefinition,
    Value, Verdict,
};

use super::expressions::{accept, is_destination_port, is_input_interface, is_protocol, rule};
use super::ip_version::{IpVersion, address_value, all_ip_versions};
use crate::config::NodeConfig;
use crate::marks;
use crate::tunnel;

/// The priority of the base chains. These chains run before conntrack and before the raw tables of other programs,
/// which have the priority -300 (`NF_IP_PRI_RAW`).
const RECOGNITION_PRIORITY: i32 = -310;
/// The name of the chain that packets from outside of the pod ranges pass.
const RECOGNIZE_CHAIN: &str = "recognize";

pub(super) fn add_recognition_chains(table: &mut Table, config: &NodeConfig) {
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
            config.all_node_addresses(ip_version.family).map(|address| Element::new(address_value(address)));
        Set::new(ip_version.add_suffix("nodes"), SetDefinition::set(ip_version.address_type), nodes.collect())
    }));
    let is_tunnel = [is_protocol(Protocol::Udp.number()), is_destination_port(tunnel::TUNNEL_PORT)].concat();
    let untrack_tunnel = rule([&is_tunnel, &[Expr::NoTrack]]);
    let mut prerouting = Vec::new();
    for ip_version in &ip_versions {
        prerouting.extend(
            config.pod_ranges(ip_version.family).iter().map(|range| rule_that_skips_pods(*ip_version, range)),
        );
    }
    // The rules for packets from pods can precede this rule, because the packets of the tunnel itself come from nodes.
    if config.needs_tunnel() {
        prerouting.push(untrack_tunnel.clone());
    }
    prerouting.extend(ip_versions.iter().map(|ip_version| {
        let goto_recognition = Expr::Verdict(Verdict::goto(ip_version.add_suffix(RECOGNIZE_CHAIN)));
        rule([&ip_version.match_packets(), &[goto_recognition]])
    }));
    let drop_unless_from_node = ip_versions.map(|ip_version| {
        rule([
            &is_tunnel,
            &ip_version.match_packets(),
            &[
                ip_version.load_source(Reg(0)),
                Expr::is_not_in(ip_version.add_suffix("nodes"), Reg(0)),
                Expr::Verdict(Verdict::Drop),
            ],
        ])
    });
    table.chains.extend(ip_versions.iter().map(|ip_version| {
        let mut rules = vec![
            rule_that_skips_nodes(*ip_version),
            rule_that_recognizes_peers(*ip_version, &config.node.uplink),
        ];
        if config.needs_tunnel() {
            rules.push(rule_that_recognizes_peers(*ip_version, tunnel::TUNNEL_DEVICE));
        }
        Chain::regular(ip_version.add_suffix(RECOGNIZE_CHAIN), rules)
    }));
    let base = |name, hook, rules| Chain::base(name, ChainType::Filter, hook, RECOGNITION_PRIORITY, rules);
    table.chains.push(base("raw_pre", Hook::Prerouting, prerouting));
    if config.needs_tunnel() {
        table.chains.extend([
            base("raw_out", Hook::Output, vec![untrack_tunnel]),
            base("tunnel_in", Hook::Input, drop_unless_from_node.into()),
        ]);
    }
}

/// Returns the addresses to which peers send packets of clients: the node's endpoints and the node's probe addresses.
///
/// The endpoints of a Service without the clients' addresses are included, because a peer may have another version of
/// the Service for some milliseconds. Without the element, the endpoint's answer would not return through the peer.
fn own_destinations(config: &NodeConfig, ip_version: IpVersion) -> impl Iterator<Item = IpAddr> {
    let ports = config.services.iter().flat_map(|service| &service.ports);
    let endpoints = ports.flat_map(|port| &port.endpoints);
    let local_endpoints = endpoints.filter(|endpoint| config.is_local(endpoint));
    local_endpoints
        .map(|endpoint| endpoint.address.ip())
        .chain(config.node.probe_addresses.iter().copied())
        .filter(move |address| Family::from_ip(*address) == ip_version.family)
}

/// Returns the rule with which packets from pods leave the chain.
fn rule_that_skips_pods(ip_version: IpVersion, range: &ipnet::IpNet) -> Rule {
    rule([&ip_version.match_packets(), &ip_version.is_source_in_range(range), &[accept()]])
}

/// Returns the rule with which packets from nodes leave the chain. These packets come from the node itself, or the node
/// has masqueraded them.
fn rule_that_skips_nodes(ip_version: IpVersion) -> Rule {
    let is_node = [ip_version.load_source(Reg(0)), Expr::is_in(ip_version.add_suffix("nodes"), Reg(0))];
    rule([&is_node, &[accept()]])
}

/// Returns the rule that sets the zone of packets from peers to endpoints on this node.
fn rule_that_recognizes_peers(ip_version: IpVersion, interface: &str) -> Rule {
    rule([
        &[
            ip_version.load_destination(Reg(0)),
            Expr::is_in(ip_version.add_suffix("own_destinations"), Reg(0)),
        ],
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
        let zone = Value::from(marks::conntrack_zone(peer.number).to_ne_bytes());
        [peer.mac, tunnel::tunnel_mac(peer.number)]
            .map(|mac| Element::new(Value::from(mac.0)).with_value(zone))
    });
    Set::new("peer_zones", SetDefinition::map(DataType::MAC, DataType::ZONE), elements.collect())
}
