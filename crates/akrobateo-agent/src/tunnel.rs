//! The objects that the kernel needs for the tunnel between the nodes. Pure.
//!
//! The mark of a packet sends the packet into the tunnel ([`Marks::tunnel_mark`]): one rule and one route per family
//! send the packet to the device. The next hop of the route is an address that no node has, with a fixed MAC address.
//! The table's egress hook replaces this MAC address by the MAC address of the node whose number is in the mark. The
//! number of rules and routes therefore does not grow with the number of nodes. Without the egress hook, each peer has
//! its own rule and route ([`crate::routing`]).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use akrobateo_core::family::Family;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use links::{
    Device, MacAddress, MaskedMark, NetworkObjects, Owner, Route, RouteDevice, Rule, RuleAction,
    RuleCondition,
};

use crate::config::NodeConfig;
use crate::marks::{MAX_NODE_NUMBER, Marks, NodeNumber, PURPOSE_MASK};

/// The name of the tunnel's device.
pub const TUNNEL_DEVICE: &str = "akr0";
/// The routing protocol number of the agent's routes and rules.
pub const ROUTE_PROTOCOL: u8 = 107;
/// The VXLAN network identifier.
pub const VNI: u32 = 0x61_6b72;
/// The UDP port of the tunnel.
pub const TUNNEL_PORT: u16 = 8478;
/// The priority of the tunnel's routing rules. Most network plugins use higher numbers.
pub const TUNNEL_RULE_PRIORITY: u32 = 96;
/// The number of the tunnel's routing table.
pub const TUNNEL_ROUTING_TABLE: u32 = 0x6b72_0000;
/// An address of the device. Without an address, the kernel drops IPv4 packets from the tunnel if `rp_filter` is not 0.
const TUNNEL_DEVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 107, 114);
/// The MAC address that the egress hook replaces.
pub const NEXT_HOP_MAC: MacAddress = MacAddress([0x02, 0x61, 0x6b, 0x72, 0xff, 0xff]);

/// The tunnel of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// The node's number.
    pub node: NodeNumber,
    /// The node's address, which is the source of the outer packets.
    pub local_address: IpAddr,
    /// The MTU of the uplink.
    pub uplink_mtu: u32,
    /// The addresses of the other nodes, of the same family as `local_address`.
    pub peers: BTreeMap<NodeNumber, IpAddr>,
    /// The families of the packets in the tunnel.
    pub families: Vec<Family>,
    /// The marks of this agent.
    pub marks: Marks,
}

/// Returns the owner of the tunnel's objects.
#[must_use]
pub fn owner() -> Owner {
    Owner { device: TUNNEL_DEVICE.to_owned(), protocol: ROUTE_PROTOCOL }
}

/// Returns the MAC address that a node has in the tunnel.
#[must_use]
pub const fn tunnel_mac(node: NodeNumber) -> MacAddress {
    let [high, low] = node.to_be_bytes();
    MacAddress([0x02, 0x61, 0x6b, 0x72, high, low])
}

/// Returns the MTU of the tunnel on an uplink. The outer headers need 50 bytes with IPv4, and 70 bytes with IPv6.
#[must_use]
pub fn mtu(uplink_mtu: u32, local_address: IpAddr) -> u32 {
    let headers_length = match Family::from_ip(local_address) {
        Family::V4 => 50,
        Family::V6 => 70,
    };
    uplink_mtu.saturating_sub(headers_length)
}

/// Returns the source address of the outer packets: the node's first address.
#[must_use]
pub fn underlay_address(config: &NodeConfig) -> Option<IpAddr> {
    config.node.addresses.first().copied()
}

/// Returns the MTU of a node's tunnel.
#[must_use]
pub fn tunnel_mtu_of_node(config: &NodeConfig) -> u32 {
    let uplink_mtu = config.node.uplink_mtu;
    underlay_address(config).map_or(uplink_mtu, |local_address| mtu(uplink_mtu, local_address))
}

impl Tunnel {
    /// Returns the tunnel for a configuration; `None` if the node has no address. Peers without an address of the same
    /// family as the node's first address are not in the tunnel.
    #[must_use]
    pub fn new(config: &NodeConfig) -> Option<Self> {
        let local_address = underlay_address(config)?;
        let has_same_family = |address: &IpAddr| Family::from_ip(*address) == Family::from_ip(local_address);
        let peers = config
            .peers
            .iter()
            .filter_map(|peer| Some((peer.number, peer.addresses.iter().copied().find(has_same_family)?)));
        Some(Self {
            node: config.node.number,
            local_address,
            uplink_mtu: config.node.uplink_mtu,
            peers: peers.collect(),
            families: config.families_of_node_and_peers(),
            marks: config.node.marks,
        })
    }

    /// Returns the objects that the kernel needs.
    #[must_use]
    pub fn network_objects(&self) -> NetworkObjects {
        let next_hops: Vec<_> =
            self.families.iter().map(|family| next_hop(*family, MAX_NODE_NUMBER)).collect();
        NetworkObjects {
            device: Some(Device {
                vni: VNI,
                local_address: self.local_address,
                port: TUNNEL_PORT,
                mac: tunnel_mac(self.node),
                mtu: mtu(self.uplink_mtu, self.local_address),
            }),
            addresses: [TUNNEL_DEVICE_ADDRESS.into()].into(),
            forwarding_entries: self
                .peers
                .iter()
                .map(|(peer, address)| (tunnel_mac(*peer), *address))
                .collect(),
            neighbours: next_hops.iter().map(|next_hop| (*next_hop, NEXT_HOP_MAC)).collect(),
            routes: next_hops
                .iter()
                .map(|next_hop| Route {
                    table: TUNNEL_ROUTING_TABLE,
                    destination: default_destination(*next_hop),
                    gateway: *next_hop,
                    device: RouteDevice::Tunnel,
                })
                .collect(),
            rules: self.families.iter().map(|family| self.rule(*family)).collect(),
        }
    }

    fn rule(&self, family: Family) -> Rule {
        Rule {
            family,
            priority: TUNNEL_RULE_PRIORITY,
            condition: RuleCondition::HasMark(MaskedMark {
                value: self.marks.tunnel_mark(0) & PURPOSE_MASK,
                mask: PURPOSE_MASK,
            }),
            action: RuleAction::Table(TUNNEL_ROUTING_TABLE),
        }
    }
}

/// Returns the address of the next hop for a peer in the tunnel. No node has this address. With [`MAX_NODE_NUMBER`],
/// returns the next hop that all peers share.
pub(crate) fn next_hop(family: Family, number: NodeNumber) -> IpAddr {
    let [high, low] = (number | !MAX_NODE_NUMBER).to_be_bytes();
    match family {
        Family::V4 => Ipv4Addr::new(169, 254, high, low).into(),
        Family::V6 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x6b72, u16::from_be_bytes([high, low])).into(),
    }
}

pub(crate) fn default_destination(next_hop: IpAddr) -> IpNet {
    match Family::from_ip(next_hop) {
        Family::V4 => Ipv4Net::default().into(),
        Family::V6 => Ipv6Net::default().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_of_rules_and_routes_does_not_depend_on_the_number_of_nodes() {
        let tunnel = Tunnel {
            node: 1,
            local_address: Ipv4Addr::new(10, 99, 0, 11).into(),
            uplink_mtu: 1500,
            peers: (2..=500)
                .map(|peer| (peer, Ipv4Addr::from(0x0a63_0000 + u32::from(peer)).into()))
                .collect(),
            families: Family::ALL.into(),
            marks: Marks::default(),
        };
        let objects = tunnel.network_objects();
        assert_eq!(objects.forwarding_entries.len(), 499);
        assert_eq!((objects.rules.len(), objects.routes.len(), objects.neighbours.len()), (2, 2, 2));
        assert_eq!(objects.forwarding_entries[&tunnel_mac(258)], Ipv4Addr::new(10, 99, 1, 2));
        assert_eq!(objects.device.unwrap().mtu, 1450);
    }
}
