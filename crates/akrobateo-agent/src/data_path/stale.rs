//! Finds the conntrack entries of UDP flows, and the affinities, that no longer agree with the rules. Pure.
//!
//! The kernel translates the packets of a flow in the same way until the flow's conntrack entry expires. A TCP
//! connection ends with its endpoint. A UDP client that continues to send would keep a removed endpoint for ever.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use akrobateo_core::{Family, Protocol};
use netfilter::conntrack::{EntryFilter, MarkCondition};
use netfilter::nft::Table;
use netfilter::nft::model::Element;

use crate::marks::FLOW;
use crate::table::family_set;
use crate::table::keys::{PortKey, parse_affinity, parse_endpoint, parse_service};

/// Matches flows whose destination the agent has translated.
const TRANSLATED_FLOW: MarkCondition = MarkCondition { bits: FLOW, mask: FLOW };
/// Matches flows whose destination the agent has not translated.
const UNTRANSLATED_FLOW: MarkCondition = MarkCondition { bits: 0, mask: FLOW };

/// Returns filters for the conntrack entries of UDP flows that disagree with the desired table.
///
/// Such a flow goes to a removed endpoint or to a removed frontend, or the flow is older than the rules of its
/// frontend.
pub(super) fn stale_entries(installed: Option<&Table>, desired: &Table) -> Vec<EntryFilter> {
    let mut filters = Vec::new();
    for family in Family::ALL {
        let new_rules = Rules::from_table(family, Some(desired));
        let old_rules = Rules::from_table(family, installed);
        let udp_frontend =
            |port: &PortKey| (port.protocol == Protocol::Udp).then_some((Protocol::Udp, Some(port.port)));
        for (port, endpoint) in old_rules.endpoints.difference(&new_rules.endpoints) {
            let reply_source = Some((endpoint.ip(), NonZeroU16::new(endpoint.port())));
            filters.extend(udp_frontend(port).map(|frontend| EntryFilter {
                frontend: Some(frontend),
                reply_source,
                mark: Some(TRANSLATED_FLOW),
                ..EntryFilter::new(family)
            }));
        }
        let changed_frontends = [
            (old_rules.frontends.difference(&new_rules.frontends), TRANSLATED_FLOW),
            (new_rules.frontends.difference(&old_rules.frontends), UNTRANSLATED_FLOW),
        ];
        for (frontends, mark) in changed_frontends {
            filters.extend(frontends.filter_map(|(address, port)| {
                Some(EntryFilter {
                    frontend: Some(udp_frontend(port)?),
                    original_destination: Some(*address),
                    mark: Some(mark),
                    ..EntryFilter::new(family)
                })
            }));
        }
    }
    filters
}

/// Returns true if the endpoint of an affinity is no longer an endpoint of its Service.
pub(super) fn is_stale_affinity(family: Family, element: &Element, endpoints: &Endpoints) -> bool {
    parse_affinity(family, element).is_none_or(|(_, port, endpoint)| !endpoints.contains(&(port, endpoint)))
}

/// The endpoints of all Services of one family.
pub(super) type Endpoints = BTreeSet<(PortKey, SocketAddr)>;

/// Returns the endpoints of a family in a table.
pub(super) fn endpoints(family: Family, table: &Table) -> Endpoints {
    family_elements(family, Some(table), "endpoints")
        .filter_map(|element| parse_endpoint(family, element))
        .collect()
}

/// The contents of a table that decide about flows.
struct Rules {
    frontends: BTreeSet<(IpAddr, PortKey)>,
    endpoints: Endpoints,
}

impl Rules {
    fn from_table(family: Family, table: Option<&Table>) -> Self {
        let frontends = family_elements(family, table, "services").filter_map(|it| parse_service(family, it));
        let endpoints =
            family_elements(family, table, "endpoints").filter_map(|it| parse_endpoint(family, it));
        Self { frontends: frontends.collect(), endpoints: endpoints.collect() }
    }
}

fn family_elements<'a>(
    family: Family,
    table: Option<&'a Table>,
    name: &str,
) -> impl Iterator<Item = &'a Element> {
    table.map_or(&[][..], |table| family_set(table, family, name)).iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixtures::{config, endpoint, service};
    use crate::config::{NodeConfig, Service, ServicePort};
    use crate::table::NodeTables;

    fn table(protocol: Protocol, endpoints: &[(u8, u8)]) -> Table {
        let endpoints = endpoints.iter().map(|(number, node)| endpoint(*number, *node)).collect();
        let port = ServicePort { protocol, port: NonZeroU16::new(53).unwrap(), endpoints };
        let service = Service { families: vec![Family::V4], ports: vec![port], ..service() };
        NodeTables::new(&NodeConfig { services: vec![service], ..config() }).inet
    }

    #[test]
    fn udp_flows_to_removed_endpoints_are_stale() {
        let (old, new) =
            (table(Protocol::Udp, &[(10, 1), (11, 2)]), table(Protocol::Udp, &[(11, 2), (12, 1)]));
        let [filter] = stale_entries(Some(&old), &new)[..] else { panic!("expected one filter") };
        assert_eq!(filter.reply_source, Some(("10.244.1.10".parse().unwrap(), NonZeroU16::new(8080))));
        assert_eq!(filter.mark, Some(TRANSLATED_FLOW));
        let (old, new) = (table(Protocol::Tcp, &[(10, 1)]), table(Protocol::Tcp, &[(12, 1)]));
        assert_eq!(stale_entries(Some(&old), &new), []);
    }

    #[test]
    fn udp_flows_older_than_their_rules_are_stale() {
        let new = table(Protocol::Udp, &[(10, 1)]);
        let [filter] = stale_entries(None, &new)[..] else { panic!("expected one filter") };
        assert_eq!(filter.original_destination, Some(config().node.addresses[0]));
        assert_eq!(
            (filter.frontend, filter.mark),
            (Some((Protocol::Udp, NonZeroU16::new(53))), Some(UNTRANSLATED_FLOW))
        );
        // Without the Service, neither its frontend nor its endpoint exists.
        let filters = stale_entries(Some(&new), &NodeTables::new(&config()).inet);
        assert_eq!(filters.len(), 2);
        assert!(filters.iter().all(|filter| filter.mark == Some(TRANSLATED_FLOW)));
    }
}
