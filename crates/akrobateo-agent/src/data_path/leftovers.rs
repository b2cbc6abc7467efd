//! Finds flows of earlier rules that an earlier process has not deleted, for example because the earlier process was
//! killed. Pure.
//!
//! If that process had already changed the tables, a comparison of the tables does not find these flows.

use std::collections::BTreeSet;
use std::net::IpAddr;

use akrobateo_core::{Family, Protocol};
use netfilter::conntrack::Entry;
use netfilter::nft::Table;

use super::stale::{Endpoints, addresses_seeing_clients, endpoints, frontend};
use crate::marks::{MASQUERADED_FLOW_BIT, TRANSLATED_FLOW_BIT};
use crate::table::family_set;
use crate::table::keys::{PortKey, parse_service};

/// The rules of one family, with which the conntrack entries must agree.
#[derive(Debug)]
pub(super) struct CurrentRules {
    frontends: BTreeSet<(IpAddr, PortKey)>,
    /// The addresses of the frontends. Flows to other addresses are not examined.
    frontend_addresses: BTreeSet<IpAddr>,
    endpoints: Endpoints,
    /// The addresses of endpoints that see the client's address.
    endpoints_seeing_client_address: BTreeSet<IpAddr>,
}

impl CurrentRules {
    pub(super) fn new(family: Family, table: &Table) -> Self {
        let services = family_set(table, family, "services").iter();
        let frontends: BTreeSet<_> = services.filter_map(|element| parse_service(family, element)).collect();
        Self {
            frontend_addresses: frontends.iter().map(|(address, _)| *address).collect(),
            frontends,
            endpoints: endpoints(family, table),
            endpoints_seeing_client_address: addresses_seeing_clients(family, table),
        }
    }

    /// Returns true if there are no frontends. In this case, all flows agree with the rules.
    pub(super) fn is_empty(&self) -> bool {
        self.frontends.is_empty()
    }

    /// Returns true if the entry's flow contradicts the rules: the flow does not end by itself, and the rules would
    /// give the flow another destination.
    pub(super) fn contradicts_rules(&self, entry: &Entry) -> bool {
        let Some(frontend) = frontend(entry).filter(|(address, _)| self.frontend_addresses.contains(address))
        else {
            return false;
        };
        let is_udp = entry.flow.protocol == Protocol::Udp;
        if entry.mark & TRANSLATED_FLOW_BIT == 0 {
            return is_udp && self.frontends.contains(&frontend);
        }
        let (_, port) = frontend;
        let keeps_client_address = is_udp && entry.mark & MASQUERADED_FLOW_BIT == 0;
        ((is_udp || !entry.has_reply) && !self.endpoints.contains(&(port, entry.flow.reply_source)))
            || (keeps_client_address
                && !self.endpoints_seeing_client_address.contains(&entry.flow.reply_source.ip()))
    }
}

#[cfg(test)]
mod tests {
    use netfilter::conntrack::Flow;
    use std::net::SocketAddr;

    use super::*;
    use crate::config::fixtures::{config, endpoint, service};
    use crate::config::{NodeConfig, Service, ServicePort};
    use crate::table::NodeTables;

    #[test]
    fn flows_that_contradict_the_rules_are_found() {
        let port = |protocol| ServicePort {
            protocol,
            port: std::num::NonZeroU16::new(53).unwrap(),
            endpoints: vec![endpoint(10, 1), endpoint(11, 2)],
        };
        let ports = [Protocol::Tcp, Protocol::Udp].map(port).into();
        let service = Service { families: vec![Family::V4], ports, ..service() };
        let config = NodeConfig { services: vec![service], ..config() };
        let rules = CurrentRules::new(Family::V4, &NodeTables::new(&config).inet);
        let contradicts = |protocol, to: &str, endpoint: &str, mark, has_reply| {
            let client = "192.0.2.1:4000".parse().unwrap();
            let original_destination: SocketAddr = to.parse().unwrap();
            let reply_source = endpoint.parse().unwrap();
            let flow = Flow { protocol, client, original_destination, reply_source };
            rules.contradicts_rules(&Entry { flow, reply_destination: client, zone: 0, mark, has_reply })
        };
        let (frontend, local, remote) = ("10.99.0.1:53", "10.244.1.10:8080", "10.244.2.11:8080");
        let masqueraded_mark = TRANSLATED_FLOW_BIT | MASQUERADED_FLOW_BIT;
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let is_udp = protocol == Protocol::Udp;
            assert!(!contradicts(protocol, frontend, local, TRANSLATED_FLOW_BIT, true));
            assert!(!contradicts(protocol, frontend, remote, masqueraded_mark, true));
            assert_eq!(
                contradicts(protocol, frontend, remote, TRANSLATED_FLOW_BIT, true),
                is_udp,
                "no path keeps the address"
            );
            assert_eq!(contradicts(protocol, frontend, "10.244.1.9:8080", TRANSLATED_FLOW_BIT, true), is_udp);
            assert!(contradicts(protocol, frontend, "10.244.1.9:8080", TRANSLATED_FLOW_BIT, false));
            assert!(
                contradicts(protocol, "10.99.0.1:54", local, TRANSLATED_FLOW_BIT, false),
                "lost frontend"
            );
            assert_eq!(contradicts(protocol, frontend, frontend, 0, true), is_udp, "no translation");
            // A flow to an address of another program.
            assert!(!contradicts(protocol, "10.99.0.9:53", "10.244.1.9:53", TRANSLATED_FLOW_BIT, false));
        }
    }
}
