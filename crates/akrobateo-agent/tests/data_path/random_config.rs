//! Random configurations of a node, and random changes of them. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};

use akrobateo_agent::config::{Endpoint, LocalNode, NodeConfig, Peer, Service, ServicePort};
use akrobateo_agent::marks::{Marks, NodeNumber};
use akrobateo_agent::probe::PeerPath;
use akrobateo_agent::table::NodeTables;
use akrobateo_core::{Family, Protocol};
use links::MacAddress;
use netfilter::nft::model::{KeyMatching, Set};

use crate::cluster::PROTOCOLS;
use crate::random::Random;

/// The network interfaces of the node.
pub(crate) const INTERFACES: [&str; 2] = ["eth0", "eth1"];
const FIRST_PORT: u16 = 1000;
const MAX_SERVICES: u16 = 5;
const MAX_ENDPOINTS: usize = 5;
const NODE_COUNT: NodeNumber = 4;
const SOURCE_RANGES: [&str; 7] =
    ["0.0.0.0/0", "192.0.2.0/24", "192.0.2.0/25", "192.0.2.128/25", "203.0.113.7/32", "::/0", "fd77::/64"];
const POD_RANGES: [&str; 4] = ["10.244.0.0/16", "10.245.0.0/16", "10.250.0.0/17", "fd44::/16"];

/// Returns node 1 without peers and Services.
pub(crate) fn empty_config() -> NodeConfig {
    NodeConfig {
        node: LocalNode {
            number: 1,
            name: "node1".to_owned(),
            zone: Some("zone1".to_owned()),
            addresses: Family::ALL.map(|family| node_address(family, 1)).into(),
            uplink: INTERFACES[0].to_owned(),
            uplink_mtu: 1500,
            probe_addresses: Vec::new(),
            has_egress_hook: true,
            marks: Marks::default(),
        },
        pod_ranges: vec!["10.244.0.0/16".parse().unwrap(), "fd44::/16".parse().unwrap()],
        peers: Vec::new(),
        probes_tunnel: false,
        recognizes_clients: false,
        services: Vec::new(),
    }
}

/// Changes a random part of the configuration. The configuration may stay the same.
pub(crate) fn change_config(config: &mut NodeConfig, random: &mut Random) {
    match random.number_below(20) {
        0..4 => add_or_remove_service(config, random),
        4..14 => {
            let index = random.number_below(config.services.len().max(1));
            match config.services.get_mut(index) {
                Some(service) => change_service(service, random),
                None => add_or_remove_service(config, random),
            }
        }
        14..16 => {
            let number = 2 + u16::try_from(random.number_below(usize::from(NODE_COUNT) - 1)).unwrap();
            match config.peers.iter().position(|peer| peer.number == number) {
                Some(index) => _ = config.peers.remove(index),
                None => config.peers.push(random_peer(number, random)),
            }
        }
        16..19 => {
            let index = random.number_below(config.peers.len().max(1));
            if let Some(peer) = config.peers.get_mut(index) {
                change_peer(peer, random);
            }
        }
        _ => change_node(config, random),
    }
}

/// Changes all base chains and some sets, as another version of the agent may do.
pub(crate) fn change_layout(tables: &mut NodeTables) {
    for table in [Some(&mut tables.inet), tables.netdev.as_mut()].into_iter().flatten() {
        table.chains.iter_mut().filter_map(|chain| chain.base.as_mut()).for_each(|base| base.priority += 1);
        let is_static_set_with_exact_keys = |set: &&mut Set| {
            set.definition.matching == KeyMatching::Exact && set.definition.dynamic.is_none()
        };
        for set in table.sets.iter_mut().filter(is_static_set_with_exact_keys) {
            set.definition.max_elements = NonZeroU32::new(1000);
        }
    }
}

fn add_or_remove_service(config: &mut NodeConfig, random: &mut Random) {
    let port = FIRST_PORT + u16::try_from(random.number_below(usize::from(MAX_SERVICES))).unwrap();
    let name = format!("test/port-{port}");
    if let Some(index) = config.services.iter().position(|service| service.name == name) {
        config.services.remove(index);
        return;
    }
    let port = NonZeroU16::new(port).unwrap();
    let mut service = Service {
        name,
        uid: None,
        families: Family::ALL.into(),
        is_traffic_policy_local: false,
        keeps_client_address: true,
        affinity_seconds: None,
        source_ranges: None,
        ports: PROTOCOLS.map(|protocol| ServicePort { protocol, port, endpoints: Vec::new() }).into(),
    };
    for _ in 0..6 {
        change_service(&mut service, random);
    }
    config.services.push(service);
}

fn change_service(service: &mut Service, random: &mut Random) {
    match random.number_below(12) {
        0 => service.families = random.choose_some(&Family::ALL),
        1 => service.is_traffic_policy_local = !service.is_traffic_policy_local,
        2 => service.keeps_client_address = !service.keeps_client_address,
        3 | 4 => {
            let timeouts = [None, NonZeroU32::new(60), NonZeroU32::new(10_800)];
            service.affinity_seconds = *random.choose(&timeouts);
        }
        5 | 6 => {
            let ranges = random.choose_some(&SOURCE_RANGES);
            let ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
            service.source_ranges = random.random_bool(70).then_some(ranges);
        }
        7 if service.ports.len() > 1 => _ = service.ports.remove(random.number_below(2)),
        7 => {
            let mut port = service.ports[0].clone();
            let is_other_protocol = |protocol: &&Protocol| **protocol != port.protocol;
            port.protocol = *PROTOCOLS.iter().find(is_other_protocol).unwrap();
            service.ports.push(port);
        }
        _ => {
            let index = random.number_below(service.ports.len());
            change_endpoints(&mut service.ports[index].endpoints, random);
        }
    }
}

fn change_endpoints(endpoints: &mut Vec<Endpoint>, random: &mut Random) {
    let index = random.number_below(endpoints.len().max(1));
    match random.number_below(6) {
        0 if !endpoints.is_empty() => _ = endpoints.remove(index),
        1 if !endpoints.is_empty() => endpoints[index] = random_endpoint(random),
        2 if !endpoints.is_empty() => {
            let endpoint = &mut endpoints[index];
            endpoint.is_ready = !endpoint.is_ready;
            endpoint.is_serving_while_terminating = !endpoint.is_ready && random.random_bool(50);
        }
        3 if !endpoints.is_empty() => {
            endpoints[index].hinted_zones = random.choose_some(&["zone1".to_owned(), "zone2".to_owned()]);
            endpoints[index].hinted_nodes = random.choose_some(&["node1".to_owned(), "node2".to_owned()]);
        }
        _ if endpoints.len() < MAX_ENDPOINTS => endpoints.push(random_endpoint(random)),
        _ => endpoints.clear(),
    }
}

fn random_endpoint(random: &mut Random) -> Endpoint {
    let node = NodeNumber::try_from(random.number_below(usize::from(NODE_COUNT) + 1)).unwrap();
    let host_number = u16::try_from(10 + random.number_below(3)).unwrap();
    let address = match random.choose(&Family::ALL) {
        Family::V4 => IpAddr::from(Ipv4Addr::from(0x0af4_0000 + u32::from(node * 256 + host_number))),
        Family::V6 => Ipv6Addr::new(0xfd44, node, 0, 0, 0, 0, 0, host_number).into(),
    };
    Endpoint {
        address: SocketAddr::new(address, *random.choose(&[8080, 8081])),
        node: (node != 0).then_some(node),
        has_node_conflict: false,
        is_ready: random.random_bool(80),
        is_serving_while_terminating: false,
        hinted_zones: Vec::new(),
        hinted_nodes: Vec::new(),
    }
}

fn random_peer(number: NodeNumber, random: &mut Random) -> Peer {
    let mut peer = Peer {
        number,
        addresses: Vec::new(),
        mac: MacAddress([2, 0, 0, 0, 0, 0]),
        probe_addresses: Vec::new(),
        paths: BTreeMap::new(),
        last_paths: BTreeMap::new(),
        is_silent: false,
    };
    for part_number in 0..4 {
        change_part_of_peer(&mut peer, part_number, random);
    }
    peer
}

fn change_peer(peer: &mut Peer, random: &mut Random) {
    // The paths to peers change more often than the other parts.
    let part_number = random.number_below(6);
    change_part_of_peer(peer, part_number, random);
}

fn change_part_of_peer(peer: &mut Peer, part_number: usize, random: &mut Random) {
    match part_number {
        0 => {
            let families = random.choose_some(&Family::ALL);
            peer.addresses = families.into_iter().map(|family| node_address(family, peer.number)).collect();
        }
        1 => {
            let [high, low] = peer.number.to_be_bytes();
            peer.mac = MacAddress([2, 0, 0, *random.choose(&[1, 2]), high, low]);
        }
        _ => {
            let path =
                |random: &mut Random| *random.choose(&[None, Some(PeerPath::Direct), Some(PeerPath::Tunnel)]);
            let paths = Family::ALL.into_iter().filter_map(|family| Some((family, path(random)?)));
            peer.set_paths(paths.collect());
            if random.random_bool(30) {
                peer.paths.clear();
            }
        }
    }
}

fn change_node(config: &mut NodeConfig, random: &mut Random) {
    let node = &mut config.node;
    match random.number_below(7) {
        0 => {
            let all_addresses = [1, 101]
                .map(|host_number| Family::ALL.map(|family| node_address(family, host_number)))
                .concat();
            node.addresses = random.choose_some(&all_addresses);
            if node.addresses.is_empty() {
                node.addresses.push(*random.choose(&all_addresses));
            }
        }
        1 => (*random.choose(&INTERFACES)).clone_into(&mut node.uplink),
        2 => node.uplink_mtu = *random.choose(&[1500, 9000]),
        3 => {
            let addresses = ["10.244.1.9", "fd44:1::9"].map(|address| address.parse().unwrap());
            node.probe_addresses = random.choose_some(&addresses);
        }
        4 => node.has_egress_hook = !node.has_egress_hook,
        5 => node.marks = *random.choose(&[Marks::default(), Marks { own_bits: 0x7a70_0000 }]),
        _ => {
            let ranges = random.choose_some(&POD_RANGES);
            config.pod_ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
        }
    }
}

fn node_address(family: Family, node: NodeNumber) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from(0x0a63_000a + u32::from(node)).into(),
        Family::V6 => Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 10 + node).into(),
    }
}
