//! The elements of former endpoints, which established connections may need. Pure.
//!
//! The packets of a connection with the client's address need elements of two sets, although the endpoint was chosen
//! long ago. On the endpoint's node, `own_destinations` leads to the zone of the flow. On the node that the client
//! addressed, `tunnel_marks` sends the packets into the tunnel. An endpoint that is no endpoint of a Service any more may
//! still serve its clients, for example after the Service's selector has changed. A change of the tables leaves these
//! elements. After the change, the agent deletes those that no connection needs.

use std::collections::BTreeSet;
use std::net::IpAddr;

use akrobateo_core::{Family, Protocol};
use netfilter::conntrack::{Entry, EntryFilter, MarkCondition};
use netfilter::nft::Table;
use netfilter::nft::model::{Element, Set};

use super::stale::endpoints;
use crate::marks::{self, FLOW_BIT, MASQUERADED_FLOW_BIT, PEER_FLOW_BIT};
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

    /// Returns a filter that all connections with elements of the set meet, in both families.
    pub(super) fn filter(self) -> EntryFilter {
        let (bits, mask) = match self {
            Self::OwnDestinations => (PEER_FLOW_BIT, PEER_FLOW_BIT),
            Self::TunnelMarks => (FLOW_BIT, FLOW_BIT | MASQUERADED_FLOW_BIT),
        };
        EntryFilter {
            frontend: Some((Protocol::Tcp, None)),
            mark: Some(MarkCondition { bits, mask }),
            ..EntryFilter::default()
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
}

/// The elements of former endpoints in one set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FormerElements {
    pub(super) set: UsedSet,
    family: Family,
    elements: Vec<Element>,
}

impl FormerElements {
    /// Returns the elements of the installed table that the desired table lacks.
    pub(super) fn find_all(installed: Option<&Table>, desired: &Table) -> Vec<Self> {
        let sets = UsedSet::ALL.into_iter().flat_map(|set| Family::ALL.map(|family| (set, family)));
        let find = |(set, family): (UsedSet, Family)| {
            let elements: Vec<_> = set.find_lost(family, installed?, desired).into_iter().cloned().collect();
            (!elements.is_empty()).then_some(Self { set, family, elements })
        };
        sets.filter_map(find).collect()
    }

    /// Adds the elements to a table. Elements of the table with the same keys remain.
    pub(super) fn add_to(&self, table: &mut Table) {
        let Some(name) = self.find_set(table).map(|set| set.name.clone()) else { return };
        for set in table.sets.iter_mut().filter(|set| set.name == name) {
            for element in &self.elements {
                if let Err(index) = set.elements.binary_search_by(|it| it.key.cmp(&element.key)) {
                    set.elements.insert(index, element.clone());
                }
            }
        }
    }

    /// Returns the table's set that has the elements.
    pub(super) fn find_set<'a>(&self, table: &'a Table) -> Option<&'a Set> {
        self.set.find_set(self.family, table)
    }

    /// Removes and returns the elements that none of these connections needs.
    pub(super) fn remove_unused(&mut self, entries: &[Entry]) -> Vec<Element> {
        let used: BTreeSet<_> = entries.iter().filter_map(|entry| self.set.used_address(entry)).collect();
        let is_used =
            |element: &Element| parse_address(self.family, element).is_some_and(|ip| used.contains(&ip));
        let (used, unused) = std::mem::take(&mut self.elements).into_iter().partition(is_used);
        self.elements = used;
        unused
    }

    /// Returns true if there are no elements.
    pub(super) const fn is_empty(&self) -> bool {
        self.elements.is_empty()
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
            let mut former = FormerElements::find_all(Some(&installed), &desired);
            let former = former.iter_mut().find(|former| former.set == set).unwrap();
            assert_eq!(former.elements.len(), 2);
            let before = former.find_set(&desired).unwrap().elements.len();
            former.add_to(&mut desired);
            assert_eq!(former.find_set(&desired).unwrap().elements.len(), before + 2);
            assert_eq!(former.remove_unused(&entries).len(), 2 - kept.len());
            let addresses = former.elements.iter().filter_map(|element| parse_address(Family::V4, element));
            assert_eq!(addresses.map(|ip| ip.to_string()).collect::<Vec<_>>(), kept);
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
