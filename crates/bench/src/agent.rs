//! The node agent in a network with two nodes: creates the agent's configuration, and applies it. Does I/O.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;

use akrobateo_agent::config::{Endpoint, LocalNode, NodeConfig, Peer, Service, ServicePort};
use akrobateo_agent::data_path::{DataPath, DataPathError};
use akrobateo_agent::marks::Marks;
use akrobateo_agent::probe::PeerPath;
use akrobateo_core::{Family, Protocol};
use links::MacAddress;

use crate::error::BenchError;
use crate::layout::{INTERFACE, NODES, POD_RANGES, node_addresses, node_mac};
use crate::network::{Network, addr};
use crate::variant::Variant;

/// The MTU of the segment.
const UPLINK_MTU: u32 = 1500;

/// Applies the configuration on both nodes.
pub(crate) fn apply(
    network: &Network,
    path: Option<PeerPath>,
    services: &[Service],
) -> Result<(), BenchError> {
    on_each_node(network, |node, data_path| data_path.apply(&config(node, path, services)).map(drop))
}

/// Deletes everything that the agent has installed on both nodes.
pub(crate) fn clean_up(network: &Network) -> Result<(), BenchError> {
    on_each_node(network, |_, data_path| data_path.cleanup().map(drop))
}

fn on_each_node(
    network: &Network,
    action: impl Fn(u8, &mut DataPath) -> Result<(), DataPathError> + Sync,
) -> Result<(), BenchError> {
    for (namespace, node) in network.nodes.iter().zip(NODES) {
        let result = namespace.run(|| action(node, &mut DataPath::open()?));
        result.map_err(|error| data_path_error(&error))?;
    }
    Ok(())
}

/// Describes an error of the data path.
pub(crate) fn data_path_error(error: &DataPathError) -> BenchError {
    BenchError::UnexpectedState(format!("the node agent: {error}"))
}

/// Returns the configuration of a node. `path` keeps the client's address of packets to the other node.
pub(crate) fn config(node: u8, path: Option<PeerPath>, services: &[Service]) -> NodeConfig {
    NodeConfig {
        node: LocalNode {
            number: node.into(),
            name: format!("node{node}"),
            zone: None,
            addresses: node_addresses(node),
            uplink: INTERFACE.to_owned(),
            uplink_mtu: UPLINK_MTU,
            probe_addresses: Vec::new(),
            marks: Marks::default(),
            has_egress_hook: true,
        },
        pod_ranges: POD_RANGES.into_iter().filter_map(|range| range.parse().ok()).collect(),
        peers: NODES.into_iter().filter(|peer| *peer != node).map(|number| peer(number, path)).collect(),
        probes_tunnel: false,
        recognizes_clients: false,
        services: services.to_vec(),
    }
}

fn peer(number: u8, path: Option<PeerPath>) -> Peer {
    let paths: BTreeMap<_, _> =
        path.into_iter().flat_map(|path| Family::ALL.map(|family| (family, path))).collect();
    Peer {
        number: number.into(),
        addresses: node_addresses(number),
        mac: MacAddress(node_mac(number)),
        probe_addresses: Vec::new(),
        last_paths: paths.clone(),
        paths,
        is_silent: false,
    }
}

/// Returns the Services of a variant: one for each port.
pub(crate) fn services(variant: Variant) -> Vec<Service> {
    let node = variant.layout.backend_node();
    let build_endpoint = |address: &IpAddr| endpoint(SocketAddr::new(*address, addr::BACKEND_PORT), node);
    let v4 = variant.backend_addresses().into_iter().map(IpAddr::V4);
    // No client uses IPv6, but the table is as large as on a node with both families.
    let v6 = (0..variant.endpoints).map(|number| {
        IpAddr::V6(Ipv6Addr::new(0xfd44, u16::from(node), 0, 0, 0, 0, 0, 0x10 + u16::from(number)))
    });
    let endpoints: Vec<_> = v4.chain(v6).collect::<Vec<_>>().iter().map(build_endpoint).collect();
    let ports = addr::FIRST_SERVICE_PORT..addr::FIRST_SERVICE_PORT + variant.ports;
    ports
        .filter_map(NonZeroU16::new)
        .map(|port| service(port, &[Protocol::Tcp, Protocol::Udp], &endpoints))
        .collect()
}

/// Returns a Service that keeps the client's address.
pub(crate) fn service(port: NonZeroU16, protocols: &[Protocol], endpoints: &[Endpoint]) -> Service {
    let build_service_port =
        |protocol: &Protocol| ServicePort { protocol: *protocol, port, endpoints: endpoints.to_vec() };
    Service {
        name: format!("bench/port-{port}"),
        uid: None,
        families: Family::ALL.into(),
        is_traffic_policy_local: false,
        keeps_client_address: true,
        affinity_seconds: None,
        source_ranges: None,
        ports: protocols.iter().map(build_service_port).collect(),
    }
}

/// Returns a ready endpoint.
pub(crate) fn endpoint(address: SocketAddr, node: u8) -> Endpoint {
    Endpoint {
        address,
        node: Some(node.into()),
        has_node_conflict: false,
        is_ready: true,
        is_serving_while_terminating: false,
        hinted_zones: Vec::new(),
        hinted_nodes: Vec::new(),
    }
}
