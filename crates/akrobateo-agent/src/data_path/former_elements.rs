//! The elements of former endpoints, which established connections may need. Pure.
//!
//! Two sets contain elements that all packets of a connection need, not only the first packet. On the endpoint's node,
//! `own_destinations` gives the flow its conntrack zone. On the node that the client addressed, `tunnel_marks` sends
//! the packets into the tunnel.
//!
//! A former endpoint is a pod that was an endpoint of a Service, for example until the Service's selector changed. A
//! change of the tables does not delete the elements of former endpoints, because the pod may still serve its
//! connections. After the change, the agent deletes the elements that no connection needs.

use std::collections::BTreeSet;
use std::net::IpAddr;

use akrobateo_core::{Family, Protocol};
use netfilter::conntrack::{Entry, EntryFilter, MarkCondition};
use netfilter::nft::Table;
use netfilter::nft::model::{Element, Set};

use super::stale::endpoints;
use crate::marks::{self, MASQUERADED_FLOW_BIT, PEER_FLOW_BIT, TRANSLATED_FLOW_BIT};
use crate::table::family_set;
use crate::table::keys::parse_address;

/// A set with elements that established connections need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionSet {
    /// The addresses of endpoints on this node.
    OwnDestinations,
    /// The marks of packets to endpoints on other nodes.
    TunnelMarks,
}

impl ConnectionSet {
    pub(super) const ALL: [Self; 2] = [Self::OwnDestinations, Self::TunnelMarks];

    const fn name(self) -> &'static str {
        match self {
            Self::OwnDestinations => "own_destinations",
            Self::TunnelMarks => "tunnel_marks",
        }
    }

    /// Returns the elements of former endpoints. Only the installed table has these elements. Returns an empty list if
    /// the desired table lacks the set.
    pub(super) fn find_former_elements<'a>(
        self,
        family: Family,
        installed: &'a Table,
        desired: &Table,
    ) -> Vec<&'a Element> {
        if self.find_set(family, desired).is_none() {
            return Vec::new();
        }
        let desired_set = family_set(desired, family, self.name());
        let is_former =
            |element: &&Element| desired_set.binary_search_by(|it| it.key.cmp(&element.key)).is_err();
        let installed_elements = family_set(installed, family, self.name()).iter();
        let mut former_elements: Vec<_> = installed_elements.filter(is_former).collect();
        if self == Self::TunnelMarks && !former_elements.is_empty() {
            // Two kinds of elements must not remain. If the address still belongs to an endpoint, an old element would
            // give the earlier mark to new flows. If the tunnel to the peer no longer exists, the mark has no effect.
            let tunnels = family_set(desired, family, "zone_tunnel_marks");
            let endpoints: BTreeSet<_> =
                endpoints(family, desired).into_iter().map(|(_, endpoint)| endpoint.ip()).collect();
            former_elements.retain(|element| {
                tunnels.iter().any(|tunnel| tunnel.value == element.value)
                    && parse_address(family, element).is_some_and(|ip| !endpoints.contains(&ip))
            });
        }
        former_elements
    }

    fn find_set(self, family: Family, table: &Table) -> Option<&Set> {
        let suffix = if family == Family::V4 { '4' } else { '6' };
        table.set(&format!("{}{suffix}", self.name()))
    }

    /// Returns a filter that matches all connections that need an element of the set, in both families.
    pub(super) fn filter(self) -> EntryFilter {
        let (bits, mask) = match self {
            Self::OwnDestinations => (PEER_FLOW_BIT, PEER_FLOW_BIT),
            Self::TunnelMarks => (TRANSLATED_FLOW_BIT, TRANSLATED_FLOW_BIT | MASQUERADED_FLOW_BIT),
        };
        EntryFilter {
            frontend: Some((Protocol::Tcp, None)),
            mark: Some(MarkCondition { bits, mask }),
            ..EntryFilter::default()
        }
    }

    /// Returns the address of the connection's endpoint; `None` if the connection needs no element of the set.
    fn endpoint_address(self, entry: &Entry) -> Option<IpAddr> {
        let needs_element = match self {
            Self::OwnDestinations => marks::node_of_conntrack_zone(entry.zone).is_some(),
            Self::TunnelMarks => true,
        };
        needs_element.then_some(entry.flow.reply_source.ip())
    }
}

/// The elements of former endpoints in one set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FormerElements {
    pub(super) set: ConnectionSet,
    family: Family,
    elements: Vec<Element>,
}

impl FormerElements {
    /// Returns the elements of former endpoints in all sets. Only the installed table has these elements.
    pub(super) fn find_all(installed: Option<&Table>, desired: &Table) -> Vec<Self> {
        let sets = ConnectionSet::ALL.into_iter().flat_map(|set| Family::ALL.map(|family| (set, family)));
        let find = |(set, family): (ConnectionSet, Family)| {
            let elements: Vec<_> =
                set.find_former_elements(family, installed?, desired).into_iter().cloned().collect();
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

    /// Returns the table's set to which the elements belong.
    pub(super) fn find_set<'a>(&self, table: &'a Table) -> Option<&'a Set> {
        self.set.find_set(self.family, table)
    }

    /// Removes and returns the elements that none of these connections needs.
    pub(super) fn remove_unused(&mut self, entries: &[Entry]) -> Vec<Element> {
        let used_addresses: BTreeSet<_> =
            entries.iter().filter_map(|entry| self.set.endpoint_address(entry)).collect();
        let is_used = |element: &Element| {
            parse_address(self.family, element).is_some_and(|ip| used_addresses.contains(&ip))
        };
        let (used_elements, unused_elements) =
            std::mem::take(&mut self.elements).into_iter().partition(is_used);
        self.elements = used_elements;
        unused_elements
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
    use crate::config::fixtures::{config, endpoint, masqueraded_service, service};
    use crate::config::{NodeConfig, Service, ServicePort};
    use crate::probe::PeerPath;
    use crate::table::NodeTables;

    fn table(endpoints: &[(u8, u8)]) -> Table {
        table_with_path(endpoints, PeerPath::Tunnel)
    }

    fn table_with_path(endpoints: &[(u8, u8)], path: PeerPath) -> Table {
        let endpoints = endpoints.iter().map(|(number, node)| endpoint(*number, *node)).collect();
        let port = ServicePort { protocol: Protocol::Tcp, port: NonZeroU16::MIN, endpoints };
        let service = Service { families: vec![Family::V4], ports: vec![port], ..service() };
        let mut config = NodeConfig { services: vec![service], ..config() };
        config.peers.iter_mut().for_each(|peer| peer.set_paths([(Family::V4, path)].into()));
        NodeTables::new(&config).inet
    }

    fn entry(endpoint: &str, zone: u16) -> Entry {
        let client = "192.0.2.1:4000".parse().unwrap();
        let reply_source: SocketAddr = endpoint.parse().unwrap();
        let flow = Flow { protocol: Protocol::Tcp, client, original_destination: reply_source, reply_source };
        Entry { flow, reply_destination: client, zone, mark: TRANSLATED_FLOW_BIT, has_reply: true }
    }

    #[test]
    fn former_endpoint_keeps_its_element_while_it_has_connections() {
        let installed = table(&[(10, 1), (11, 1), (12, 2), (13, 2)]);
        let zone = marks::conntrack_zone(3);
        for (set, entries, kept_addresses) in [
            (ConnectionSet::OwnDestinations, vec![entry("10.244.1.10:80", zone)], vec!["10.244.1.10"]),
            (ConnectionSet::OwnDestinations, vec![entry("10.244.1.10:80", 0)], vec![]),
            (ConnectionSet::TunnelMarks, vec![entry("10.244.2.13:80", 0)], vec!["10.244.2.13"]),
            (ConnectionSet::TunnelMarks, vec![], vec![]),
        ] {
            let mut desired = table(&[]);
            let mut former_elements = FormerElements::find_all(Some(&installed), &desired);
            let elements_of_set = former_elements.iter_mut().find(|elements| elements.set == set).unwrap();
            assert_eq!(elements_of_set.elements.len(), 2);
            let count_before = elements_of_set.find_set(&desired).unwrap().elements.len();
            elements_of_set.add_to(&mut desired);
            assert_eq!(elements_of_set.find_set(&desired).unwrap().elements.len(), count_before + 2);
            assert_eq!(elements_of_set.remove_unused(&entries).len(), 2 - kept_addresses.len());
            let addresses =
                elements_of_set.elements.iter().filter_map(|element| parse_address(Family::V4, element));
            assert_eq!(addresses.map(|ip| ip.to_string()).collect::<Vec<_>>(), kept_addresses);
        }
    }

    #[test]
    fn tunnel_mark_is_deleted_if_its_endpoint_left_the_tunnel() {
        let installed = table(&[(12, 2)]);
        let mut table_without_node = table_with_path(&[(12, 2), (13, 2)], PeerPath::Tunnel);
        table_without_node.sets.iter_mut().filter(|set| set.name == "tunnel_marks4").for_each(|set| {
            set.elements.remove(0);
        });
        for desired in [table_with_path(&[], PeerPath::Direct), table_without_node] {
            assert!(
                ConnectionSet::TunnelMarks.find_former_elements(Family::V4, &installed, &desired).is_empty()
            );
        }
        assert_eq!(
            ConnectionSet::TunnelMarks.find_former_elements(Family::V4, &installed, &table(&[])).len(),
            1
        );
    }

    #[test]
    fn elements_are_not_kept_if_the_desired_table_lacks_their_set() {
        let installed = table(&[(10, 1)]);
        let config = NodeConfig { services: vec![masqueraded_service()], ..config() };
        let desired = NodeTables::new(&config).inet;
        assert_eq!(
            ConnectionSet::OwnDestinations.find_former_elements(Family::V4, &installed, &desired),
            Vec::<&Element>::new()
        );
    }
}
