//! The base chains of type nat. Only the first packet of a flow passes them. Pure.

use akrobateo_core::Protocol;
use netfilter::nft::Table;
use netfilter::nft::model::{Chain, ChainType, Expr, Hook, NatFlags, NatKind, Reg, Rule};

use super::affinity;
use super::endpoint_chains::all_family_parts;
use super::expressions::{
    accept, has_flow_bits, has_packet_bits, has_zone, is_destination_port, is_protocol, rule, set_flow_bits,
    set_packet_bits,
};
use super::family::{FamilyPart, address_value};
use super::services::find_service_rule;
use crate::config::NodeConfig;
use crate::marks::{FLOW, FLOW_MASQUERADED, FORWARD_ACCEPTED, OWN_MASK, PURPOSE_MASK};
use crate::probe;

/// Before portmap and kube-proxy, whose chains have the priority -100 (`NF_IP_PRI_NAT_DST`).
const DESTINATION_PRIORITY: i32 = -110;
/// Before kube-proxy and network plugins, whose chains have the priority 100 (`NF_IP_PRI_NAT_SRC`).
const SOURCE_PRIORITY: i32 = 90;

/// Adds the chains. `keeps_clients` is true if peers may send packets of clients.
pub(super) fn add_to(table: &mut Table, config: &NodeConfig, keeps_clients: bool) {
    let find_service = all_family_parts().map(find_service_rule);
    let mut prerouting = Vec::new();
    if keeps_clients {
        prerouting.extend(receive_probe_rules(config));
        prerouting.push(rule([&has_zone(), &set_packet_bits(FORWARD_ACCEPTED)]));
    }
    prerouting.extend(find_service.clone());
    let base = |name, hook, priority, rules| Chain::base(name, ChainType::Nat, hook, priority, rules);
    table.chains.extend([
        base("nat_pre", Hook::Prerouting, DESTINATION_PRIORITY, prerouting),
        base("nat_out", Hook::Output, DESTINATION_PRIORITY, find_service.into()),
        base("nat_post", Hook::Postrouting, SOURCE_PRIORITY, source_rules(config, keeps_clients)),
    ]);
}

/// Returns the rules that choose the source address that the endpoint sees. A decision for the client's address is a
/// translation too, so that the rules of others do not masquerade the packet.
fn source_rules(config: &NodeConfig, keeps_clients: bool) -> Vec<Rule> {
    let families = all_family_parts();
    let is_not_ours = has_flow_bits(FLOW, 0);
    let masquerade = Expr::Masquerade(NatFlags::FULLY_RANDOM);
    let mut rules = Vec::new();
    if keeps_clients {
        rules.extend(send_probe_rules(config));
        rules.extend(
            families
                .iter()
                .map(|part| rule([&is_not_ours, &has_zone(), &part.is_family(), &keep_source(*part)])),
        );
    }
    rules.push(rule([&is_not_ours, &[accept()]]));
    rules.extend(families.iter().map(|part| affinity::remember_rule(*part)));
    rules.push(rule([&has_flow_bits(FLOW_MASQUERADED, FLOW_MASQUERADED), std::slice::from_ref(&masquerade)]));
    if keeps_clients {
        // The way was chosen already. A later change does not matter for this flow.
        let tunnel_mark = config.node.marks.tunnel(0) & PURPOSE_MASK;
        rules.extend(families.iter().map(|part| {
            rule([&has_packet_bits(PURPOSE_MASK, tunnel_mark), &part.is_family(), &keep_source(*part)])
        }));
    }
    rules.extend(families.iter().map(|part| {
        let is_kept = [part.destination(Reg(0)), Expr::is_in(part.name("kept"), Reg(0))];
        rule([&part.is_family(), &is_kept, &keep_source(*part)])
    }));
    // The flow stays masqueraded and out of the tunnel, also when a way to its endpoint appears.
    rules.push(rule([&set_flow_bits(FLOW_MASQUERADED), &[masquerade]]));
    rules
}

/// Translates the source address to itself.
fn keep_source(part: FamilyPart) -> [Expr; 2] {
    [part.source(Reg(0)), translate_source(part)]
}

const fn translate_source(part: FamilyPart) -> Expr {
    Expr::Nat {
        kind: NatKind::Source,
        family: part.family,
        address: Some(Reg(0)),
        port: None,
        flags: NatFlags { is_fully_random: false, is_persistent: false },
    }
}

/// Returns the rules that deliver probes to the agent.
fn receive_probe_rules(config: &NodeConfig) -> Vec<Rule> {
    let receive = |address: &std::net::IpAddr| {
        let part = FamilyPart::of(akrobateo_core::Family::from_ip(*address));
        let translate = Expr::Nat {
            kind: NatKind::Destination,
            family: part.family,
            address: Some(Reg(0)),
            port: None,
            flags: NatFlags::default(),
        };
        rule([
            &has_zone(),
            &part.is_family(),
            &[part.source(Reg(0)), Expr::equal(Reg(0), address_value(probe::foreign_address(part.family)))],
            &is_protocol(Protocol::Udp.number()),
            &is_destination_port(probe::PORT),
            &[Expr::Immediate { dreg: Reg(0), value: address_value(*address) }, translate],
        ])
    };
    first_addresses(config).iter().map(receive).collect()
}

/// Returns the rules that give the agent's probes a source address outside of the cluster.
fn send_probe_rules(config: &NodeConfig) -> Vec<Rule> {
    let send = |address: &std::net::IpAddr| {
        let part = FamilyPart::of(akrobateo_core::Family::from_ip(*address));
        let foreign = address_value(probe::foreign_address(part.family));
        rule([
            &has_packet_bits(OWN_MASK, config.node.marks.base),
            &part.is_family(),
            &[part.source(Reg(0)), Expr::equal(Reg(0), address_value(*address))],
            &is_protocol(Protocol::Udp.number()),
            &is_destination_port(probe::PORT),
            &[Expr::Immediate { dreg: Reg(0), value: foreign }, translate_source(part)],
        ])
    };
    first_addresses(config).iter().map(send).collect()
}

/// Returns the node's first address of each family. The probe uses these.
fn first_addresses(config: &NodeConfig) -> Vec<std::net::IpAddr> {
    let first = |family: akrobateo_core::Family| {
        config.node.addresses.iter().copied().find(|ip| akrobateo_core::Family::from_ip(*ip) == family)
    };
    config.families().into_iter().filter_map(first).collect()
}
