//! The endpoints with which clients stay (sessionAffinity `ClientIP`). Pure.
//!
//! A dynamic map for each timeout holds the endpoint of each client, Service port and family. The chain of a Service uses
//! it (step 2 in [`super`]). `nat_post` adds the endpoint of a new client, and renews the time with each new flow. That
//! happens after the translation, because the endpoint is then the packet's destination.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use netfilter::nft::abi::{ct, meta};
use netfilter::nft::model::{
    Chain, DataType, Direction, Element, ElementChange, Expr, Name, PayloadBase, Reg, Rule, Set,
    SetDefinition, Value, Verdict,
};

use super::destination::{ENDPOINT, translate_destination};
use super::expressions::{has_flow_bits, load_protocol_and_port, rule};
use super::family::FamilyPart;
use crate::marks::FLOW_WITH_AFFINITY;

/// The highest number of clients in one map. Further clients have no affinity.
const MAX_CLIENTS: NonZeroU32 = NonZeroU32::MIN.saturating_add(262_143);

/// The start of the names of the maps.
pub(crate) const MAP_PREFIX: &str = "affinity";

/// Returns the map for a timeout.
pub(super) fn map_name(part: FamilyPart, seconds: NonZeroU32) -> Name {
    part.name(&format!("{MAP_PREFIX}_{seconds}s_"))
}

fn remember_chain_name(seconds: NonZeroU32) -> Name {
    format!("remember_{seconds}s").into()
}

/// Returns the sets of a family for these timeouts. `ports` are the Service ports with an affinity.
pub(super) fn sets(
    part: FamilyPart,
    timeouts: &BTreeSet<NonZeroU32>,
    ports: &[(Value, NonZeroU32)],
) -> Vec<Set> {
    let client_type = DataType::concat(&[part.address, DataType::PROTOCOL, DataType::PORT]);
    let endpoint_type = DataType::concat(&[part.address, DataType::PORT]);
    let definition = |seconds: NonZeroU32| {
        SetDefinition::dynamic(client_type, Some(endpoint_type), MAX_CLIENTS, Some(seconds))
    };
    let mut sets: Vec<_> = timeouts
        .iter()
        .map(|seconds| Set::new(map_name(part, *seconds), definition(*seconds), Vec::new()))
        .collect();
    let port_type = DataType::concat(&[DataType::PROTOCOL, DataType::PORT]);
    let elements = ports
        .iter()
        .map(|(key, seconds)| Element::new(*key).with_verdict(Verdict::jump(remember_chain_name(*seconds))));
    sets.push(Set::new(
        part.name("affinity_ports"),
        SetDefinition::verdict_map(port_type),
        elements.collect(),
    ));
    sets
}

/// Translates the destination to the endpoint of the client, if the client has one.
pub(super) fn use_rule(part: FamilyPart, seconds: NonZeroU32) -> Rule {
    rule([
        &part.is_family(),
        &[part.source(Reg(0))],
        &load_protocol_and_port(part.address_registers),
        &[Expr::map(map_name(part, seconds), Reg(0), Reg(ENDPOINT)), translate_destination(part)],
    ])
}

/// Returns the chain that remembers the endpoint of a flow.
pub(super) fn remember_chain(seconds: NonZeroU32, families: &[FamilyPart]) -> Chain {
    let remember = |part: &FamilyPart| {
        let after_address = part.address_registers;
        rule([
            &part.is_family(),
            &[
                part.source(Reg(0)),
                Expr::Meta { key: meta::KEY_L4PROTO, dreg: Reg(after_address) },
                service_port(after_address + 1),
                part.destination(Reg(ENDPOINT)),
                Expr::payload(PayloadBase::Transport, 2, 2, Reg(ENDPOINT + after_address)),
                Expr::ChangeElement {
                    set: map_name(*part, seconds),
                    change: ElementChange::Update,
                    key: Reg(0),
                    value: Some(Reg(ENDPOINT)),
                    timeout_seconds: None,
                },
            ],
        ])
    };
    Chain::regular(remember_chain_name(seconds), families.iter().map(remember).collect())
}

/// Returns the rule of `nat_post` that finds the chain to remember a flow.
pub(super) fn remember_rule(part: FamilyPart) -> Rule {
    rule([
        &has_flow_bits(FLOW_WITH_AFFINITY, FLOW_WITH_AFFINITY),
        &part.is_family(),
        &[
            Expr::Meta { key: meta::KEY_L4PROTO, dreg: Reg(0) },
            service_port(1),
            Expr::verdict_map(part.name("affinity_ports"), Reg(0)),
        ],
    ])
}

/// Loads the destination port before the translation.
const fn service_port(reg: u8) -> Expr {
    Expr::Ct { key: ct::KEY_DESTINATION_PORT, direction: Some(Direction::Original), dreg: Reg(reg) }
}
