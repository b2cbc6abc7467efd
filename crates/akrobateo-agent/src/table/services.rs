//! The Services: which chain a frontend has, its endpoints, and the clients that may connect. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU32;

use akrobateo_core::{Family, Protocol};
use netfilter::nft::Table;
use netfilter::nft::model::{
    Chain, DataType, Element, Expr, Matching, Reg, Rule, Set, SetDefinition, Value, Verdict,
};

use super::affinity;
use super::endpoint_chains::{EndpointChain, all_family_parts, goto_service_chain, refuse_chain};
use super::expressions::{load_protocol_and_port, rule};
use super::family::{FamilyPart, address_value};
use crate::config::{Endpoint, NodeConfig, Service, ServicePort};

/// The chain of Services that only some clients may use.
const RESTRICT: &str = "restrict";

/// The elements of one family's sets.
#[derive(Debug, Default)]
struct Elements {
    services: Vec<Element>,
    endpoints: Vec<Element>,
    /// The chains of Services that only some clients may use.
    restricted: Vec<Element>,
    allowed: Vec<Element>,
    affinity_ports: Vec<(Value, NonZeroU32)>,
    /// The addresses of endpoints that see the client's address.
    kept: Vec<Element>,
}

/// The part of the table that depends on the Services.
#[derive(Debug)]
pub(super) struct ServicePart<'a> {
    config: &'a NodeConfig,
    elements: BTreeMap<Family, Elements>,
    chains: BTreeSet<EndpointChain>,
    timeouts: BTreeSet<NonZeroU32>,
}

impl<'a> ServicePart<'a> {
    pub(super) fn new(config: &'a NodeConfig) -> Self {
        let timeouts = config.services.iter().filter_map(|service| service.affinity_seconds).collect();
        let elements = Family::ALL.map(|family| (family, Elements::default())).into();
        let mut part = Self { config, elements, chains: BTreeSet::new(), timeouts };
        for service in &config.services {
            for port in &service.ports {
                service.families.iter().for_each(|family| part.add_port(service, port, *family));
            }
        }
        part
    }

    fn add_port(&mut self, service: &Service, port: &ServicePort, family: Family) {
        let endpoints = self.config.node.select_endpoints(service, port, family);
        let count = u32::try_from(endpoints.len()).ok().and_then(NonZeroU32::new);
        let chain = count.map(|endpoint_count| EndpointChain {
            endpoint_count,
            keeps_client_address: service.keeps_client_address,
            affinity_seconds: service.affinity_seconds,
        });
        self.chains.extend(chain);
        let elements = self.elements.entry(family).or_default();
        let protocol = port.protocol.number();
        let port_bytes = port.port.get().to_be_bytes();
        let key = |parts: &[&[u8]]| concat(&[&[&[protocol][..], &port_bytes[..]], parts].concat());
        let frontend_verdict = match &service.source_ranges {
            None => goto_service_chain(chain),
            Some(ranges) => {
                elements.restricted.push(Element::new(key(&[])).with_verdict(goto_service_chain(chain)));
                let ranges = ranges.iter().filter(|range| Family::from_ip(range.addr()) == family);
                elements.allowed.extend(ipnet::IpNet::aggregate(&ranges.copied().collect()).iter().map(
                    |range| {
                        let [first, last] = [range.network(), range.broadcast()].map(address_value);
                        Element::interval(key(&[first.bytes()]), key(&[last.bytes()]))
                    },
                ));
                Verdict::goto(RESTRICT)
            }
        };
        let addresses = self.config.node.addresses.iter().filter(|ip| Family::from_ip(**ip) == family);
        elements.services.extend(addresses.map(|address| {
            let key = service_key(*address, port.protocol, port.port.get());
            Element::new(key).with_verdict(frontend_verdict.clone())
        }));
        if let Some(seconds) = service.affinity_seconds {
            elements.affinity_ports.push((key(&[]), seconds));
        }
        for (slot, endpoint) in (0_u32..).zip(&endpoints) {
            let value = concat(&[
                address_value(endpoint.address.ip()).bytes(),
                &endpoint.address.port().to_be_bytes(),
            ]);
            let key = concat(&[&[protocol], &port_bytes, &slot.to_ne_bytes()]);
            elements.endpoints.push(Element::new(key).with_value(value));
        }
        if service.keeps_client_address {
            let sees_client = |endpoint: &&&Endpoint| {
                self.config.is_local(endpoint) || self.config.way_to(endpoint).is_some()
            };
            let kept = endpoints.iter().filter(sees_client);
            elements.kept.extend(kept.map(|endpoint| Element::new(address_value(endpoint.address.ip()))));
        }
    }

    /// Adds the sets and the chains to the table.
    pub(super) fn add_to(self, table: &mut Table) {
        let families = all_family_parts();
        let Self { config, elements, chains, timeouts } = self;
        for (family, elements) in elements {
            table.sets.extend(sets(FamilyPart::of(family), config, elements, &timeouts));
        }
        table.chains.push(refuse_chain());
        table.chains.extend(chains.into_iter().map(|chain| chain.to_chain(&families)));
        table.chains.push(restrict_chain(&families));
        table.chains.extend(timeouts.iter().map(|seconds| affinity::remember_chain(*seconds, &families)));
    }
}

/// Returns the rule that finds the Service of a packet.
pub(super) fn find_service_rule(part: FamilyPart) -> Rule {
    rule([
        &part.is_family(),
        &[part.destination(Reg(0))],
        &load_protocol_and_port(part.address_registers),
        &[Expr::verdict_map(part.name("services"), Reg(0))],
    ])
}

/// Returns the key of a frontend.
fn service_key(address: IpAddr, protocol: Protocol, port: u16) -> Value {
    concat(&[address_value(address).bytes(), &[protocol.number()], &port.to_be_bytes()])
}

fn sets(
    part: FamilyPart,
    config: &NodeConfig,
    elements: Elements,
    timeouts: &BTreeSet<NonZeroU32>,
) -> Vec<Set> {
    let frontend_type = DataType::concat(&[part.address_type, DataType::PROTOCOL, DataType::PORT]);
    let port_type = DataType::concat(&[DataType::PROTOCOL, DataType::PORT]);
    let slot_type = DataType::concat(&[DataType::PROTOCOL, DataType::PORT, DataType::NUMBER]);
    let endpoint_type = DataType::concat(&[part.address_type, DataType::PORT]);
    let allowed_type = DataType::concat(&[DataType::PROTOCOL, DataType::PORT, part.address_type]);
    let part_lens = vec![1, 2, part.address_registers * 4];
    let inside = config
        .inside_ranges(part.family)
        .into_iter()
        .map(|range| Element::interval(address_value(range.network()), address_value(range.broadcast())));
    let mut sets = vec![
        Set::new(
            part.name("services"),
            SetDefinition::verdict_map(frontend_type).with_counters(),
            elements.services,
        ),
        Set::new(part.name("endpoints"), SetDefinition::map(slot_type, endpoint_type), elements.endpoints),
        Set::new(part.name("restricted"), SetDefinition::verdict_map(port_type), elements.restricted),
        Set::new(
            part.name("allowed"),
            SetDefinition::set(allowed_type).with_matching(Matching::IntervalsOfParts(part_lens)),
            elements.allowed,
        ),
        Set::new(
            part.name("inside"),
            SetDefinition::set(part.address_type).with_matching(Matching::Intervals),
            inside.collect(),
        ),
        Set::new(part.name("kept"), SetDefinition::set(part.address_type), elements.kept),
    ];
    sets.extend(affinity::sets(part, timeouts, &elements.affinity_ports));
    sets
}

/// Sends allowed clients to the Service's chain. Drops the packets of others.
fn restrict_chain(families: &[FamilyPart]) -> Chain {
    let allow = |part: &FamilyPart| {
        rule([
            &part.is_family(),
            &load_protocol_and_port(0),
            &[
                part.source(Reg(2)),
                Expr::is_in(part.name("allowed"), Reg(0)),
                Expr::verdict_map(part.name("restricted"), Reg(0)),
            ],
        ])
    };
    let mut rules: Vec<_> = families.iter().map(allow).collect();
    rules.push(Rule::new(vec![Expr::Verdict(Verdict::Drop)]));
    Chain::regular(RESTRICT, rules)
}

/// Concatenates the parts of a key or value. Its parts are at most an address and three numbers, which always fit.
fn concat(parts: &[&[u8]]) -> Value {
    Value::concat(parts).unwrap_or_else(|| Value::from([]))
}
