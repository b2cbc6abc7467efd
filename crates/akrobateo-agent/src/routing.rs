//! The objects of the routing policy that send marked packets to peers. Pure.
//!
//! With the egress hook, the tunnel needs one routing rule per family, and the direct path needs none ([`tunnel`]).
//! Without the hook (Linux before 5.16), each path to each peer has its own routing rule and table. The kernel examines
//! rules one after another. To save time, packets without a mark of the agent skip the rules of the peers:
//!
//! ```text
//! 96: not fwmark 0x6b000000/0xff000000 goto 98
//! 97: fwmark 0x6b800002/0xffc03fff lookup 0x6b730002   # default via 10.99.0.12 dev eth0 onlink
//! 97: fwmark 0x6b400002/0xffc03fff lookup 0x6b720002   # default via 169.254.192.2 dev akr0 onlink
//! 98: nop
//! ```
//!
//! The next hop in the tunnel is an address that no node has. A permanent neighbour gives the next hop the MAC address
//! of the peer in the tunnel.

use std::net::IpAddr;

use akrobateo_core::family::Family;
use links::{MaskedMark, NetworkObjects, Route, RouteDevice, Rule, RuleAction, RuleCondition};

use crate::config::{NodeConfig, Peer};
use crate::marks::{OWN_MARK_MASK, PEER_MARK_MASK};
use crate::tunnel::{self, TUNNEL_RULE_PRIORITY, Tunnel, default_destination, tunnel_mac};

/// The priority of the rules of the peers.
const PEER_RULE_PRIORITY: u32 = TUNNEL_RULE_PRIORITY + 1;
/// The priority of the rule at which packets without a mark of the agent continue.
const SKIP_TARGET_RULE_PRIORITY: u32 = TUNNEL_RULE_PRIORITY + 2;
/// The number of the first routing table of the direct path. The table of a peer has this number plus the number of the
/// peer.
const FIRST_DIRECT_ROUTING_TABLE: u32 = 0x6b73_0000;

/// Returns the objects that the kernel needs for the paths to the peers. `uplink` is the interface index of the uplink.
#[must_use]
pub fn network_objects(config: &NodeConfig, uplink: u32) -> NetworkObjects {
    if !config.keeps_client_addresses() {
        return NetworkObjects::default();
    }
    let tunnel = Tunnel::new(config).filter(|_| config.needs_tunnel());
    let objects = tunnel.as_ref().map(Tunnel::network_objects).unwrap_or_default();
    if config.node.has_egress_hook {
        return objects;
    }
    let families = config.families_of_node_and_peers();
    let mut objects = NetworkObjects {
        neighbours: [].into(),
        routes: [].into(),
        rules: families.iter().flat_map(|family| build_skip_rules(config, *family)).collect(),
        ..objects
    };
    for family in families {
        for peer in &config.peers {
            add_direct_path(&mut objects, config, peer, family, uplink);
            if tunnel.as_ref().is_some_and(|tunnel| tunnel.peers.contains_key(&peer.number)) {
                add_tunnel(&mut objects, config, peer, family);
            }
        }
    }
    objects
}

/// Returns the rules with which packets without a mark of the agent skip the rules of the peers.
fn build_skip_rules(config: &NodeConfig, family: Family) -> [Rule; 2] {
    let own_mark = MaskedMark { value: config.node.marks.own_bits, mask: OWN_MARK_MASK };
    let rule = |priority, condition, action| Rule { family, priority, condition, action };
    [
        rule(
            TUNNEL_RULE_PRIORITY,
            RuleCondition::LacksMark(own_mark),
            RuleAction::Goto(SKIP_TARGET_RULE_PRIORITY),
        ),
        rule(SKIP_TARGET_RULE_PRIORITY, RuleCondition::All, RuleAction::Continue),
    ]
}

/// Adds the direct path of replies: through the uplink to the peer's own address.
fn add_direct_path(
    objects: &mut NetworkObjects,
    config: &NodeConfig,
    peer: &Peer,
    family: Family,
    uplink: u32,
) {
    if let Some(gateway) = peer.addresses.iter().copied().find(|ip| Family::from_ip(*ip) == family) {
        let table = FIRST_DIRECT_ROUTING_TABLE + u32::from(peer.number);
        let mark = config.node.marks.direct_mark(peer.number);
        add_route(objects, mark, Route { device: RouteDevice::Other(uplink), ..route(table, gateway) });
    }
}

fn add_tunnel(objects: &mut NetworkObjects, config: &NodeConfig, peer: &Peer, family: Family) {
    let next_hop = tunnel::next_hop(family, peer.number);
    let table = tunnel::TUNNEL_ROUTING_TABLE + u32::from(peer.number);
    objects.neighbours.insert(next_hop, tunnel_mac(peer.number));
    add_route(objects, config.node.marks.tunnel_mark(peer.number), route(table, next_hop));
}

/// Returns the default route of a table, through the tunnel.
fn route(table: u32, gateway: IpAddr) -> Route {
    Route { table, destination: default_destination(gateway), gateway, device: RouteDevice::Tunnel }
}

/// Adds a route, and the rule that sends packets with a mark to the route's table.
fn add_route(objects: &mut NetworkObjects, mark: u32, route: Route) {
    objects.rules.insert(Rule {
        family: Family::from_ip(route.gateway),
        priority: PEER_RULE_PRIORITY,
        condition: RuleCondition::HasMark(MaskedMark { value: mark & PEER_MARK_MASK, mask: PEER_MARK_MASK }),
        action: RuleAction::Table(route.table),
    });
    objects.routes.insert(route);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixtures::{config, masqueraded_service, service};
    use crate::probe::PeerPath;

    fn config_without_egress_hook(path: PeerPath) -> NodeConfig {
        let mut config = NodeConfig { services: vec![service()], ..config() };
        config.node.has_egress_hook = false;
        config.peers[0].set_paths(Family::ALL.map(|family| (family, path)).into());
        config
    }

    #[test]
    fn node_without_packets_of_remote_clients_needs_no_routing_objects() {
        for has_egress_hook in [true, false] {
            let mut config = config_without_egress_hook(PeerPath::Tunnel);
            config.node.has_egress_hook = has_egress_hook;
            for config in [
                NodeConfig { services: vec![masqueraded_service()], ..config.clone() },
                NodeConfig { peers: Vec::new(), ..config },
            ] {
                assert_eq!(network_objects(&config, 2), NetworkObjects::default());
            }
        }
    }

    #[test]
    fn direct_path_needs_objects_only_without_the_egress_hook() {
        let mut config = config_without_egress_hook(PeerPath::Direct);
        let objects = network_objects(&config, 2);
        assert_eq!((objects.device, objects.neighbours.len()), (None, 0));
        let gateways = objects.routes.iter().map(|route| (route.gateway, route.device));
        let addresses = config.peers.iter().flat_map(|peer| peer.addresses.clone());
        let mut expected: Vec<_> = addresses.map(|address| (address, RouteDevice::Other(2))).collect();
        let mut gateways: Vec<_> = gateways.collect();
        expected.sort_unstable();
        gateways.sort_unstable();
        assert_eq!(gateways, expected);
        config.node.has_egress_hook = true;
        assert_eq!(network_objects(&config, 2), NetworkObjects::default());
    }

    #[test]
    fn packets_without_a_mark_of_the_agent_pass_only_two_rules_of_each_family() {
        let config = config_without_egress_hook(PeerPath::Tunnel);
        let objects = network_objects(&config, 2);
        assert!(objects.device.is_some());
        let is_for_marked_packets = |rule: &&Rule| matches!(rule.condition, RuleCondition::HasMark(_));
        for family in Family::ALL {
            let rules: Vec<_> = objects.rules.iter().filter(|rule| rule.family == family).collect();
            let peer_rules = rules.iter().copied().filter(is_for_marked_packets);
            // Two peers have two paths each. The first rule has a goto to the last rule, and the rules of all peers are
            // between these two rules.
            assert_eq!(peer_rules.clone().count(), 4);
            assert!(peer_rules.clone().all(|rule| rule.priority == PEER_RULE_PRIORITY));
            assert_eq!(rules.len(), 6);
            assert!(rules.iter().any(|rule| {
                rule.priority < PEER_RULE_PRIORITY
                    && rule.action == RuleAction::Goto(SKIP_TARGET_RULE_PRIORITY)
            }));
            assert!(rules.iter().any(|rule| rule.priority == SKIP_TARGET_RULE_PRIORITY));
        }
        // Each path to each peer has its own routing table.
        let tables: std::collections::BTreeSet<_> =
            objects.routes.iter().map(|route| (Family::from_ip(route.gateway), route.table)).collect();
        assert_eq!(tables.len(), objects.routes.len());
    }
}
