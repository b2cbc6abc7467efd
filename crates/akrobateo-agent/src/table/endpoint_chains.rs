//! The chains that choose an endpoint and translate the destination: one chain for each number of endpoints. Pure.

use std::num::NonZeroU32;

use akrobateo_core::Protocol;
use netfilter::nft::abi::reject;
use netfilter::nft::model::{Chain, Expr, Name, Reg, Reject, Rule, Verdict};

use super::affinity;
use super::destination::{ENDPOINT_REGISTER, translate_destination};
use super::expressions::{is_protocol, load_protocol_and_port, rule, set_flow_bits, set_packet_bits};
use super::ip_version::IpVersion;
use super::port_counters::{Outcome, rule_that_counts_flow};
use crate::config::Service;
use crate::marks::{AFFINITY_FLOW_BIT, FORWARD_ACCEPTED_BIT, MASQUERADED_FLOW_BIT, TRANSLATED_FLOW_BIT};

/// The name of the chain of Services without endpoints.
pub(super) const REFUSE_CHAIN: &str = "refuse";

/// The properties that all Services of one chain have in common.
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
    /// Returns the chain of a Service with this number of endpoints; `None` if the number is 0.
    pub(super) fn new(service: &Service, endpoint_count: usize) -> Option<Self> {
        Some(Self {
            endpoint_count: u32::try_from(endpoint_count).ok().and_then(NonZeroU32::new)?,
            keeps_client_address: service.keeps_client_address,
            affinity_seconds: service.affinity_seconds,
        })
    }

    /// Returns the chain's name, for example `keep3` or `masquerade2_for_10800s`.
    pub(super) fn name(self) -> Name {
        let kind = if self.keeps_client_address { "keep" } else { "masquerade" };
        let count = self.endpoint_count;
        match self.affinity_seconds {
            None => format!("{kind}{count}").into(),
            Some(seconds) => format!("{kind}{count}_for_{seconds}s").into(),
        }
    }

    pub(super) fn to_chain(self, ip_versions: &[IpVersion]) -> Chain {
        let mut bits = TRANSLATED_FLOW_BIT;
        if !self.keeps_client_address {
            bits |= MASQUERADED_FLOW_BIT;
        }
        if self.affinity_seconds.is_some() {
            bits |= AFFINITY_FLOW_BIT;
        }
        let mut rules = vec![
            rule_that_counts_flow(Outcome::Forwarded),
            rule([&set_flow_bits(bits), &set_packet_bits(FORWARD_ACCEPTED_BIT)]),
        ];
        if self.keeps_client_address {
            rules.extend(
                ip_versions.iter().map(|ip_version| rule_that_masquerades_cluster_clients(*ip_version)),
            );
        }
        if let Some(seconds) = self.affinity_seconds {
            rules.extend(
                ip_versions
                    .iter()
                    .map(|ip_version| affinity::rule_that_finds_endpoint_of_client(*ip_version, seconds)),
            );
        }
        rules.extend(ip_versions.iter().map(|ip_version| self.rule_that_chooses_endpoint(*ip_version)));
        Chain::regular(self.name(), rules)
    }

    /// Returns the rule that chooses an endpoint at random.
    fn rule_that_chooses_endpoint(self, ip_version: IpVersion) -> Rule {
        rule([
            &ip_version.match_packets(),
            &load_protocol_and_port(0),
            &[
                Expr::RandomNumber { modulus: self.endpoint_count, dreg: Reg(2) },
                Expr::map(ip_version.add_suffix("endpoints"), Reg(0), Reg(ENDPOINT_REGISTER)),
                translate_destination(ip_version),
            ],
        ])
    }
}

/// Returns the rule that masquerades clients inside the cluster. Without the masquerade, an endpoint could send its
/// replies directly to the client, and the client would not accept these replies.
fn rule_that_masquerades_cluster_clients(ip_version: IpVersion) -> Rule {
    rule([
        &ip_version.match_packets(),
        &[ip_version.load_source(Reg(0)), Expr::is_in(ip_version.add_suffix("inside"), Reg(0))],
        &set_flow_bits(MASQUERADED_FLOW_BIT),
    ])
}

/// Returns the chain that refuses a flow at once: with a TCP reset, or for other protocols with "port unreachable".
pub(super) fn chain_that_refuses_flows() -> Chain {
    let is_tcp = is_protocol(Protocol::Tcp.number());
    let rules = vec![
        rule_that_counts_flow(Outcome::NoEndpoint),
        rule([&is_tcp, &[Expr::Reject(Reject::TcpReset)]]),
        Rule::new(vec![Expr::Reject(Reject::Icmpx(reject::ICMPX_PORT_UNREACHABLE))]),
    ];
    Chain::regular(REFUSE_CHAIN, rules)
}

/// Returns the goto that sends packets to the chain of a Service. A Service without endpoints (`None`) refuses the
/// flow.
pub(super) fn goto_endpoint_chain(chain: Option<EndpointChain>) -> Verdict {
    match chain {
        Some(chain) => Verdict::Goto(chain.name()),
        None => Verdict::goto(REFUSE_CHAIN),
    }
}
