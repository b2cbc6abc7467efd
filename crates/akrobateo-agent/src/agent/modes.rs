//! Determines the ways to peers from the reports of the probe, and from the table of an earlier process. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use akrobateo_core::Family;
use netfilter::nft::Table;

use crate::config::{NodeConfig, Peer};
use crate::marks;
use crate::probe::{ForwardingMode, MasqueradeReason, Target, TargetId, Way};
use crate::table::ways_in_table;

/// The forwarding modes of all peers, as the probe reports them.
pub type Modes = BTreeMap<TargetId, ForwardingMode>;

/// The way for each peer and family. A peer without a way is not in the map.
pub(super) type Ways = BTreeMap<TargetId, Way>;

/// Returns the ways after a report of the probe. A peer keeps its way while the probe is undecided about the peer.
/// Therefore a restart of the agent does not change the ways.
pub(super) fn next_ways(ways: &Ways, modes: &Modes) -> Ways {
    let next_way = |(id, mode): (&TargetId, &ForwardingMode)| {
        let way = match mode {
            ForwardingMode::Keep(way) => Some(*way),
            ForwardingMode::Masquerade(MasqueradeReason::Undecided) => ways.get(id).copied(),
            ForwardingMode::Masquerade(_) => None,
        };
        way.map(|way| (*id, way))
    };
    modes.iter().filter_map(next_way).collect()
}

/// Returns true if the probe must try the tunnel, because the direct way to a peer does not work. While the probe is
/// undecided about a peer, the previous answer `was_needed` stays valid.
pub(super) fn needs_tunnel(modes: &Modes, was_needed: bool) -> bool {
    modes.values().any(|mode| match mode {
        ForwardingMode::Keep(Way::Direct) => false,
        ForwardingMode::Masquerade(MasqueradeReason::Undecided) => was_needed,
        ForwardingMode::Keep(Way::Tunnel) | ForwardingMode::Masquerade(_) => true,
    })
}

/// Returns the ways that an earlier process has installed.
pub(super) fn installed_ways(table: &Table) -> Ways {
    let mut ways = Ways::new();
    for (family, zone, way) in ways_in_table(table) {
        if let Some(peer) = marks::node_of_zone(zone) {
            ways.insert(TargetId { peer, family }, way);
        }
    }
    ways
}

/// Removes the ways to peers whose number now belongs to another node. The probe finds the ways to the new node.
pub(super) fn forget_replaced_peers(ways: &mut Ways, old_peers: &[Peer], new_peers: &[Peer]) {
    let addresses = |peers: &[Peer], number| {
        peers.iter().find(|peer| peer.number == number).map(|peer| peer.addresses.clone())
    };
    ways.retain(|id, _| match (addresses(old_peers, id.peer), addresses(new_peers, id.peer)) {
        (Some(old), Some(new)) => old.iter().any(|address| new.contains(address)),
        _ => true,
    });
}

/// Replaces the ways of all peers in the configuration.
pub(super) fn set_ways(config: &mut NodeConfig, ways: &Ways) {
    for peer in &mut config.peers {
        let way_of_family =
            |family: Family| Some((family, *ways.get(&TargetId { peer: peer.number, family })?));
        peer.ways = Family::ALL.into_iter().filter_map(way_of_family).collect();
    }
}

/// Returns the targets of the probe: each peer, in each family in which both nodes have an address. `tunnel_exists` is
/// false if the kernel could not create the tunnel.
pub(super) fn probe_targets(config: &NodeConfig, tunnel_exists: bool) -> Vec<Target> {
    let has_tunnel = |addresses: &[IpAddr]| {
        let underlay_family = config.node.addresses.first().map(|ip| Family::from_ip(*ip));
        tunnel_exists
            && config.needs_tunnel()
            && addresses.iter().any(|ip| Some(Family::from_ip(*ip)) == underlay_family)
    };
    let family_targets = |family: Family| {
        config.peers.iter().filter_map(move |peer| {
            let first_of_family =
                |addresses: &[IpAddr]| addresses.iter().copied().find(|ip| Family::from_ip(*ip) == family);
            Some(Target {
                id: TargetId { peer: peer.number, family },
                node_address: first_of_family(&peer.addresses)?,
                pod_address: first_of_family(&peer.probe_addresses)?,
                has_tunnel: has_tunnel(&peer.addresses),
            })
        })
    };
    config.families().into_iter().flat_map(family_targets).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixtures::{config, endpoint, service};
    use crate::table::NodeTables;

    const PEER_2_IPV4: TargetId = TargetId { peer: 2, family: Family::V4 };
    const PEER_3_IPV6: TargetId = TargetId { peer: 3, family: Family::V6 };

    #[test]
    fn undecided_peer_keeps_its_way() {
        let ways = Ways::from([(PEER_2_IPV4, Way::Direct), (PEER_3_IPV6, Way::Tunnel)]);
        let undecided_mode = ForwardingMode::Masquerade(MasqueradeReason::Undecided);
        let modes =
            Modes::from([(PEER_2_IPV4, undecided_mode), (PEER_3_IPV6, ForwardingMode::Keep(Way::Direct))]);
        assert_eq!(
            next_ways(&ways, &modes),
            Ways::from([(PEER_2_IPV4, Way::Direct), (PEER_3_IPV6, Way::Direct)])
        );
        let unanswered_mode = ForwardingMode::Masquerade(MasqueradeReason::NoAnswer);
        let modes = Modes::from([(PEER_2_IPV4, unanswered_mode)]);
        assert_eq!(next_ways(&ways, &modes), Ways::new());
    }

    #[test]
    fn way_of_a_replaced_peer_is_forgotten() {
        let old_peers = config().peers;
        let ways = Ways::from([(PEER_2_IPV4, Way::Direct), (PEER_3_IPV6, Way::Tunnel)]);
        let remaining_ways = |new_peers: &[Peer]| {
            let mut ways = ways.clone();
            forget_replaced_peers(&mut ways, &old_peers, new_peers);
            ways.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(remaining_ways(&old_peers), [PEER_2_IPV4, PEER_3_IPV6]);
        let mut new_peers = old_peers.clone();
        new_peers[0].addresses = vec!["10.99.0.77".parse().unwrap()];
        // A peer that keeps one of its addresses is the same node, even if it has another MAC address.
        new_peers[1].addresses.push("10.99.0.78".parse().unwrap());
        new_peers[1].mac = "02:00:00:00:00:77".parse().unwrap();
        assert_eq!(remaining_ways(&new_peers), [PEER_3_IPV6]);
        // A peer may be absent for some time, for example while its agent restarts.
        assert_eq!(remaining_ways(&[]), [PEER_2_IPV4, PEER_3_IPV6]);
    }

    #[test]
    fn tunnel_is_needed_if_a_direct_way_does_not_work() {
        let modes =
            |mode| Modes::from([(PEER_2_IPV4, ForwardingMode::Keep(Way::Direct)), (PEER_3_IPV6, mode)]);
        let undecided_mode = ForwardingMode::Masquerade(MasqueradeReason::Undecided);
        for (mode, was_needed, is_needed) in [
            (ForwardingMode::Keep(Way::Direct), true, false),
            (ForwardingMode::Keep(Way::Tunnel), false, true),
            (ForwardingMode::Masquerade(MasqueradeReason::NoAnswer), false, true),
            (undecided_mode, false, false),
            (undecided_mode, true, true),
        ] {
            assert_eq!(needs_tunnel(&modes(mode), was_needed), is_needed, "{mode:?}");
        }
    }

    #[test]
    fn ways_are_found_in_the_table_of_an_earlier_process() {
        let ways = Ways::from([(PEER_2_IPV4, Way::Direct), (PEER_3_IPV6, Way::Tunnel)]);
        let mut config = config();
        config.services = vec![service()];
        config.services[0].ports = vec![crate::config::ServicePort {
            protocol: akrobateo_core::Protocol::Tcp,
            port: std::num::NonZeroU16::MIN,
            endpoints: vec![endpoint(10, 2)],
        }];
        set_ways(&mut config, &ways);
        assert_eq!(installed_ways(&NodeTables::new(&config).inet), ways);
    }
}
