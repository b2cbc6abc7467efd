//! The layouts of networks, and the addresses in a network with two nodes. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The number of nodes in a variant's network, and the node of the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One node. The client and the backend have their own networks.
    OneNode,
    /// Two nodes and a client on one segment. The backend is on the node to which the client sends packets.
    LocalBackend,
    /// Two nodes and a client on one segment. The backend is on the other node.
    RemoteBackend,
}

impl Layout {
    /// Returns the number of the backend's node.
    pub(crate) const fn backend_node(self) -> u8 {
        match self {
            Self::OneNode | Self::LocalBackend => NODES[0],
            Self::RemoteBackend => NODES[1],
        }
    }
}

/// The interface of the client, of each node on the segment, and of each pod.
pub(crate) const INTERFACE: &str = "eth0";
/// The client.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 100);
/// The range of the pods of all nodes.
pub(crate) const POD_RANGES: [&str; 2] = ["10.244.0.0/16", "fd44::/16"];
/// The numbers of the nodes. Clients send packets to the first node.
pub(crate) const NODES: [u8; 2] = [1, 2];
/// The last byte of the proxy pod's address.
const PROXY_HOST: u8 = 99;
/// The last byte of the address of the pod with clients.
const CLIENT_HOST: u8 = 98;
/// The last byte of the backend's first address.
const FIRST_BACKEND_HOST: u8 = 10;

/// Returns the IPv4 address of a node.
pub(crate) const fn node_address(node: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, 10 + node)
}

/// Returns the addresses of a node. The IPv6 address only makes the agent's table as large as on a real node.
pub(crate) fn node_addresses(node: u8) -> Vec<IpAddr> {
    vec![node_address(node).into(), Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, u16::from(node)).into()]
}

/// Returns the MAC address of a node on the segment.
pub(crate) const fn node_mac(node: u8) -> [u8; 6] {
    [0x02, 0, 0, 0, 0, node]
}

/// Returns the address of the node in the networks of its pods.
pub(crate) const fn pod_gateway(node: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, node, 1)
}

/// The address of a pod with clients, which runs on the first node.
pub(crate) const CLIENT_POD: Ipv4Addr = Ipv4Addr::new(10, 244, NODES[0], CLIENT_HOST);
/// The address of the proxy pod, which runs on the first node.
pub(crate) const PROXY: Ipv4Addr = Ipv4Addr::new(10, 244, NODES[0], PROXY_HOST);

/// Returns the addresses of a backend on a node.
pub(crate) fn backend_addresses(node: u8, count: u8) -> Vec<Ipv4Addr> {
    (0..count).map(|number| Ipv4Addr::new(10, 244, node, FIRST_BACKEND_HOST + number)).collect()
}
