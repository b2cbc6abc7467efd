//! Configurations for tests.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use akrobateo_core::Family;
use links::MacAddress;

use super::{Endpoint, LocalNode, NodeConfig, Peer, Service};
use crate::marks::{Marks, NodeNumber};

pub(crate) fn node_address(family: Family, number: NodeNumber) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from(0x0a63_0000 + u32::from(number)).into(),
        Family::V6 => Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, number).into(),
    }
}

pub(crate) fn local_node(number: NodeNumber) -> LocalNode {
    LocalNode {
        number,
        name: format!("node{number}"),
        zone: Some(format!("zone{number}")),
        addresses: Family::ALL.map(|family| node_address(family, number)).into(),
        uplink: "eth0".to_owned(),
        uplink_mtu: 1500,
        probe_addresses: Vec::new(),
        has_egress_hook: true,
        marks: Marks::default(),
    }
}

pub(crate) fn peer(number: NodeNumber) -> Peer {
    let [high, low] = number.to_be_bytes();
    Peer {
        number,
        addresses: Family::ALL.map(|family| node_address(family, number)).into(),
        mac: MacAddress([2, 0, 0, 0, high, low]),
        probe_addresses: Vec::new(),
        paths: BTreeMap::new(),
        last_paths: BTreeMap::new(),
        is_silent: false,
    }
}

/// Returns the configuration of node 1, with the peers 2 and 3, and without Services.
pub(crate) fn config() -> NodeConfig {
    NodeConfig {
        node: local_node(1),
        pod_ranges: ["10.244.0.0/16", "fd44::/16"].map(|range| range.parse().unwrap()).into(),
        peers: vec![peer(2), peer(3)],
        probes_tunnel: false,
        recognizes_clients: false,
        services: Vec::new(),
    }
}

pub(crate) fn service() -> Service {
    Service {
        name: "default/web".to_owned(),
        uid: None,
        families: Family::ALL.into(),
        is_traffic_policy_local: false,
        keeps_client_address: true,
        affinity_seconds: None,
        source_ranges: None,
        ports: Vec::new(),
    }
}

/// Returns a Service whose endpoints do not see the client's address.
pub(crate) fn masqueraded_service() -> Service {
    Service { keeps_client_address: false, ..service() }
}

/// Returns a ready endpoint with the address 10.244.`node`.`number`.
pub(crate) fn endpoint(number: u8, node: u8) -> Endpoint {
    Endpoint {
        address: SocketAddr::new(Ipv4Addr::new(10, 244, node, number).into(), 8080),
        node: Some(node.into()),
        has_node_conflict: false,
        is_ready: true,
        is_serving_while_terminating: false,
        hinted_zones: Vec::new(),
        hinted_nodes: Vec::new(),
    }
}
