//! Determines the paths to peers from the reports of the probe, and from the table of an earlier process. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use akrobateo_core::Family;
use netfilter::nft::Table;

use crate::config::{NodeConfig, Peer};
use crate::marks;
use crate::probe::{ForwardingMode, MasqueradeReason, PeerPath, Target, TargetId};
use crate::table::{last_paths_in_table, paths_in_table};

/// The forwarding modes of all peers, as the probe reports them.
pub type Modes = BTreeMap<TargetId, ForwardingMode>;

/// The path for each peer and family. A peer without a path is not in the map.
pub(super) type PeerPaths = BTreeMap<TargetId, PeerPath>;

/// Returns the new paths after a report of the probe. A peer keeps its path while the probe is undecided about the
/// peer. After a restart of the agent, the probe is undecided for some time, and the paths do not change.
pub(super) fn choose_paths(paths: &PeerPaths, modes: &Modes) -> PeerPaths {
    let next_path = |(id, mode): (&TargetId, &ForwardingMode)| {
        let path = match mode {
            ForwardingMode::Keep(path) => Some(*path),
            ForwardingMode::Masquerade(MasqueradeReason::Undecided) => paths.get(id).copied(),
            ForwardingMode::Masquerade(_) => None,
        };
        path.map(|path| (*id, path))
    };
    modes.iter().filter_map(next_path).collect()
}

/// Returns the last working path to each peer, after the paths have changed. A peer about which the probe has no report
/// does not exist any more.
pub(super) fn choose_last_paths(last_paths: &PeerPaths, paths: &PeerPaths, modes: &Modes) -> PeerPaths {
    let remaining_paths = last_paths.iter().filter(|(id, _)| modes.contains_key(id));
    remaining_paths.chain(paths).map(|(id, path)| (*id, *path)).collect()
}

/// Returns true if the probe must try the tunnel, because the direct path to a peer does not work. For a peer about
/// which the probe is undecided, the previous result `was_probed` counts.
pub(super) fn must_probe_tunnel(modes: &Modes, was_probed: bool) -> bool {
    modes.values().any(|mode| match mode {
        ForwardingMode::Keep(PeerPath::Direct) => false,
        ForwardingMode::Masquerade(MasqueradeReason::Undecided) => was_probed,
        ForwardingMode::Keep(PeerPath::Tunnel) | ForwardingMode::Masquerade(_) => true,
    })
}

/// Returns the paths that an earlier process has installed.
pub(super) fn find_installed_paths(table: &Table) -> PeerPaths {
    peer_paths(paths_in_table(table))
}

/// Returns the paths of established flows that an earlier process has installed.
pub(super) fn find_installed_last_paths(table: &Table) -> PeerPaths {
    peer_paths(last_paths_in_table(table))
}

fn peer_paths(paths_of_zones: Vec<(Family, u16, PeerPath)>) -> PeerPaths {
    let path_of_zone = |(family, zone, path)| {
        let peer = marks::node_of_conntrack_zone(zone)?;
        Some((TargetId { peer, family }, path))
    };
    paths_of_zones.into_iter().filter_map(path_of_zone).collect()
}

/// Removes the paths to peers whose number now belongs to another node. The probe finds the paths to the new node.
pub(super) fn forget_replaced_peers(paths: &mut PeerPaths, old_peers: &[Peer], new_peers: &[Peer]) {
    let addresses = |peers: &[Peer], number| {
        peers.iter().find(|peer| peer.number == number).map(|peer| peer.addresses.clone())
    };
    paths.retain(|id, _| match (addresses(old_peers, id.peer), addresses(new_peers, id.peer)) {
        (Some(old), Some(new)) => old.iter().any(|address| new.contains(address)),
        _ => true,
    });
}

/// Replaces the paths of all peers in the configuration.
pub(super) fn set_paths(config: &mut NodeConfig, paths: &PeerPaths, last_paths: &PeerPaths) {
    for peer in &mut config.peers {
        let paths_of_peer = |paths: &PeerPaths| {
            let path_of_family =
                |family: Family| Some((family, *paths.get(&TargetId { peer: peer.number, family })?));
            Family::ALL.into_iter().filter_map(path_of_family).collect()
        };
        (peer.paths, peer.last_paths) = (paths_of_peer(paths), paths_of_peer(last_paths));
    }
}

/// Returns the targets of the probe: one target for each peer and family, if both nodes have an address of the family.
/// `tunnel_exists` is false if the kernel could not create the tunnel.
pub(super) fn build_probe_targets(config: &NodeConfig, tunnel_exists: bool) -> Vec<Target> {
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
                pod_range_address: first_of_family(&peer.probe_addresses)?,
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
    fn peer_keeps_its_path_while_the_probe_is_undecided() {
        let paths = PeerPaths::from([(PEER_2_IPV4, PeerPath::Direct), (PEER_3_IPV6, PeerPath::Tunnel)]);
        let undecided_mode = ForwardingMode::Masquerade(MasqueradeReason::Undecided);
        let modes = Modes::from([
            (PEER_2_IPV4, undecided_mode),
            (PEER_3_IPV6, ForwardingMode::Keep(PeerPath::Direct)),
        ]);
        assert_eq!(
            choose_paths(&paths, &modes),
            PeerPaths::from([(PEER_2_IPV4, PeerPath::Direct), (PEER_3_IPV6, PeerPath::Direct)])
        );
        let unanswered_mode = ForwardingMode::Masquerade(MasqueradeReason::NoAnswer);
        let modes = Modes::from([(PEER_2_IPV4, unanswered_mode)]);
        assert_eq!(choose_paths(&paths, &modes), PeerPaths::new());
    }

    #[test]
    fn last_path_remains_until_another_path_works_or_the_peer_is_gone() {
        let last_paths = PeerPaths::from([(PEER_2_IPV4, PeerPath::Tunnel), (PEER_3_IPV6, PeerPath::Tunnel)]);
        let unanswered_mode = ForwardingMode::Masquerade(MasqueradeReason::NoAnswer);
        let modes = Modes::from([(PEER_2_IPV4, unanswered_mode)]);
        let remaining_path = PeerPaths::from([(PEER_2_IPV4, PeerPath::Tunnel)]);
        assert_eq!(choose_last_paths(&last_paths, &PeerPaths::new(), &modes), remaining_path);
        let paths = PeerPaths::from([(PEER_2_IPV4, PeerPath::Direct)]);
        assert_eq!(choose_last_paths(&last_paths, &paths, &modes), paths);
    }

    #[test]
    fn path_of_a_replaced_peer_is_forgotten() {
        let old_peers = config().peers;
        let paths = PeerPaths::from([(PEER_2_IPV4, PeerPath::Direct), (PEER_3_IPV6, PeerPath::Tunnel)]);
        let remaining_paths = |new_peers: &[Peer]| {
            let mut paths = paths.clone();
            forget_replaced_peers(&mut paths, &old_peers, new_peers);
            paths.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(remaining_paths(&old_peers), [PEER_2_IPV4, PEER_3_IPV6]);
        let mut new_peers = old_peers.clone();
        new_peers[0].addresses = vec!["10.99.0.77".parse().unwrap()];
        // A peer that keeps one of its addresses is the same node, even if the MAC address differs.
        new_peers[1].addresses.push("10.99.0.78".parse().unwrap());
        new_peers[1].mac = "02:00:00:00:00:77".parse().unwrap();
        assert_eq!(remaining_paths(&new_peers), [PEER_3_IPV6]);
        // A peer may be absent for some time, for example while its agent restarts.
        assert_eq!(remaining_paths(&[]), [PEER_2_IPV4, PEER_3_IPV6]);
    }

    #[test]
    fn probe_must_try_the_tunnel_if_a_direct_path_does_not_work() {
        let modes =
            |mode| Modes::from([(PEER_2_IPV4, ForwardingMode::Keep(PeerPath::Direct)), (PEER_3_IPV6, mode)]);
        let undecided_mode = ForwardingMode::Masquerade(MasqueradeReason::Undecided);
        for (mode, was_probed, is_needed) in [
            (ForwardingMode::Keep(PeerPath::Direct), true, false),
            (ForwardingMode::Keep(PeerPath::Tunnel), false, true),
            (ForwardingMode::Masquerade(MasqueradeReason::NoAnswer), false, true),
            (undecided_mode, false, false),
            (undecided_mode, true, true),
        ] {
            assert_eq!(must_probe_tunnel(&modes(mode), was_probed), is_needed, "{mode:?}");
        }
    }

    #[test]
    fn paths_are_found_in_the_table_of_an_earlier_process() {
        let paths = PeerPaths::from([(PEER_2_IPV4, PeerPath::Direct), (PEER_3_IPV6, PeerPath::Tunnel)]);
        let mut config = config();
        config.services = vec![service()];
        config.services[0].ports = vec![crate::config::ServicePort {
            protocol: akrobateo_core::Protocol::Tcp,
            port: std::num::NonZeroU16::MIN,
            endpoints: vec![endpoint(10, 2)],
        }];
        set_paths(&mut config, &paths, &paths);
        assert_eq!(find_installed_paths(&NodeTables::new(&config).inet), paths);
        // The tunnel was lost, but its flows may still exist.
        set_paths(&mut config, &PeerPaths::new(), &paths);
        let table = NodeTables::new(&config).inet;
        assert_eq!(find_installed_paths(&table), PeerPaths::new());
        assert_eq!(find_installed_last_paths(&table).get(&PEER_3_IPV6), Some(&PeerPath::Tunnel));
    }
}
