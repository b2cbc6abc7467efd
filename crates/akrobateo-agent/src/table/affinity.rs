//! Session affinity (sessionAffinity `ClientIP`): a client stays with its endpoint. Pure.
//!
//! Each timeout and family has its own dynamic map. The map's keys are a client and a Service port, and its values are
//! endpoints. The chain of a Service looks up the client (step 2 in [`super`]). The chain `nat_post` adds the endpoint
//! of a new client, and restarts the timeout with each new flow. At the hook of `nat_post`, the packet's destination is
//! already the endpoint.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use netfilter::nft::abi::{ct, meta};
use netfilter::nft::model::{
    Chain, DataType, Direction, Element, ElementChange, Expr, Name, PayloadBase, Reg, Rule, Set,
    SetDefinition, Value, Verdict,
};

use super::destination::{ENDPOINT_REGISTER, translate_destination};
use super::expressions::{has_flow_bits, load_protocol_and_port, rule};
use super::ip_version::IpVersion;
use crate::marks::AFFINITY_FLOW_BIT;

/// The maximum number of clients in one map. If a map is full, further clients have no affinity.
const MAX_CLIENTS_PER_MAP: NonZeroU32 = NonZeroU32::MIN.saturating_add(262_143);

/// The prefix of the names of the maps.
pub(crate) const MAP_NAME_PREFIX: &str = "affinity";

/// Returns the name of the map for a timeout.
pub(super) fn map_name(ip_version: IpVersion, seconds: NonZeroU32) -> Name {
    ip_version.add_suffix(&format!("{MAP_NAME_PREFIX}_{seconds}s_"))
}

fn name_of_chain_that_stores_endpoint(seconds: NonZeroU32) -> Name {
    format!("remember_{seconds}s").into()
}

/// Returns the sets of a family for these timeouts. `ports` are the Service ports with session affinity, and their
/// timeouts.
pub(super) fn build_sets(
    ip_version: IpVersion,
    timeouts: &BTreeSet<NonZeroU32>,
    ports: &[(Value, NonZeroU32)],
) -> Vec<Set> {
    let client_key_type = DataType::concat(&[ip_version.address_type, DataType::PROTOCOL, DataType::PORT]);
    let endpoint_type = DataType::concat(&[ip_version.address_type, DataType::PORT]);
    let definition = |seconds: NonZeroU32| {
        SetDefinition::dynamic(client_key_type, Some(endpoint_type), MAX_CLIENTS_PER_MAP, Some(seconds))
    };
    let mut sets: Vec<_> = timeouts
        .iter()
        .map(|seconds| Set::new(map_name(ip_version, *seconds), definition(*seconds), Vec::new()))
        .collect();
    let port_type = DataType::concat(&[DataType::PROTOCOL, DataType::PORT]);
    let port_elements = ports.iter().map(|(key, seconds)| {
        Element::new(*key).with_verdict(Verdict::jump(name_of_chain_that_stores_endpoint(*seconds)))
    });
    sets.push(Set::new(
        ip_version.add_suffix("affinity_ports"),
        SetDefinition::verdict_map(port_type),
        port_elements.collect(),
    ));
    sets
}

/// Returns the rule that translates the destination to the endpoint of the client, if the map contains the client.
pub(super) fn rule_that_finds_endpoint_of_client(ip_version: IpVersion, seconds: NonZeroU32) -> Rule {
    rule([
        &ip_version.match_packets(),
        &[ip_version.load_source(Reg(0))],
        &load_protocol_and_port(ip_version.address_register_count),
        &[
            Expr::map(map_name(ip_version, seconds), Reg(0), Reg(ENDPOINT_REGISTER)),
            translate_destination(ip_version),
        ],
    ])
}

/// Returns the chain that stores the endpoint of a flow in the map for a timeout.
pub(super) fn chain_that_stores_endpoint(seconds: NonZeroU32, ip_versions: &[IpVersion]) -> Chain {
    let build_rule = |ip_version: &IpVersion| {
        let register_after_address = ip_version.address_register_count;
        rule([
            &ip_version.match_packets(),
            &[
                ip_version.load_source(Reg(0)),
                Expr::Meta { key: meta::KEY_L4PROTO, dreg: Reg(register_after_address) },
                load_original_port(register_after_address + 1),
                ip_version.load_destination(Reg(ENDPOINT_REGISTER)),
                Expr::payload(PayloadBase::Transport, 2, 2, Reg(ENDPOINT_REGISTER + register_after_address)),
                Expr::ChangeElement {
                    set: map_name(*ip_version, seconds),
                    change: ElementChange::Update,
                    key: Reg(0),
                    value: Some(Reg(ENDPOINT_REGISTER)),
                    timeout_seconds: None,
                },
            ],
        ])
    };
    Chain::regular(name_of_chain_that_stores_endpoint(seconds), ip_versions.iter().map(build_rule).collect())
}

/// Returns the rule of `nat_post` that jumps to the chain that stores the flow's endpoint.
pub(super) fn rule_that_stores_endpoint(ip_version: IpVersion) -> Rule {
    rule([
        &has_flow_bits(AFFINITY_FLOW_BIT, AFFINITY_FLOW_BIT),
        &ip_version.match_packets(),
        &[
            Expr::Meta { key: meta::KEY_L4PROTO, dreg: Reg(0) },
            load_original_port(1),
            Expr::verdict_map(ip_version.add_suffix("affinity_ports"), Reg(0)),
        ],
    ])
}

/// Returns the expression that loads the destination port that the client has used.
const fn load_original_port(reg: u8) -> Expr {
    Expr::Ct { key: ct::KEY_DESTINATION_PORT, direction: Some(Direction::Original), dreg: Reg(reg) }
}
