//! The counters of each Service port. Pure.
//!
//! The set has one element for each family, protocol, port and outcome. A rule looks up the element of a new flow, and
//! the lookup counts the flow. Only chains of type nat contain these rules, so later packets of a flow cost nothing. A
//! change of endpoints does not reset a counter, because the elements depend only on the ports of the Services.
//! Counters in the elements of `services4` and `services6` would be reset, because a change of endpoints replaces these
//! elements.

use akrobateo_core::{Family, Frontend, Protocol};
use netfilter::nft::Table;
use netfilter::nft::abi::meta;
use netfilter::nft::model::{DataType, Element, Expr, Reg, Rule, Set, SetDefinition, Value};

use super::expressions::{concat, load_protocol_and_port, rule};
use super::ip_version::IpVersion;
use super::keys::parse_port_key;
use crate::config::Service;

/// The name of the set.
const SET_NAME: &str = "port_counters";
/// The number of bytes of the family in a key. Each part of a concatenation is padded to a multiple of 4.
const FAMILY_BYTES_IN_KEY: usize = 4;
/// The number of bytes of the protocol and the port in a key.
const PORT_BYTES_IN_KEY: usize = 8;

/// The outcome of a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The flow goes to an endpoint.
    Forwarded,
    /// The flow is refused, because the Service has no endpoint.
    NoEndpoint,
    /// The flow is dropped, because the client is outside the source ranges.
    NotAllowed,
}

impl Outcome {
    const ALL: [Self; 3] = [Self::Forwarded, Self::NoEndpoint, Self::NotAllowed];

    /// Returns the number of the outcome in the keys of the set.
    const fn number(self) -> u32 {
        match self {
            Self::Forwarded => 0,
            Self::NoEndpoint => 1,
            Self::NotAllowed => 2,
        }
    }
}

/// The number of flows of one port with one outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortCount {
    /// The port.
    pub frontend: Frontend,
    /// The outcome.
    pub outcome: Outcome,
    /// The number of packets for which the rules looked for an endpoint. A forwarded flow has one such packet. A
    /// refused or dropped client sends one such packet with each attempt.
    pub count: u64,
}

/// Returns the set with the elements of all ports of these Services.
#[must_use]
pub fn port_counter_set(services: &[Service]) -> Set {
    let key_type =
        DataType::concat(&[DataType::NFPROTO, DataType::PROTOCOL, DataType::PORT, DataType::NUMBER]);
    let mut elements = Vec::new();
    for service in services {
        let outcomes = Outcome::ALL
            .into_iter()
            .filter(|outcome| service.source_ranges.is_some() || *outcome != Outcome::NotAllowed);
        for outcome in outcomes {
            elements.extend(service.frontends().map(|frontend| Element::new(element_key(frontend, outcome))));
        }
    }
    Set::new(SET_NAME, SetDefinition::set(key_type).with_counters(), elements)
}

/// Returns the rule that counts a flow. The rule has no other effect.
pub(super) fn rule_that_counts_flow(outcome: Outcome) -> Rule {
    rule([
        &[Expr::Meta { key: meta::KEY_NFPROTO, dreg: Reg(0) }],
        &load_protocol_and_port(1),
        &[
            Expr::Immediate { dreg: Reg(3), value: Value::from(outcome.number().to_ne_bytes()) },
            Expr::is_in(SET_NAME, Reg(0)),
        ],
    ])
}

/// Returns the counts of all ports in a table.
pub fn port_counts(table: &Table) -> impl Iterator<Item = PortCount> {
    let elements = table.set(SET_NAME).map_or(&[][..], |set| &set.elements);
    elements.iter().filter_map(parse_port_count)
}

/// Returns the count of an element. Returns `None` for an element that the agent did not create.
#[must_use]
pub fn parse_port_count(element: &Element) -> Option<PortCount> {
    let (family, rest) = element.key.bytes().split_first_chunk::<FAMILY_BYTES_IN_KEY>()?;
    let (port, outcome) = rest.split_first_chunk::<PORT_BYTES_IN_KEY>()?;
    let family = Family::ALL.into_iter().find(|it| IpVersion::from_family(*it).nfproto == family[0])?;
    let port = parse_port_key(port)?;
    let outcome_number = u32::from_ne_bytes(*outcome.first_chunk()?);
    let outcome = Outcome::ALL.into_iter().find(|outcome| outcome.number() == outcome_number)?;
    let frontend = Frontend { family, protocol: port.protocol, port: port.port };
    Some(PortCount { frontend, outcome, count: element.counter.packets })
}

fn element_key(frontend: Frontend, outcome: Outcome) -> Value {
    let Frontend { family, protocol, port } = frontend;
    concat(&[
        &[IpVersion::from_family(family).nfproto],
        &[Protocol::number(protocol)],
        &port.get().to_be_bytes(),
        &outcome.number().to_ne_bytes(),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServicePort;
    use crate::config::fixtures::service;

    #[test]
    fn each_port_has_a_counter_for_each_outcome() {
        let port = |port: u16| ServicePort {
            protocol: Protocol::Udp,
            port: port.try_into().unwrap(),
            endpoints: Vec::new(),
        };
        let families = Family::ALL.to_vec();
        let service_with_source_ranges = Service {
            families: vec![Family::V6],
            source_ranges: Some(Vec::new()),
            ports: vec![port(81)],
            ..service()
        };
        let services =
            vec![Service { families, ports: vec![port(80)], ..service() }, service_with_source_ranges];
        let set = port_counter_set(&services);
        let counts: Vec<_> = set.elements.iter().map(|it| parse_port_count(it).unwrap()).collect();
        let expected = [
            (Family::V4, 80, Outcome::Forwarded),
            (Family::V4, 80, Outcome::NoEndpoint),
            (Family::V6, 80, Outcome::Forwarded),
            (Family::V6, 80, Outcome::NoEndpoint),
            (Family::V6, 81, Outcome::Forwarded),
            (Family::V6, 81, Outcome::NoEndpoint),
            (Family::V6, 81, Outcome::NotAllowed),
        ];
        let counts: Vec<_> =
            counts.iter().map(|it| (it.frontend.family, it.frontend.port.get(), it.outcome)).collect();
        assert_eq!(counts, expected);
    }
}
