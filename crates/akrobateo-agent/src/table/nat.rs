//! The base chains of type nat. Only the first packet of a flow passes these chains. Pure.

use std::net::IpAddr;

use akrobateo_core::{Family, Protocol};
use netfilter::nft::Table;
use netfilter::nft::model::{Chain, ChainType, Expr, Hook, NatFlags, NatKind, Reg, Rule};

use super::affinity;
use super::expressions::{
    accept, has_flow_bits, has_packet_bits, has_peer_zone, is_destination_port, is_protocol, rule,
    set_flow_bits, set_packet_bits,
};
use super::ip_version::{IpVersion, address_value, all_ip_versions};
use super::services::rule_that_finds_service;
use crate::config::NodeConfig;
use crate::marks::{
    FORWARD_ACCEPTED_BIT, MASQUERADED_FLOW_BIT, OWN_MARK_MASK, PEER_FLOW_BIT, PURPOSE_MASK,
    TRANSLATED_FLOW_BIT,
};
use crate::probe;

/// The priority of the chains that translate destinations. These chains run before the chains of portmap and
/// kube-proxy, which have the priority -100 (`NF_IP_PRI_NAT_DST`).
const DESTINATION_NAT_PRIORITY: i32 = -110;
/// The priority of the chain that translates sources. This chain runs before the chains of kube-proxy and network
/// plugins, which have the priority 100 (`NF_IP_PRI_NAT_SRC`).
const SOURCE_NAT_PRIORITY: i32 = 90;

/// Adds the chains. `keeps_client_addresses` is true if packets between nodes may have the addresses of clients.
pub(super) fn add_nat_chains(table: &mut Table, config: &NodeConfig, keeps_client_addresses: bool) {
    let find_service = all_ip_versions().map(rule_that_finds_service);
    let mut prerouting = Vec::new();
    if keeps_client_addresses {
        prerouting.push(rule([
            &has_peer_zone(),
            &set_flow_bits(PEER_FLOW_BIT),
            &set_packet_bits(FORWARD_ACCEPTED_BIT),
        ]));
        prerouting.extend(incoming_probe_rules(config));
    }
    prerouting.extend(find_service.clone());
    let nat_chain = |name, hook, priority, rules| Chain::base(name, ChainType::Nat, hook, priority, rules);
    table.chains.extend([
        nat_chain("nat_pre", Hook::Prerouting, DESTINATION_NAT_PRIORITY, prerouting),
        nat_chain("nat_out", Hook::Output, DESTINATION_NAT_PRIORITY, find_service.into()),
        nat_chain(
            "nat_post",
            Hook::Postrouting,
            SOURCE_NAT_PRIORITY,
            source_rules(config, keeps_client_addresses),
        ),
    ]);
}

/// Returns the rules that choose the source address that the endpoint sees.
///
/// To keep the client's address, a rule sets the source address to its current value. The kernel treats the packet as
/// already translated, so the rules of other programs do not masquerade the packet.
fn source_rules(config: &NodeConfig, keeps_client_addresses: bool) -> Vec<Rule> {
    let ip_versions = all_ip_versions();
    let is_foreign_flow = has_flow_bits(TRANSLATED_FLOW_BIT, 0);
    let masquerade = Expr::Masquerade(NatFlags::FULLY_RANDOM);
    let mut rules = Vec::new();
    if keeps_client_addresses {
        rules.extend(outgoing_probe_rules(config));
        rules.extend(ip_versions.iter().map(|ip_version| {
            rule([&is_foreign_flow, &has_peer_zone(), &ip_version.match_packets(), &keep_source(*ip_version)])
        }));
    }
    rules.push(rule([&is_foreign_flow, &[accept()]]));
    rules.extend(ip_versions.iter().map(|ip_version| affinity::rule_that_stores_endpoint(*ip_version)));
    rules.push(rule([
        &has_flow_bits(MASQUERADED_FLOW_BIT, MASQUERADED_FLOW_BIT),
        std::slice::from_ref(&masquerade),
    ]));
    if keeps_client_addresses {
        // A packet with this mark already takes the tunnel. Its flow must keep the client's address, even if the set
        // `kept` has changed meanwhile.
        let tunnel_mark = config.node.marks.tunnel_mark(0) & PURPOSE_MASK;
        rules.extend(ip_versions.iter().map(|ip_version| {
            rule([
                &has_packet_bits(PURPOSE_MASK, tunnel_mark),
                &ip_version.match_packets(),
                &keep_source(*ip_version),
            ])
        }));
    }
    rules.extend(ip_versions.iter().map(|ip_version| {
        let is_kept =
            [ip_version.load_destination(Reg(0)), Expr::is_in(ip_version.add_suffix("kept"), Reg(0))];
        rule([&ip_version.match_packets(), &is_kept, &keep_source(*ip_version)])
    }));
    // The flow remains masqueraded and never enters the tunnel, even if a path to its endpoint works later.
    rules.push(rule([&set_flow_bits(MASQUERADED_FLOW_BIT), &[masquerade]]));
    rules
}

/// Returns the expressions that set the source address to its current value, so that no later rule changes the address.
fn keep_source(ip_version: IpVersion) -> [Expr; 2] {
    [ip_version.load_source(Reg(0)), translate_source(ip_version)]
}

const fn translate_source(ip_version: IpVersion) -> Expr {
    Expr::Nat {
        kind: NatKind::Source,
        family: ip_version.family,
        address: Some(Reg(0)),
        port: None,
        flags: NatFlags { is_fully_random: false, is_persistent: false },
    }
}

/// Returns the rules that deliver probes to the agent.
fn incoming_probe_rules(config: &NodeConfig) -> Vec<Rule> {
    let build_incoming_rule = |address: &IpAddr| {
        let ip_version = IpVersion::from_family(Family::from_ip(*address));
        let translate_destination = Expr::Nat {
            kind: NatKind::Destination,
            family: ip_version.family,
            address: Some(Reg(0)),
            port: None,
            flags: NatFlags::default(),
        };
        rule([
            &has_peer_zone(),
            &ip_version.match_packets(),
            &[
                ip_version.load_source(Reg(0)),
                Expr::equal(Reg(0), address_value(probe::foreign_address(ip_version.family))),
            ],
            &is_protocol(Protocol::Udp.number()),
            &is_destination_port(probe::PROBE_PORT),
            &[Expr::Immediate { dreg: Reg(0), value: address_value(*address) }, translate_destination],
        ])
    };
    config.first_address_of_each_family().iter().map(build_incoming_rule).collect()
}

/// Returns the rules that give the agent's probes a source address outside of the cluster.
fn outgoing_probe_rules(config: &NodeConfig) -> Vec<Rule> {
    let build_outgoing_rule = |address: &IpAddr| {
        let ip_version = IpVersion::from_family(Family::from_ip(*address));
        let foreign_address = address_value(probe::foreign_address(ip_version.family));
        rule([
            &has_packet_bits(OWN_MARK_MASK, config.node.marks.own_bits),
            &ip_version.match_packets(),
            &[ip_version.load_source(Reg(0)), Expr::equal(Reg(0), address_value(*address))],
            &is_protocol(Protocol::Udp.number()),
            &is_destination_port(probe::PROBE_PORT),
            &[Expr::Immediate { dreg: Reg(0), value: foreign_address }, translate_source(ip_version)],
        ])
    };
    config.first_address_of_each_family().iter().map(build_outgoing_rule).collect()
}
