//! The chains that choose an endpoint and translate the destination: one chain for each number of endpoints. Pure.

use std::num::NonZeroU32;

use akrobateo_core::{Family, Protocol};
use netfilter::nft::abi::reject;
use netfilter::nft::model::{Chain, Expr, Name, Reg, Reject, Rule, Verdict};

use super::affinity;
use super::destination::{ENDPOINT_REGISTER, translate_destination};
use super::expressions::{is_protocol, load_protocol_and_port, rule, set_flow_bits, set_packet_bits};
use super::family::FamilyPart;
use crate::marks::{FLOW, FLOW_MASQUERADED, FLOW_WITH_AFFINITY, FORWARD_ACCEPTED};

/// The chain of Services without endpoints.
pub(super) const REFUSE: &str = "refuse";

/// The properties that are the same for all Services of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EndpointChain {
    /// The number of endpoints.
    pub(super) endpoint_count: NonZeroU32,
    /// True if endpoints should see the client's address.
    pub(super) keeps_client_address: bool,
    /// The timeout of the session affinity.
    pub(super) affinity_seconds: Option<NonZeroU32>,
}

impl EndpointChain {
    /// Returns the chain's name, for example `keep3` or `masquerade2_for_10800s`.
    pub(super) fn name(self) -> Name {
        let kind = if self.keeps_client_address { "keep" } else { "masquerade" };
        let count = self.endpoint_count;
        match self.affinity_seconds {
            None => format!("{kind}{count}").into(),
            Some(seconds) => format!("{kind}{count}_for_{seconds}s").into(),
        }
    }

    pub(super) fn to_chain(self, families: &[FamilyPart]) -> Chain {
        let mut bits = FLOW;
        if !self.keeps_client_address {
            bits |= FLOW_MASQUERADED;
        }
        if self.affinity_seconds.is_some() {
            bits |= FLOW_WITH_AFFINITY;
        }
        let mut rules = vec![rule([&set_flow_bits(bits), &set_packet_bits(FORWARD_ACCEPTED)])];
        if self.keeps_client_address {
            rules.extend(families.iter().map(|part| masquerade_cluster_clients(*part)));
        }
        if let Some(seconds) = self.affinity_seconds {
            rules.extend(families.iter().map(|part| affinity::look_up_rule(*part, seconds)));
        }
        rules.extend(families.iter().map(|part| self.choose_rule(*part)));
        Chain::regular(self.name(), rules)
    }

    /// Returns the rule that chooses an endpoint at random.
    fn choose_rule(self, part: FamilyPart) -> Rule {
        rule([
            &part.is_family(),
            &load_protocol_and_port(0),
            &[
                Expr::RandomNumber { modulus: self.endpoint_count, dreg: Reg(2) },
                Expr::map(part.name("endpoints"), Reg(0), Reg(ENDPOINT_REGISTER)),
                translate_destination(part),
            ],
        ])
    }
}

/// Returns the rule that masquerades clients inside the cluster. Otherwise an endpoint could reply to such a client
/// directly.
fn masquerade_cluster_clients(part: FamilyPart) -> Rule {
    rule([
        &part.is_family(),
        &[part.source(Reg(0)), Expr::is_in(part.name("inside"), Reg(0))],
        &set_flow_bits(FLOW_MASQUERADED),
    ])
}

/// Returns the chain that refuses a flow at once: with a TCP reset, or for other protocols with "port unreachable".
pub(super) fn refuse_chain() -> Chain {
    let is_tcp = is_protocol(Protocol::Tcp.number());
    let rules = vec![
        rule([&is_tcp, &[Expr::Reject(Reject::TcpReset)]]),
        Rule::new(vec![Expr::Reject(Reject::Icmpx(reject::ICMPX_PORT_UNREACHABLE))]),
    ];
    Chain::regular(REFUSE, rules)
}

/// Returns the goto to the chain of a Service. A Service without endpoints (`None`) refuses the flow.
pub(super) fn goto_service_chain(chain: Option<EndpointChain>) -> Verdict {
    match chain {
        Some(chain) => Verdict::Goto(chain.name()),
        None => Verdict::goto(REFUSE),
    }
}

/// Returns the table's parts for both families.
pub(super) fn all_family_parts() -> [FamilyPart; 2] {
    Family::ALL.map(FamilyPart::of)
}
