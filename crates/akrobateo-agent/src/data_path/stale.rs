//! Finds what earlier rules have left behind: conntrack entries, and affinities. Pure.
//!
//! A flow keeps its translation as long as its conntrack entry exists. An established TCP connection ends with its endpoint.
//! But a UDP client that goes on sending, and a TCP client that repeats its first packet, would keep a lost endpoint for
//! ever.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use akrobateo_core::{Family, Protocol};
use netfilter::conntrack::{EntryFilter, MarkCondition};
use netfilter::nft::Table;
use netfilter::nft::model::Element;

use crate::marks::{FLOW_BIT, MASQUERADED_FLOW_BIT};
use crate::table::family_set;
use crate::table::keys::{PortKey, parse_address, parse_affinity, parse_endpoint, parse_service};

const OWN_FLOW: MarkCondition = MarkCondition { bits: FLOW_BIT, mask: FLOW_BIT };
/// A flow whose endpoint sees the client's address.
const KEPT_FLOW: MarkCondition = MarkCondition { bits: FLOW_BIT, mask: FLOW_BIT | MASQUERADED_FLOW_BIT };
const OTHER_FLOW: MarkCondition = MarkCondition { bits: 0, mask: FLOW_BIT };

/// Returns the entries that no longer agree with the desired table: flows to an endpoint or a frontend that is gone,
/// and flows to a new frontend that are older than its rules.
pub(super) fn stale_entries(installed: Option<&Table>, desired: &Table) -> Vec<EntryFilter> {
    let mut filters = Vec::new();
    for family in Family::ALL {
        let (old, new) = changed_rules(family, installed, desired);
        let udp =
            |port: &PortKey| (port.protocol == Protocol::Udp).then_some((Protocol::Udp, Some(port.port)));
        for (port, endpoint) in old.endpoints.difference(&new.endpoints) {
            filters.push(EntryFilter {
                frontend: Some((port.protocol, Some(port.port))),
                reply_source: Some((endpoint.ip(), NonZeroU16::new(endpoint.port()))),
                mark: Some(OWN_FLOW),
                // An answered connection continues as long as its endpoint exists. An unanswered one would never end.
                has_reply: (port.protocol != Protocol::Udp).then_some(false),
                ..EntryFilter::new(family)
            });
        }
        let changed = [
            (old.frontends.difference(&new.frontends), OWN_FLOW),
            (new.frontends.difference(&old.frontends), OTHER_FLOW),
        ];
        for (frontends, mark) in changed {
            filters.extend(frontends.filter_map(|(address, port)| {
                Some(EntryFilter {
                    frontend: Some(udp(port)?),
                    original_destination: Some(*address),
                    mark: Some(mark),
                    ..EntryFilter::new(family)
                })
            }));
        }
    }
    filters
}

/// Returns the filter of the UDP entries with which endpoints see the client's address, and the endpoints of a family that
/// cannot reply to the client any more, because their node has lost its way. There may be many endpoints.
pub(super) fn lost_ways(
    family: Family,
    installed: Option<&Table>,
    desired: &Table,
) -> (EntryFilter, BTreeSet<SocketAddr>) {
    let installed_kept = installed.map_or(&[][..], |table| family_set(table, family, "kept"));
    let (lost_kept, _) = changed_elements(installed_kept, family_set(desired, family, "kept"));
    let lost_addresses = lost_kept.into_iter().filter_map(|element| parse_address(family, element)).collect();
    let lost = endpoints_at(family, desired, &lost_addresses).into_iter();
    let lost =
        lost.filter(|(port, _)| port.protocol == Protocol::Udp).map(|(_, endpoint)| endpoint).collect();
    let frontend = Some((Protocol::Udp, None));
    (EntryFilter { frontend, mark: Some(KEPT_FLOW), ..EntryFilter::new(family) }, lost)
}

/// Returns true if the endpoint of an affinity is not an endpoint of its Service any more.
pub(super) fn is_stale_affinity(family: Family, element: &Element, endpoints: &Endpoints) -> bool {
    parse_affinity(family, element).is_none_or(|(_, port, endpoint)| !endpoints.contains(&(port, endpoint)))
}

/// The endpoints of all Services of one family.
pub(super) type Endpoints = BTreeSet<(PortKey, SocketAddr)>;

/// Returns the endpoints of a table.
pub(super) fn endpoints(family: Family, table: &Table) -> Endpoints {
    let elements = family_set(table, family, "endpoints").iter();
    elements.filter_map(|element| parse_endpoint(family, element)).collect()
}

/// Returns the endpoints of a table with one of these addresses.
fn endpoints_at(family: Family, table: &Table, addresses: &BTreeSet<IpAddr>) -> Endpoints {
    if addresses.is_empty() {
        return Endpoints::new();
    }
    endpoints(family, table).into_iter().filter(|(_, endpoint)| addresses.contains(&endpoint.ip())).collect()
}

/// Returns true if both tables have the same endpoints of a family, in the same order.
pub(super) fn has_equal_endpoints(family: Family, table: &Table, other: &Table) -> bool {
    let [elements, others] = [table, other].map(|table| family_set(table, family, "endpoints"));
    elements.len() == others.len()
        && elements.iter().zip(others).all(|(element, other)| element.equals_ignoring_state(other))
}

/// The frontends and the endpoints in elements that only one of two tables has.
struct ChangedRules {
    frontends: BTreeSet<(IpAddr, PortKey)>,
    endpoints: Endpoints,
}

/// Returns the rules in elements that differ, of the installed and of the desired table.
///
/// Equal elements are left out, because sets of thousands of rules would take most of the time of a change. An endpoint with
/// another number is in both results.
fn changed_rules(family: Family, installed: Option<&Table>, desired: &Table) -> (ChangedRules, ChangedRules) {
    let changed = |name| {
        let installed = installed.map_or(&[][..], |table| family_set(table, family, name));
        changed_elements(installed, family_set(desired, family, name))
    };
    let (old_frontends, new_frontends) = changed("services");
    let (old_endpoints, new_endpoints) = changed("endpoints");
    let to_rules = |frontends: Vec<&Element>, endpoints: Vec<&Element>| ChangedRules {
        frontends: frontends.into_iter().filter_map(|element| parse_service(family, element)).collect(),
        endpoints: endpoints.into_iter().filter_map(|element| parse_endpoint(family, element)).collect(),
    };
    (to_rules(old_frontends, old_endpoints), to_rules(new_frontends, new_endpoints))
}

/// Returns the elements of two sorted lists that the other list does not have.
fn changed_elements<'a>(old: &'a [Element], new: &'a [Element]) -> (Vec<&'a Element>, Vec<&'a Element>) {
    let (mut only_old, mut only_new) = (Vec::new(), Vec::new());
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    while let (Some(old_element), Some(new_element)) = (old.peek(), new.peek()) {
        match old_element.key.cmp(&new_element.key) {
            Ordering::Less => only_old.extend(old.next()),
            Ordering::Greater => only_new.extend(new.next()),
            Ordering::Equal => {
                if !old_element.equals_ignoring_state(new_element) {
                    only_old.push(*old_element);
                    only_new.push(*new_element);
                }
                (_, _) = (old.next(), new.next());
            }
        }
    }
    only_old.extend(old);
    only_new.extend(new);
    (only_old, only_new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixtures::{config, endpoint, service};
    use crate::config::{NodeConfig, Service, ServicePort};
    use crate::probe::Way;
    use crate::table::NodeTables;

    fn table(protocol: Protocol, endpoints: &[(u8, u8)]) -> Table {
        let endpoints = endpoints.iter().map(|(number, node)| endpoint(*number, *node)).collect();
        let port = ServicePort { protocol, port: NonZeroU16::new(53).unwrap(), endpoints };
        let service = Service { families: vec![Family::V4], ports: vec![port], ..service() };
        NodeTables::new(&NodeConfig { services: vec![service], ..config() }).inet
    }

    #[test]
    fn udp_flows_to_lost_endpoints_are_stale() {
        let (old, new) =
            (table(Protocol::Udp, &[(10, 1), (11, 2)]), table(Protocol::Udp, &[(11, 2), (12, 1)]));
        let [filter] = stale_entries(Some(&old), &new)[..] else { panic!("expected one filter") };
        assert_eq!(filter.reply_source, Some(("10.244.1.10".parse().unwrap(), NonZeroU16::new(8080))));
        assert_eq!(filter.mark, Some(OWN_FLOW));
        // Connections that the endpoint has answered continue.
        let (old, new) = (table(Protocol::Tcp, &[(10, 1)]), table(Protocol::Tcp, &[(12, 1)]));
        let [filter] = stale_entries(Some(&old), &new)[..] else { panic!("expected one filter") };
        assert_eq!(filter.has_reply, Some(false));
    }

    #[test]
    fn udp_flows_with_the_clients_address_are_stale_if_their_endpoint_loses_its_way() {
        let with_ways = |ways: &[(Family, Way)]| {
            let port = ServicePort {
                protocol: Protocol::Udp,
                port: NonZeroU16::new(53).unwrap(),
                endpoints: vec![endpoint(10, 2)],
            };
            let services = vec![Service { families: vec![Family::V4], ports: vec![port], ..service() }];
            let mut config = NodeConfig { services, ..config() };
            config.peers[0].ways.extend(ways.iter().copied());
            NodeTables::new(&config).inet
        };
        let (tunnel, none) = (with_ways(&[(Family::V4, Way::Tunnel)]), with_ways(&[]));
        let (filter, lost) = lost_ways(Family::V4, Some(&tunnel), &none);
        assert_eq!(filter.mark, Some(KEPT_FLOW));
        assert_eq!(lost, BTreeSet::from(["10.244.2.10:8080".parse().unwrap()]));
        for unchanged in [with_ways(&[(Family::V4, Way::Direct)]), tunnel.clone()] {
            assert_eq!(lost_ways(Family::V4, Some(&tunnel), &unchanged).1, BTreeSet::new());
        }
        assert_eq!(lost_ways(Family::V4, Some(&none), &tunnel).1, BTreeSet::new());
        assert_eq!(stale_entries(Some(&tunnel), &none), []);
    }

    #[test]
    fn endpoint_with_another_number_is_not_stale() {
        let endpoints = [(10, 1), (11, 2), (12, 1)];
        let (old, new) = (table(Protocol::Udp, &endpoints), table(Protocol::Udp, &endpoints[1..]));
        let [filter] = &stale_entries(Some(&old), &new)[..] else { panic!("expected one filter") };
        assert_eq!(filter.reply_source, Some(("10.244.1.10".parse().unwrap(), NonZeroU16::new(8080))));
        assert_eq!(stale_entries(Some(&new), &old), []);
        assert!(has_equal_endpoints(Family::V4, &old, &old) && !has_equal_endpoints(Family::V4, &old, &new));
    }

    #[test]
    fn udp_flows_that_are_older_than_the_rules_are_stale() {
        let new = table(Protocol::Udp, &[(10, 1)]);
        let [filter] = stale_entries(None, &new)[..] else { panic!("expected one filter") };
        assert_eq!(filter.original_destination, Some(config().node.addresses[0]));
        assert_eq!(
            (filter.frontend, filter.mark),
            (Some((Protocol::Udp, NonZeroU16::new(53))), Some(OTHER_FLOW))
        );
        let [filter] = stale_entries(Some(&new), &NodeTables::new(&config()).inet)[..] else {
            // The endpoint is lost too.
            let filters = stale_entries(Some(&new), &NodeTables::new(&config()).inet);
            assert!(filters.iter().all(|filter| filter.mark == Some(OWN_FLOW)) && filters.len() == 2);
            return;
        };
        panic!("{filter:?}");
    }
}
