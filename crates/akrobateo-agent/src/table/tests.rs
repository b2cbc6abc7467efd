//! Tests of the tables as values. Tests with packets are in `tests/data_path`.

use std::num::{NonZeroU16, NonZeroU32};

use akrobateo_core::{Family, Protocol};
use netfilter::nft::diff;
use netfilter::nft::{Action, InstalledTable};

use super::NodeTables;
use crate::config::fixtures::{config, endpoint, masqueraded_service, service};
use crate::config::{Endpoint, NodeConfig, Service, ServicePort};
use crate::probe::PeerPath;

fn service_on_port(port: u16, endpoints: Vec<Endpoint>) -> Service {
    let port = NonZeroU16::new(port).unwrap();
    let port = ServicePort { protocol: Protocol::Tcp, port, endpoints };
    Service { name: format!("default/web{}", port.port), ports: vec![port], ..service() }
}

fn config_with_services(services: Vec<Service>) -> NodeConfig {
    NodeConfig { services, ..config() }
}

fn config_with_all_kinds_of_services() -> NodeConfig {
    let endpoints = || vec![endpoint(10, 1), endpoint(10, 2), endpoint(10, 3)];
    let mut config = config_with_services(vec![
        service_on_port(80, endpoints()),
        Service { keeps_client_address: false, ..service_on_port(81, endpoints()) },
        Service { affinity_seconds: NonZeroU32::new(10_800), ..service_on_port(82, endpoints()) },
        Service { affinity_seconds: NonZeroU32::new(60), ..service_on_port(83, endpoints()) },
        Service {
            source_ranges: Some(vec!["192.0.2.0/24".parse().unwrap()]),
            ..service_on_port(84, endpoints())
        },
        service_on_port(85, Vec::new()),
    ]);
    config.peers[0].set_paths([(Family::V4, PeerPath::Direct), (Family::V6, PeerPath::Tunnel)].into());
    config
}

#[test]
fn tables_are_consistent() {
    let mut config_without_egress_hook = config_with_all_kinds_of_services();
    config_without_egress_hook.node.has_egress_hook = false;
    let config_without_peers = NodeConfig { peers: Vec::new(), ..config_with_all_kinds_of_services() };
    for config in
        [config(), config_with_all_kinds_of_services(), config_without_peers, config_without_egress_hook]
    {
        let tables = NodeTables::new(&config);
        tables.inet.check().unwrap();
        if let Some(netdev) = &tables.netdev {
            netdev.check().unwrap();
        }
    }
}

#[test]
fn number_of_rules_does_not_grow_with_services_and_endpoints() {
    let rule_count = |service_count: u16| {
        let services = (0..service_count)
            .map(|number| service_on_port(1000 + number, vec![endpoint(10, 1), endpoint(10, 2)]));
        let tables = NodeTables::new(&config_with_services(services.collect()));
        tables.inet.chains.iter().map(|chain| chain.rules.len()).sum::<usize>()
    };
    assert_eq!(rule_count(1), rule_count(1000));
}

#[test]
fn node_without_peers_has_nat_chains_only() {
    for has_egress_hook in [true, false] {
        let mut config = NodeConfig { peers: Vec::new(), ..config_with_all_kinds_of_services() };
        config.node.has_egress_hook = has_egress_hook;
        let tables = NodeTables::new(&config);
        let base_chains = tables.inet.chains.iter().filter(|chain| chain.base.is_some());
        let base_chains: Vec<_> = base_chains.map(|chain| &*chain.name).collect();
        assert_eq!(base_chains, ["nat_pre", "nat_out", "nat_post"]);
        assert_eq!(tables.netdev, None);
        // Only local endpoints see the client.
        assert_eq!(tables.inet.set("kept4").unwrap().elements.len(), 1);
    }
}

#[test]
fn node_without_services_finds_the_paths_to_its_peers() {
    let chain_count = |services| NodeTables::new(&config_with_services(services)).inet.chains.len();
    assert_eq!(chain_count(Vec::new()), chain_count(vec![service()]));
    assert!(chain_count(Vec::new()) > chain_count(vec![masqueraded_service()]));
}

#[test]
fn replies_are_marked_before_routing_if_the_kernel_has_no_egress_hook() {
    let config_with_hook = config_with_all_kinds_of_services();
    let mut config_without_hook = config_with_hook.clone();
    config_without_hook.node.has_egress_hook = false;
    let [config_with_hook, config_without_hook] =
        [config_with_hook, config_without_hook].map(|config| NodeTables::new(&config));
    assert!(config_with_hook.netdev.is_some() && config_without_hook.netdev.is_none());
    for (chain, has_chain) in [("post", false), ("unmark", true), ("steer_pre", true)] {
        assert_eq!(config_without_hook.inet.chain(chain).is_some(), has_chain, "{chain}");
    }
    assert!(config_with_hook.inet.chain("unmark").is_none());
    // With and without the hook, the same endpoints see the client, and replies take the same paths.
    for set in ["kept4", "kept6", "zone_direct_marks4", "zone_tunnel_marks6", "kept_peers4"] {
        assert_eq!(config_with_hook.inet.set(set), config_without_hook.inet.set(set), "{set}");
    }
}

#[test]
fn client_address_is_kept_for_local_endpoints_and_peers_with_a_path() {
    let tables = NodeTables::new(&config_with_all_kinds_of_services());
    let kept_set = tables.inet.set("kept4").unwrap();
    let addresses: Vec<_> = kept_set.elements.iter().map(|element| element.key.bytes().to_vec()).collect();
    // Packets to node 3 are masqueraded.
    assert_eq!(addresses, [[10, 244, 1, 10], [10, 244, 2, 10]]);
}

#[test]
fn endpoint_whose_node_is_in_conflict_is_in_no_set_of_the_client_address() {
    for is_traffic_policy_local in [false, true] {
        for node in [1, 2] {
            let elements_of = |has_node_conflict| {
                let endpoints = vec![Endpoint { has_node_conflict, ..endpoint(10, node) }];
                let service = Service { is_traffic_policy_local, ..service_on_port(80, endpoints) };
                let mut config = config_with_services(vec![service]);
                config.peers[0].set_paths([(Family::V4, PeerPath::Tunnel)].into());
                let table = NodeTables::new(&config).inet;
                ["kept4", "tunnel_marks4", "own_destinations4", "endpoints4"]
                    .map(|set| table.set(set).unwrap().elements.len())
            };
            let endpoint_count = usize::from(node == 1 || !is_traffic_policy_local);
            let expected_counts =
                if node == 1 { [1, 0, 1, endpoint_count] } else { [endpoint_count, 1, 0, endpoint_count] };
            assert_eq!(elements_of(false), expected_counts);
            assert_eq!(elements_of(true), [0, 0, 0, endpoint_count]);
        }
    }
}

#[test]
fn packets_are_steered_only_if_a_peer_needs_the_tunnel() {
    let config_with_path = |path| {
        let mut config = config_with_all_kinds_of_services();
        config
            .peers
            .iter_mut()
            .for_each(|peer| peer.set_paths(Family::ALL.map(|family| (family, path)).into()));
        NodeTables::new(&config).inet
    };
    let (tunnel, direct) = (config_with_path(PeerPath::Tunnel), config_with_path(PeerPath::Direct));
    for name in ["steer_pre", "steer_out"] {
        assert!(tunnel.chain(name).is_some() && direct.chain(name).is_none(), "{name}");
    }
    assert!(tunnel.chain("post").is_some() && direct.chain("post").is_some());
}

#[test]
fn change_of_one_endpoint_changes_elements_only() {
    let services = |second_endpoint: u8| {
        (0..100)
            .map(|number| service_on_port(1000 + number, vec![endpoint(10, 1), endpoint(second_endpoint, 2)]))
            .collect::<Vec<_>>()
    };
    let old_config = config_with_services(services(10));
    let mut new_config = old_config.clone();
    new_config.services[7].ports[0].endpoints[1] = endpoint(11, 2);
    let installed = InstalledTable::from(NodeTables::new(&old_config).inet);
    let desired = NodeTables::new(&new_config).inet;
    let transaction = diff(Some(&installed), &desired);
    for step in &transaction.steps {
        let count = match &step.action {
            Action::AddElements(_, elements) | Action::DeleteElements(_, elements) => elements.len(),
            action => panic!("{action:?}"),
        };
        assert_eq!(count, 1);
    }
    assert_eq!(transaction.steps.len(), 2);
}
