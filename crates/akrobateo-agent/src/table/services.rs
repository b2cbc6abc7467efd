//! The part of the table that depends on the Services: frontends, endpoints, and the clients that may connect. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU32;

use akrobateo_core::{Family, Protocol};
use netfilter::nft::Table;
use netfilter::nft::model::{
    Chain, DataType, Element, Expr, KeyMatching, Reg, Rule, Set, SetDefinition, Value, Verdict,
};

use super::affinity;
use super::endpoint_chains::{EndpointChain, chain_that_refuses_flows, goto_endpoint_chain};
use super::expressions::{concat, load_protocol_and_port, rule};
use super::ip_version::{IpVersion, address_value, all_ip_versions};
use super::port_counters::{Outcome, port_counter_set, rule_that_counts_flow};
use crate::config::{Endpoint, NodeConfig, Service, ServicePort};

/// The name of the chain of Services with source ranges.
const SOURCE_RANGE_CHAIN: &str = "restrict";

/// The elements of one family's sets.
#[derive(Debug, Default)]
struct FamilyElements {
    services: Vec<Element>,
    endpoints: Vec<Element>,
    /// The chains of Services with source ranges.
    source_range_chains: Vec<Element>,
    /// The clients in the source ranges of the Services.
    allowed_clients: Vec<Element>,
    affinity_ports: Vec<(Value, NonZeroU32)>,
    /// The addresses of endpoints that see the client's address.
    endpoints_that_see_client_address: Vec<Element>,
}

/// The part of the table that depends on the Services.
#[derive(Debug)]
pub(super) struct ServicePart<'a> {
    config: &'a NodeConfig,
    elements: BTreeMap<Family, FamilyElements>,
    chains: BTreeSet<EndpointChain>,
    timeouts: BTreeSet<NonZeroU32>,
}

impl<'a> ServicePart<'a> {
    pub(super) fn new(config: &'a NodeConfig) -> Self {
        let timeouts = config.services.iter().filter_map(|service| service.affinity_seconds).collect();
        let elements = Family::ALL.map(|family| (family, FamilyElements::default())).into();
        let mut service_part = Self { config, elements, chains: BTreeSet::new(), timeouts };
        for service in &config.services {
            for port in &service.ports {
                service.families.iter().for_each(|family| service_part.add_port(service, port, *family));
            }
        }
        service_part
    }

    fn add_port(&mut self, service: &Service, port: &ServicePort, family: Family) {
        let endpoints = self.config.node.select_endpoints(service, port, family);
        let chain = EndpointChain::new(service, endpoints.len());
        self.chains.extend(chain);
        let elements = self.elements.entry(family).or_default();
        let protocol = port.protocol.number();
        let port_bytes = port.port.get().to_be_bytes();
        let key = |parts: &[&[u8]]| concat(&[&[&[protocol][..], &port_bytes[..]], parts].concat());
        let frontend_verdict = match &service.source_ranges {
            None => goto_endpoint_chain(chain),
            Some(ranges) => {
                elements
                    .source_range_chains
                    .push(Element::new(key(&[])).with_verdict(goto_endpoint_chain(chain)));
                let ranges = ranges.iter().filter(|range| Family::from_ip(range.addr()) == family);
                elements.allowed_clients.extend(
                    ipnet::IpNet::aggregate(&ranges.copied().collect()).iter().map(|range| {
                        let [first, last] = [range.network(), range.broadcast()].map(address_value);
                        Element::interval(key(&[first.bytes()]), key(&[last.bytes()]))
                    }),
                );
                Verdict::goto(SOURCE_RANGE_CHAIN)
            }
        };
        let addresses = self.config.node.addresses.iter().filter(|ip| Family::from_ip(**ip) == family);
        elements.services.extend(addresses.map(|address| {
            let key = service_key(*address, port.protocol, port.port.get());
            // A restarted agent finds the owner of the port in the comment.
            Element::new(key).with_verdict(frontend_verdict.clone()).with_comment(service.identity())
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
            let sees_client_address = |endpoint: &&&Endpoint| {
                self.config.is_local(endpoint) || self.config.path_to(endpoint).is_some()
            };
            let endpoints_that_see_client_address = endpoints.iter().filter(sees_client_address);
            elements.endpoints_that_see_client_address.extend(
                endpoints_that_see_client_address
                    .map(|endpoint| Element::new(address_value(endpoint.address.ip()))),
            );
        }
    }

    /// Adds the sets and the chains to the table.
    pub(super) fn add_to(self, table: &mut Table) {
        let ip_versions = all_ip_versions();
        let Self { config, elements, chains, timeouts } = self;
        for (family, elements) in elements {
            table.sets.extend(build_sets(IpVersion::from_family(family), config, elements, &timeouts));
        }
        table.sets.push(port_counter_set(&config.services));
        table.chains.push(chain_that_refuses_flows());
        table.chains.extend(chains.into_iter().map(|chain| chain.to_chain(&ip_versions)));
        table.chains.push(source_range_chain(&ip_versions));
        table.chains.extend(
            timeouts.iter().map(|seconds| affinity::chain_that_stores_endpoint(*seconds, &ip_versions)),
        );
    }
}

/// Returns the chains to which the frontends of a Service send packets.
pub(super) fn endpoint_chains(config: &NodeConfig, service: &Service) -> impl Iterator<Item = EndpointChain> {
    let frontends = service.ports.iter().flat_map(|port| service.families.iter().map(move |it| (port, *it)));
    frontends.filter_map(|(port, family)| {
        EndpointChain::new(service, config.node.select_endpoints(service, port, family).len())
    })
}

/// Returns the rule that finds the Service of a packet.
pub(super) fn rule_that_finds_service(ip_version: IpVersion) -> Rule {
    rule([
        &ip_version.match_packets(),
        &[ip_version.load_destination(Reg(0))],
        &load_protocol_and_port(ip_version.address_register_count),
        &[Expr::verdict_map(ip_version.add_suffix("services"), Reg(0))],
    ])
}

/// Returns the key of a frontend.
fn service_key(address: IpAddr, protocol: Protocol, port: u16) -> Value {
    concat(&[address_value(address).bytes(), &[protocol.number()], &port.to_be_bytes()])
}

fn build_sets(
    ip_version: IpVersion,
    config: &NodeConfig,
    elements: FamilyElements,
    timeouts: &BTreeSet<NonZeroU32>,
) -> Vec<Set> {
    let frontend_type = DataType::concat(&[ip_version.address_type, DataType::PROTOCOL, DataType::PORT]);
    let port_type = DataType::concat(&[DataType::PROTOCOL, DataType::PORT]);
    let slot_type = DataType::concat(&[DataType::PROTOCOL, DataType::PORT, DataType::NUMBER]);
    let endpoint_type = DataType::concat(&[ip_version.address_type, DataType::PORT]);
    let allowed_type = DataType::concat(&[DataType::PROTOCOL, DataType::PORT, ip_version.address_type]);
    let part_lens = vec![1, 2, ip_version.address_register_count * 4];
    let cluster_range_elements = config
        .cluster_client_ranges(ip_version.family)
        .into_iter()
        .map(|range| Element::interval(address_value(range.network()), address_value(range.broadcast())));
    let mut sets = vec![
        Set::new(
            ip_version.add_suffix("services"),
            SetDefinition::verdict_map(frontend_type),
            elements.services,
        ),
        Set::new(
            ip_version.add_suffix("endpoints"),
            SetDefinition::map(slot_type, endpoint_type),
            elements.endpoints,
        ),
        Set::new(
            ip_version.add_suffix("restricted"),
            SetDefinition::verdict_map(port_type),
            elements.source_range_chains,
        ),
        Set::new(
            ip_version.add_suffix("allowed"),
            SetDefinition::set(allowed_type).with_matching(KeyMatching::IntervalsOfParts(part_lens)),
            elements.allowed_clients,
        ),
        Set::new(
            ip_version.add_suffix("inside"),
            SetDefinition::set(ip_version.address_type).with_matching(KeyMatching::Intervals),
            cluster_range_elements.collect(),
        ),
        Set::new(
            ip_version.add_suffix("kept"),
            SetDefinition::set(ip_version.address_type),
            elements.endpoints_that_see_client_address,
        ),
    ];
    sets.extend(affinity::build_sets(ip_version, timeouts, &elements.affinity_ports));
    sets
}

/// Returns the chain that sends packets of allowed clients to the Service's chain, and drops all other packets.
fn source_range_chain(ip_versions: &[IpVersion]) -> Chain {
    let allow = |ip_version: &IpVersion| {
        rule([
            &ip_version.match_packets(),
            &load_protocol_and_port(0),
            &[
                ip_version.load_source(Reg(2)),
                Expr::is_in(ip_version.add_suffix("allowed"), Reg(0)),
                Expr::verdict_map(ip_version.add_suffix("restricted"), Reg(0)),
            ],
        ])
    };
    let mut rules: Vec<_> = ip_versions.iter().map(allow).collect();
    rules.push(rule_that_counts_flow(Outcome::NotAllowed));
    rules.push(Rule::new(vec![Expr::Verdict(Verdict::Drop)]));
    Chain::regular(SOURCE_RANGE_CHAIN, rules)
}
