//! Tests of the tables as values. Tests with packets are in `tests/data_path`.

use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU32};

use akrobateo_core::{Family, Protocol};
use netfilter::nft::diff;
use netfilter::nft::{Action, InstalledTable};

use super::NodeTables;
use crate::config::fixtures::{config, endpoint, service};
use crate::config::{Endpoint, NodeConfig, Service, ServicePort};
use crate::probe::Way;

fn service_on(port: u16, endpoints: Vec<Endpoint>) -> Service {
    let port = NonZeroU16::new(port).unwrap();
    let port = ServicePort { protocol: Protocol::Tcp, port, endpoints };
    Service { name: format!("default/web{}", port.port), ports: vec![port], ..service() }
}

fn config_with(services: Vec<Service>) -> NodeConfig {
    NodeConfig { services, ..config() }
}

fn config_with_all_kinds_of_services() -> NodeConfig {
    let endpoints = || vec![endpoint(10, 1), endpoint(10, 2), endpoint(10, 3)];
    let mut config = config_with(vec![
        service_on(80, endpoints()),
        Service { keeps_client_address: false, ..service_on(81, endpoints()) },
        Service { affinity_seconds: NonZeroU32::new(10_800), ..service_on(82, endpoints()) },
        Service { affinity_seconds: NonZeroU32::new(60), ..service_on(83, endpoints()) },
        Service { source_ranges: Some(vec!["192.0.2.0/24".parse().unwrap()]), ..service_on(84, endpoints()) },
        service_on(85, Vec::new()),
    ]);
    config.peers[0].ways = BTreeMap::from([(Family::V4, Way::Direct), (Family::V6, Way::Tunnel)]);
    config
}

#[test]
fn tables_are_consistent() {
    for config in [
        config(),
        config_with_all_kinds_of_services(),
        NodeConfig { peers: Vec::new(), ..config_with_all_kinds_of_services() },
    ] {
        let tables = NodeTables::new(&config);
        tables.inet.check().unwrap();
        if let Some(netdev) = &tables.netdev {
            netdev.check().unwrap();
        }
    }
}

#[test]
fn number_of_rules_does_not_depend_on_the_number_of_services() {
    let rule_count = |service_count: u16| {
        let services = (0..service_count)
            .map(|number| service_on(1000 + number, vec![endpoint(10, 1), endpoint(10, 2)]));
        let tables = NodeTables::new(&config_with(services.collect()));
        tables.inet.chains.iter().map(|chain| chain.rules.len()).sum::<usize>()
    };
    assert_eq!(rule_count(1), rule_count(1000));
}

#[test]
fn node_without_peers_or_egress_hook_has_only_nat_chains() {
    let mut old_kernel = config_with_all_kinds_of_services();
    old_kernel.node.has_egress_hook = false;
    for config in [NodeConfig { peers: Vec::new(), ..config_with_all_kinds_of_services() }, old_kernel] {
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
fn local_endpoints_and_peers_with_a_way_see_the_client_address() {
    let tables = NodeTables::new(&config_with_all_kinds_of_services());
    let unmasqueraded = tables.inet.set("kept4").unwrap();
    let addresses: Vec<_> =
        unmasqueraded.elements.iter().map(|element| element.key.bytes().to_vec()).collect();
    // No way to node 3 keeps the client's address.
    assert_eq!(addresses, [[10, 244, 1, 10], [10, 244, 2, 10]]);
}

#[test]
fn changed_endpoint_changes_only_set_elements() {
    let services = |last_octet: u8| {
        (0..100)
            .map(|number| service_on(1000 + number, vec![endpoint(10, 1), endpoint(last_octet, 2)]))
            .collect::<Vec<_>>()
    };
    let before = config_with(services(10));
    let mut after = before.clone();
    after.services[7].ports[0].endpoints[1] = endpoint(11, 2);
    let installed = InstalledTable::from(NodeTables::new(&before).inet);
    let desired = NodeTables::new(&after).inet;
    let transaction = diff(Some(&installed), &desired);
    for step in &transaction.steps {
        let element_count = match &step.action {
            Action::AddElements(_, elements) | Action::DeleteElements(_, elements) => elements.len(),
            action => panic!("{action:?}"),
        };
        assert_eq!(element_count, 1);
    }
    assert_eq!(transaction.steps.len(), 2);
}
