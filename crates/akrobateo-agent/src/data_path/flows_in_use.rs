//! Keeps the elements that established connections to former endpoints need. Pure.
//!
//! The packets of a connection with the client's address need elements of two sets, although the endpoint was chosen
//! long ago. On the endpoint's node, `own_destinations` leads to the zone of the flow. On the node that the client
//! addressed, `tunnel_marks` sends the packets into the tunnel. An endpoint that is no endpoint of a Service any more may
//! still serve its clients, for example after the Service's selector has changed.

use std::collections::BTreeSet;
use std::net::IpAddr;

use akrobateo_core::{Family, Protocol};
use netfilter::conntrack::{Entry, EntryFilter, MarkCondition};
use netfilter::nft::Table;
use netfilter::nft::model::{Element, Set};

use super::stale::endpoints;
use crate::marks::{self, FLOW_BIT, MASQUERADED_FLOW_BIT};
use crate::table::family_set;
use crate::table::keys::parse_address;

/// A set whose elements established connections need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UsedSet {
    /// The addresses of endpoints on this node.
    OwnDestinations,
    /// The marks of packets to endpoints on other nodes.
    TunnelMarks,
}

impl UsedSet {
    pub(super) const ALL: [Self; 2] = [Self::OwnDestinations, Self::TunnelMarks];

    const fn name(self) -> &'static str {
        match self {
            Self::OwnDestinations => "own_destinations",
            Self::TunnelMarks => "tunnel_marks",
        }
    }

    /// Returns the elements of the installed table that the desired table lacks, although it has the set.
    pub(super) fn find_lost<'a>(
        self,
        family: Family,
        installed: &'a Table,
        desired: &Table,
    ) -> Vec<&'a Element> {
        if self.find_set(family, desired).is_none() {
            return Vec::new();
        }
        let remaining = family_set(desired, family, self.name());
        let is_lost = |element: &&Element| remaining.binary_search_by(|it| it.key.cmp(&element.key)).is_err();
        let mut lost: Vec<_> = family_set(installed, family, self.name()).iter().filter(is_lost).collect();
        if self == Self::TunnelMarks && !lost.is_empty() {
            // New flows to an address that is an endpoint still would follow its mark too. And a peer may have lost its
            // tunnel.
            let tunnels = family_set(desired, family, "zone_tunnel_marks");
            let endpoints: BTreeSet<_> =
                endpoints(family, desired).into_iter().map(|(_, endpoint)| endpoint.ip()).collect();
            lost.retain(|element| {
                tunnels.iter().any(|tunnel| tunnel.value == element.value)
                    && parse_address(family, element).is_some_and(|ip| !endpoints.contains(&ip))
            });
        }
        lost
    }

    fn find_set(self, family: Family, table: &Table) -> Option<&Set> {
        let suffix = if family == Family::V4 { '4' } else { '6' };
        table.set(&format!("{}{suffix}", self.name()))
    }

    /// Returns a filter that all connections with these elements meet. The kernel can search for one address quickly.
    pub(super) fn filter(self, family: Family, elements: &[&Element]) -> EntryFilter {
        let filter = EntryFilter { frontend: Some((Protocol::Tcp, None)), ..EntryFilter::new(family) };
        match (self, elements) {
            (Self::OwnDestinations, [element]) => {
                EntryFilter { original_destination: parse_address(family, element), ..filter }
            }
            (Self::OwnDestinations, _) => filter,
            (Self::TunnelMarks, _) => {
                let mask = FLOW_BIT | MASQUERADED_FLOW_BIT;
                EntryFilter { mark: Some(MarkCondition { bits: FLOW_BIT, mask }), ..filter }
            }
        }
    }

    /// Returns the endpoint of a connection that needs an element of the set.
    fn used_address(self, entry: &Entry) -> Option<IpAddr> {
        let is_used = match self {
            Self::OwnDestinations => marks::node_of_zone(entry.zone).is_some(),
            Self::TunnelMarks => true,
        };
        is_used.then_some(entry.flow.reply_source.ip())
    }

    /// Adds the lost elements that connections still need to the desired table.
    pub(super) fn keep_used(
        self,
        family: Family,
        lost: Vec<Element>,
        entries: &[Entry],
        desired: &mut Table,
    ) {
        let used: BTreeSet<_> = entries.iter().filter_map(|entry| self.used_address(entry)).collect();
        let Some(name) = self.find_set(family, desired).map(|set| set.name.clone()) else { return };
        let is_used = |element: &Element| parse_address(family, element).is_some_and(|ip| used.contains(&ip));
        if let Some(set) = desired.sets.iter_mut().find(|set| set.name == name) {
            set.elements.extend(lost.into_iter().filter(is_used));
            set.elements.sort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::num::NonZeroU16;

    use netfilter::conntrack::Flow;

    use super::*;
    use crate::config::fixtures::{config, endpoint, service};
    use crate::config::{NodeConfig, Service, ServicePort};
    use crate::probe::Way;
    use crate::table::NodeTables;

    fn table(endpoints: &[(u8, u8)]) -> Table {
        table_with_way(endpoints, Way::Tunnel)
    }

    fn table_with_way(endpoints: &[(u8, u8)], way: Way) -> Table {
        let endpoints = endpoints.iter().map(|(number, node)| endpoint(*number, *node)).collect();
        let port = ServicePort { protocol: Protocol::Tcp, port: NonZeroU16::MIN, endpoints };
        let service = Service { families: vec![Family::V4], ports: vec![port], ..service() };
        let mut config = NodeConfig { services: vec![service], ..config() };
        config.peers.iter_mut().for_each(|peer| _ = peer.ways.insert(Family::V4, way));
        NodeTables::new(&config).inet
    }

    fn entry(endpoint: &str, zone: u16) -> Entry {
        let client = "192.0.2.1:4000".parse().unwrap();
        let reply_source: SocketAddr = endpoint.parse().unwrap();
        let flow = Flow { protocol: Protocol::Tcp, client, original_destination: reply_source, reply_source };
        Entry { flow, reply_destination: client, zone, mark: FLOW_BIT, has_reply: true }
    }

    #[test]
    fn only_elements_of_former_endpoints_with_connections_are_kept() {
        let installed = table(&[(10, 1), (11, 1), (12, 2), (13, 2)]);
        let zone = marks::zone(3);
        for (set, entries, kept) in [
            (UsedSet::OwnDestinations, vec![entry("10.244.1.10:80", zone)], vec!["10.244.1.10"]),
            (UsedSet::OwnDestinations, vec![entry("10.244.1.10:80", 0)], vec![]),
            (UsedSet::TunnelMarks, vec![entry("10.244.2.13:80", 0)], vec!["10.244.2.13"]),
            (UsedSet::TunnelMarks, vec![], vec![]),
        ] {
            let mut desired = table(&[]);
            let before = family_set(&desired, Family::V4, set.name()).len();
            let lost = set.find_lost(Family::V4, &installed, &desired);
            assert_eq!(lost.len(), 2);
            let lost = lost.into_iter().cloned().collect();
            set.keep_used(Family::V4, lost, &entries, &mut desired);
            let elements = family_set(&desired, Family::V4, set.name());
            assert_eq!(elements.len(), before + kept.len());
            let addresses: Vec<_> =
                elements.iter().filter_map(|element| parse_address(Family::V4, element)).collect();
            assert!(kept.iter().all(|address| addresses.contains(&address.parse().unwrap())));
        }
    }

    #[test]
    fn connections_leave_the_tunnel_if_the_endpoint_is_not_behind_it_any_more() {
        let installed = table(&[(12, 2)]);
        let mut without_node = table_with_way(&[(12, 2), (13, 2)], Way::Tunnel);
        without_node.sets.iter_mut().filter(|set| set.name == "tunnel_marks4").for_each(|set| {
            set.elements.remove(0);
        });
        for desired in [table_with_way(&[], Way::Direct), without_node] {
            assert!(UsedSet::TunnelMarks.find_lost(Family::V4, &installed, &desired).is_empty());
        }
        assert_eq!(UsedSet::TunnelMarks.find_lost(Family::V4, &installed, &table(&[])).len(), 1);
    }

    #[test]
    fn table_without_the_set_keeps_nothing() {
        let installed = table(&[(10, 1)]);
        let desired = NodeTables::new(&config()).inet;
        assert_eq!(
            UsedSet::OwnDestinations.find_lost(Family::V4, &installed, &desired),
            Vec::<&Element>::new()
        );
    }
}
