//! Finds the conntrack entries and affinities that earlier rules have left behind. Pure.
//!
//! A flow keeps its translation as long as its conntrack entry exists. An established TCP connection ends when its
//! endpoint ends. Two kinds of flows could go to a lost endpoint forever. A UDP flow continues while its client sends.
//! An attempt to open a TCP connection continues while its client repeats the first packet.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use akrobateo_core::{Family, Protocol};
use netfilter::conntrack::{Entry, EntryFilter, Flow, MarkCondition};
use netfilter::nft::Table;
use netfilter::nft::model::Element;

use crate::marks::{MASQUERADED_FLOW_BIT, TRANSLATED_FLOW_BIT};
use crate::table::family_set;
use crate::table::keys::{PortKey, parse_address, parse_affinity, parse_endpoint, parse_service};

/// The time between the loss of a path that keeps the clients' addresses and the deletion of its UDP flows.
///
/// The agent of the peer may have crashed. The peer's rules then still forward the flows, and a deletion would lose the
/// requests that wait for an answer. If the network drops the packets, the flows do not work during this time. The time
/// is the kernel's timeout of a UDP flow without an answer (`nf_conntrack_udp_timeout`).
pub(super) const LOST_PATH_RETENTION_TIME: Duration = Duration::from_secs(30);

/// The flows of one family that no longer agree with the desired table.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct StaleFlows {
    /// The endpoints that exist only in the installed table.
    lost_endpoints: Endpoints,
    /// The UDP endpoints that no longer see the client's address, for example because no path to the endpoint's node keeps
    /// the address any more. The value is the time at which their flows become stale.
    masqueraded_endpoints: BTreeMap<SocketAddr, Instant>,
    /// The UDP frontends that exist only in the installed table.
    lost_frontends: BTreeSet<(IpAddr, PortKey)>,
    /// The UDP frontends that exist only in the desired table. Older flows to these frontends have no translation.
    new_frontends: BTreeSet<(IpAddr, PortKey)>,
}

impl StaleFlows {
    /// Compares the installed table with the desired table, which was installed at `now`.
    pub(super) fn find(family: Family, installed: Option<&Table>, desired: &Table, now: Instant) -> Self {
        let (old, new) = find_changed_rules(family, installed, desired);
        let udp_difference = |frontends: &BTreeSet<(IpAddr, PortKey)>,
                              others: &BTreeSet<(IpAddr, PortKey)>| {
            let frontends = frontends.difference(others).copied();
            frontends.filter(|(_, port)| port.protocol == Protocol::Udp).collect()
        };
        let kept_elements = installed.map_or(&[][..], |table| family_set(table, family, "kept"));
        let (lost_elements, _) = find_changed_elements(kept_elements, family_set(desired, family, "kept"));
        let lost_addresses =
            lost_elements.into_iter().filter_map(|element| parse_address(family, element)).collect();
        let masqueraded_endpoints = endpoints_with_addresses(family, desired, &lost_addresses).into_iter();
        Self {
            lost_frontends: udp_difference(&old.frontends, &new.frontends),
            new_frontends: udp_difference(&new.frontends, &old.frontends),
            lost_endpoints: old.endpoints.difference(&new.endpoints).copied().collect(),
            masqueraded_endpoints: masqueraded_endpoints
                .filter(|(port, _)| port.protocol == Protocol::Udp)
                .map(|(_, endpoint)| (endpoint, now + LOST_PATH_RETENTION_TIME))
                .collect(),
        }
    }

    /// Adds the stale flows of an earlier change. `desired` is the table after the last change.
    ///
    /// The result may contain flows that agree with the table again, if a later change has reverted the earlier change.
    /// After the deletion of its entry, such a flow passes the rules again. But the flows of a path that works again are
    /// not stale.
    pub(super) fn extend(&mut self, family: Family, mut earlier: Self, desired: &Table) {
        if !earlier.masqueraded_endpoints.is_empty() {
            let kept_addresses = addresses_seeing_clients(family, desired);
            earlier.masqueraded_endpoints.retain(|endpoint, _| !kept_addresses.contains(&endpoint.ip()));
        }
        // The earlier time of an endpoint counts.
        self.masqueraded_endpoints.extend(earlier.masqueraded_endpoints);
        self.lost_endpoints.extend(earlier.lost_endpoints);
        self.lost_frontends.extend(earlier.lost_frontends);
        self.new_frontends.extend(earlier.new_frontends);
    }

    /// Returns the time at which the first flow becomes stale; `None` if no flow becomes stale. `now` stands for flows
    /// that are already stale.
    pub(super) fn stale_at(&self, now: Instant) -> Option<Instant> {
        let Self { lost_endpoints, masqueraded_endpoints, lost_frontends, new_frontends } = self;
        let has_only_delayed_flows =
            lost_endpoints.is_empty() && lost_frontends.is_empty() && new_frontends.is_empty();
        if has_only_delayed_flows { masqueraded_endpoints.values().min().copied() } else { Some(now) }
    }

    /// Keeps only the flows that become stale after `now`.
    pub(super) fn retain_delayed(&mut self, now: Instant) {
        let mut masqueraded_endpoints = std::mem::take(&mut self.masqueraded_endpoints);
        masqueraded_endpoints.retain(|_, stale_at| *stale_at > now);
        *self = Self { masqueraded_endpoints, ..Self::default() };
    }

    /// Returns a filter that matches all stale flows, and possibly other flows. Returns `None` if no flow is stale.
    pub(super) fn filter(&self, family: Family) -> Option<EntryFilter> {
        let own_flows = MarkCondition { bits: TRANSLATED_FLOW_BIT, mask: TRANSLATED_FLOW_BIT };
        let mark = self.new_frontends.is_empty().then_some(own_flows);
        (*self != Self::default()).then(|| EntryFilter { mark, ..EntryFilter::new(family) })
    }

    /// Returns true if the entry's flow is stale.
    pub(super) fn contains(&self, entry: &Entry, now: Instant) -> bool {
        let Flow { protocol, reply_source, .. } = entry.flow;
        let Some(frontend) = frontend(entry) else { return false };
        let (_, port) = frontend;
        if entry.mark & TRANSLATED_FLOW_BIT == 0 {
            return self.new_frontends.contains(&frontend);
        }
        // An established TCP connection ends when its endpoint ends. All other flows to a lost endpoint are stale,
        // because these flows may never end.
        let may_never_end = protocol == Protocol::Udp || !entry.has_reply;
        let keeps_client_address = protocol == Protocol::Udp && entry.mark & MASQUERADED_FLOW_BIT == 0;
        let has_lost_path =
            || self.masqueraded_endpoints.get(&reply_source).is_some_and(|stale_at| *stale_at <= now);
        (may_never_end && self.lost_endpoints.contains(&(port, reply_source)))
            || (keeps_client_address && has_lost_path())
            || self.lost_frontends.contains(&frontend)
    }
}

/// Returns the address and the port to which the client has sent its packets.
pub(super) fn frontend(entry: &Entry) -> Option<(IpAddr, PortKey)> {
    let Flow { protocol, original_destination, .. } = entry.flow;
    let port = NonZeroU16::new(original_destination.port())?;
    Some((original_destination.ip(), PortKey { protocol, port }))
}

/// The affinities of one family to lost endpoints.
#[derive(Debug)]
pub(super) struct StaleAffinities {
    family: Family,
    /// The endpoints in the desired table.
    existing_endpoints: Endpoints,
    /// The ports whose endpoints have changed; `None` stands for all ports.
    changed_ports: Option<BTreeSet<PortKey>>,
}

impl StaleAffinities {
    /// Compares the installed table with the desired table. Returns `None` if all endpoints remain. If `is_partial` is
    /// true, the tables lack the Services that do not change.
    pub(super) fn find(
        family: Family,
        installed: Option<&Table>,
        desired: &Table,
        is_partial: bool,
    ) -> Option<Self> {
        if installed.is_some_and(|installed| has_equal_endpoints(family, installed, desired)) {
            return None;
        }
        let old_endpoints = installed.map(|table| endpoints(family, table)).unwrap_or_default();
        let new_endpoints = endpoints(family, desired);
        let all_endpoints = old_endpoints.iter().chain(&new_endpoints);
        let changed_ports = is_partial.then(|| all_endpoints.map(|(port, _)| *port).collect());
        Some(Self { family, existing_endpoints: new_endpoints, changed_ports })
    }

    /// Returns true if the affinity leads to an endpoint that the Service does not have any more.
    pub(super) fn contains(&self, element: &Element) -> bool {
        let Some((_, port, endpoint)) = parse_affinity(self.family, element) else { return true };
        self.changed_ports.as_ref().is_none_or(|ports| ports.contains(&port))
            && !self.existing_endpoints.contains(&(port, endpoint))
    }
}

/// The endpoints of all Services of one family.
pub(super) type Endpoints = BTreeSet<(PortKey, SocketAddr)>;

/// Returns the endpoints of a table.
pub(super) fn endpoints(family: Family, table: &Table) -> Endpoints {
    let elements = family_set(table, family, "endpoints").iter();
    elements.filter_map(|element| parse_endpoint(family, element)).collect()
}

/// Returns the addresses of the endpoints that see the client's address.
pub(super) fn addresses_seeing_clients(family: Family, table: &Table) -> BTreeSet<IpAddr> {
    let elements = family_set(table, family, "kept").iter();
    elements.filter_map(|element| parse_address(family, element)).collect()
}

/// Returns the endpoints of a table with one of these addresses.
fn endpoints_with_addresses(family: Family, table: &Table, addresses: &BTreeSet<IpAddr>) -> Endpoints {
    if addresses.is_empty() {
        return Endpoints::new();
    }
    endpoints(family, table).into_iter().filter(|(_, endpoint)| addresses.contains(&endpoint.ip())).collect()
}

/// Returns true if both tables have the same endpoints of a family, in the same order.
fn has_equal_endpoints(family: Family, table: &Table, other: &Table) -> bool {
    let [elements, others] = [table, other].map(|table| family_set(table, family, "endpoints"));
    elements.len() == others.len()
        && elements.iter().zip(others).all(|(element, other)| element.equals_ignoring_state(other))
}

/// The frontends and the endpoints in elements that only one of two tables has.
struct ChangedRules {
    frontends: BTreeSet<(IpAddr, PortKey)>,
    endpoints: Endpoints,
}

/// Returns the frontends and endpoints of all elements that differ: first those of the installed table, then those of
/// the desired table.
///
/// The results omit equal elements, because sets of thousands of elements would take most of the time of a change. An
/// endpoint whose index has changed is in both results.
fn find_changed_rules(
    family: Family,
    installed: Option<&Table>,
    desired: &Table,
) -> (ChangedRules, ChangedRules) {
    let changed_in_set = |name| {
        let installed = installed.map_or(&[][..], |table| family_set(table, family, name));
        find_changed_elements(installed, family_set(desired, family, name))
    };
    let (old_frontends, new_frontends) = changed_in_set("services");
    let (old_endpoints, new_endpoints) = changed_in_set("endpoints");
    let build_changed_rules = |frontends: Vec<&Element>, endpoints: Vec<&Element>| ChangedRules {
        frontends: frontends.into_iter().filter_map(|element| parse_service(family, element)).collect(),
        endpoints: endpoints.into_iter().filter_map(|element| parse_endpoint(family, element)).collect(),
    };
    (build_changed_rules(old_frontends, old_endpoints), build_changed_rules(new_frontends, new_endpoints))
}

/// Compares two sorted lists. Returns the elements that only the old list has, and the elements that only the new list
/// has. A changed element is in both results.
fn find_changed_elements<'a>(old: &'a [Element], new: &'a [Element]) -> (Vec<&'a Element>, Vec<&'a Element>) {
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
    use crate::probe::PeerPath;
    use crate::table::NodeTables;

    fn table(protocol: Protocol, endpoints: &[(u8, u8)]) -> Table {
        let endpoints = endpoints.iter().map(|(number, node)| endpoint(*number, *node)).collect();
        let port = ServicePort { protocol, port: NonZeroU16::new(53).unwrap(), endpoints };
        let service = Service { families: vec![Family::V4], ports: vec![port], ..service() };
        NodeTables::new(&NodeConfig { services: vec![service], ..config() }).inet
    }

    fn find(installed: Option<&Table>, desired: &Table, now: Instant) -> StaleFlows {
        StaleFlows::find(Family::V4, installed, desired, now)
    }

    /// Returns the conntrack entry of a flow to the frontend of [`table`]. The endpoint of the flow is 10.244.1.10.
    fn entry(protocol: Protocol, mark: u32, has_reply: bool) -> Entry {
        let client = "192.0.2.1:4000".parse().unwrap();
        let original_destination = SocketAddr::new(config().node.addresses[0], 53);
        let reply_source = "10.244.1.10:8080".parse().unwrap();
        let flow = Flow { protocol, client, original_destination, reply_source };
        Entry { flow, reply_destination: client, zone: 0, mark, has_reply }
    }

    #[test]
    fn flows_to_lost_endpoints_are_stale_except_answered_connections() {
        let now = Instant::now();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let (old, new) = (table(protocol, &[(10, 1), (11, 2)]), table(protocol, &[(11, 2), (12, 1)]));
            let flows = find(Some(&old), &new, now);
            assert!(flows.filter(Family::V4).is_some_and(|filter| filter.mark.is_some()));
            assert!(flows.contains(&entry(protocol, TRANSLATED_FLOW_BIT, false), now));
            assert_eq!(
                flows.contains(&entry(protocol, TRANSLATED_FLOW_BIT, true), now),
                protocol == Protocol::Udp
            );
            assert!(!flows.contains(&entry(protocol, 0, false), now));
            // The second endpoint remains, with another index.
            let mut remaining_flow = entry(protocol, TRANSLATED_FLOW_BIT, false);
            remaining_flow.flow.reply_source = "10.244.2.11:8080".parse().unwrap();
            assert!(!flows.contains(&remaining_flow, now));
        }
    }

    /// Returns a table with a UDP endpoint on node 2. These paths to node 2 keep the client's address.
    fn table_with_paths(paths: &[(Family, PeerPath)]) -> Table {
        let port = ServicePort {
            protocol: Protocol::Udp,
            port: NonZeroU16::new(53).unwrap(),
            endpoints: vec![endpoint(10, 2)],
        };
        let services = vec![Service { families: vec![Family::V4], ports: vec![port], ..service() }];
        let mut config = NodeConfig { services, ..config() };
        config.peers[0].set_paths(paths.iter().copied().collect());
        NodeTables::new(&config).inet
    }

    #[test]
    fn udp_flow_with_client_address_becomes_stale_without_a_working_path() {
        let lost_at = Instant::now();
        let stale_at = lost_at + LOST_PATH_RETENTION_TIME;
        let (tunnel, without_path) =
            (table_with_paths(&[(Family::V4, PeerPath::Tunnel)]), table_with_paths(&[]));
        let flows = find(Some(&tunnel), &without_path, lost_at);
        assert_eq!(flows.stale_at(lost_at), Some(stale_at));
        let mut flow = entry(Protocol::Udp, TRANSLATED_FLOW_BIT, true);
        flow.flow.reply_source = "10.244.2.10:8080".parse().unwrap();
        assert!(!flows.contains(&flow, lost_at) && flows.contains(&flow, stale_at));
        let masqueraded_flow = Entry { mark: TRANSLATED_FLOW_BIT | MASQUERADED_FLOW_BIT, ..flow };
        assert!(!flows.contains(&masqueraded_flow, stale_at));
        for unchanged in [table_with_paths(&[(Family::V4, PeerPath::Direct)]), tunnel.clone()] {
            assert_eq!(find(Some(&tunnel), &unchanged, lost_at), StaleFlows::default());
        }
        assert_eq!(find(Some(&without_path), &tunnel, lost_at), StaleFlows::default());
    }

    #[test]
    fn flows_of_a_lost_path_are_not_stale_if_the_path_works_again() {
        let lost_at = Instant::now();
        let later = lost_at + Duration::from_secs(1);
        let (direct, without_path) =
            (table_with_paths(&[(Family::V4, PeerPath::Direct)]), table_with_paths(&[]));
        let find_after_loss = |installed, desired| {
            let mut flows = find(Some(installed), desired, later);
            flows.extend(Family::V4, find(Some(&direct), &without_path, lost_at), desired);
            flows
        };
        assert_eq!(find_after_loss(&without_path, &direct), StaleFlows::default());
        // Another change does not affect the time.
        let mut flows = find_after_loss(&without_path, &without_path);
        let stale_at = lost_at + LOST_PATH_RETENTION_TIME;
        assert_eq!(flows.stale_at(later), Some(stale_at));
        flows.retain_delayed(later);
        assert_eq!(flows.stale_at(later), Some(stale_at));
        flows.retain_delayed(stale_at);
        assert_eq!(flows, StaleFlows::default());
    }

    #[test]
    fn udp_flows_of_new_and_lost_frontends_are_stale() {
        let now = Instant::now();
        let table_with_frontend = table(Protocol::Udp, &[(10, 1)]);
        let table_without_frontend = NodeTables::new(&config()).inet;
        let flows = find(None, &table_with_frontend, now);
        assert!(flows.contains(&entry(Protocol::Udp, 0, true), now));
        assert!(!flows.contains(&entry(Protocol::Udp, TRANSLATED_FLOW_BIT, true), now));
        assert!(flows.filter(Family::V4).is_some_and(|filter| filter.mark.is_none()));
        let flows = find(Some(&table_with_frontend), &table_without_frontend, now);
        assert!(flows.contains(&entry(Protocol::Udp, TRANSLATED_FLOW_BIT, true), now));
        // A TCP connection that is older than the rules belongs to another program.
        assert_eq!(find(None, &table(Protocol::Tcp, &[(10, 1)]), now).filter(Family::V4), None);
    }
}
