//! Tests of the port allocation with examples. `properties.rs` tests properties of the allocation with random events.

mod cluster_model;
mod events;
mod properties;
mod rejected_services;
mod shared_services;
mod traffic_policy_local;

use std::num::NonZeroU16;

use akrobateo_core::annotations::NODE_SELECTOR;
use akrobateo_core::{Family, Protocol};

use super::*;
use crate::fixtures::{key, node, service};
use cluster_model::{ClusterModel, labelled_node, names};

const ALL_NODES: [&str; 3] = ["n1", "n2", "n3"];

#[test]
fn services_of_the_same_age_get_ports_by_name() {
    let mut cluster = ClusterModel::new();
    cluster.apply([
        service("a").tcp(80).created_at(1).uid("z"),
        service("b").tcp(80).created_at(1).uid("a"),
        service("c").tcp(80).created_at(2),
    ]);
    assert_eq!(cluster.allowed_nodes("a"), ALL_NODES);
    assert!(cluster.allocation("b").is_denied() && cluster.allocation("c").is_denied());
    assert_eq!(cluster.conflicts("b"), ["port 80/TCP on node n1 belongs to Service default/a"]);
}

#[test]
fn younger_service_keeps_its_port_when_an_older_service_claims_it() {
    let mut cluster = ClusterModel::new();
    let older_service = || service("older").tcp(443).created_at(1);
    cluster.apply([older_service().service_type("ClusterIP"), service("younger").tcp(443).created_at(2)]);
    // The workload of the younger Service does not exist yet.
    cluster.apply([older_service()]);
    assert_eq!(cluster.allowed_nodes("younger"), ALL_NODES);
    assert_eq!(cluster.conflicts("older"), ["port 443/TCP on node n1 belongs to Service default/younger"]);
    cluster.sync_workloads();
    cluster.restart();
    cluster.allocate();
    assert_eq!(cluster.allowed_nodes("younger"), ALL_NODES);
    cluster.services.remove(&key("younger"));
    cluster.allocate();
    assert_eq!(cluster.allowed_nodes("older"), ALL_NODES);
}

#[test]
fn service_that_adds_a_port_of_another_service_loses_the_node() {
    let mut cluster = ClusterModel::new();
    cluster.apply([
        service("edited").tcp(80).created_at(1),
        service("other").tcp(443).created_at(2).annotation(NODE_SELECTOR, "name=n1"),
        service("waiting").tcp(80).created_at(3),
    ]);
    cluster.apply([service("edited").tcp(80).tcp(443).created_at(1)]);
    assert_eq!(cluster.allowed_nodes("other"), ["n1"]);
    assert_eq!(cluster.allowed_nodes("edited"), ["n2", "n3"]);
    assert_eq!(cluster.allowed_nodes("waiting"), ["n1"]);
}

#[test]
fn older_service_wins_if_two_services_add_each_others_port() {
    let mut cluster = ClusterModel::new();
    cluster.apply([service("a").tcp(80).created_at(1), service("b").tcp(81).created_at(2)]);
    cluster.apply([service("a").tcp(80).tcp(81).created_at(1), service("b").tcp(80).tcp(81).created_at(2)]);
    assert_eq!(cluster.allowed_nodes("a"), ALL_NODES);
    assert!(cluster.allocation("b").is_denied());
}

#[test]
fn older_service_wins_if_two_services_add_the_same_free_port() {
    let mut cluster = ClusterModel::new();
    cluster.apply([service("a").tcp(80).created_at(2), service("b").tcp(81).created_at(1)]);
    cluster.apply([service("a").tcp(80).tcp(443).created_at(2), service("b").tcp(81).tcp(443).created_at(1)]);
    assert_eq!(cluster.allowed_nodes("b"), ALL_NODES);
    assert_eq!(cluster.conflicts("a"), ["port 443/TCP on node n1 belongs to Service default/b"]);
}

#[test]
fn denied_service_does_not_block_other_services() {
    let mut cluster = ClusterModel::new();
    let older_service = || service("older").tcp(80).created_at(1);
    let edited_service = || service("edited").tcp(81).created_at(2);
    let younger_service = || service("younger").tcp(82).created_at(4);
    cluster.apply([older_service(), edited_service(), younger_service()]);
    cluster.apply([service("waiting").tcp(82).created_at(3)]);
    // Two Services add each other's port. One of the two Services also adds a port that this Service cannot get.
    cluster.apply([edited_service().tcp(80).tcp(82), younger_service().tcp(81)]);
    assert_eq!(
        (cluster.allowed_nodes("older"), cluster.allowed_nodes("younger")),
        (ALL_NODES.map(str::to_owned).into(), ALL_NODES.map(str::to_owned).into())
    );
    assert!(cluster.allocation("edited").is_denied() && cluster.allocation("waiting").is_denied());
}

#[test]
fn published_service_gets_a_free_port_before_an_older_service() {
    let mut cluster = ClusterModel::new();
    cluster.published_nodes.insert(key("younger"), names(&["n2"]));
    cluster.apply([service("older").tcp(80).created_at(1), service("younger").tcp(80).created_at(2)]);
    assert_eq!(cluster.allowed_nodes("older"), ["n1", "n3"]);
    assert_eq!(cluster.allowed_nodes("younger"), ["n2"]);
}

#[test]
fn recreated_service_does_not_inherit_the_ports_of_its_predecessor() {
    let mut cluster = ClusterModel::new();
    cluster.apply([service("a").tcp(80).created_at(1).uid("first"), service("b").tcp(80).created_at(2)]);
    cluster.apply([service("a").tcp(80).created_at(3).uid("second")]);
    assert_eq!(cluster.allowed_nodes("b"), ALL_NODES);
    assert!(cluster.allocation("a").is_denied());
}

#[test]
fn services_of_different_families_share_a_port() {
    let mut cluster = ClusterModel::new();
    let ipv6_service = |name| service(name).udp(53).tcp(53).cluster_ips(&["fd97::7"]).families(&["IPv6"]);
    cluster.apply([service("v4").udp(53).tcp(53).created_at(1), ipv6_service("v6").created_at(2)]);
    assert_eq!(
        (cluster.allowed_nodes("v4"), cluster.allowed_nodes("v6")),
        (ALL_NODES.map(str::to_owned).into(), ALL_NODES.map(str::to_owned).into())
    );
    let dual_stack_service =
        service("dual").udp(53).cluster_ips(&["10.97.0.8", "fd97::8"]).families(&["IPv4", "IPv6"]);
    cluster.apply([dual_stack_service.created_at(3)]);
    assert_eq!(
        cluster.conflicts("dual"),
        [
            "port 53/UDP on node n1 belongs to Service default/v4",
            "port 53/UDP on node n1 belongs to Service default/v6"
        ]
    );
    cluster.apply([ipv6_service("v6-2").created_at(4)]);
    assert!(cluster.conflicts("v6-2").iter().all(|conflict| conflict.ends_with("default/v6")));
}

#[test]
fn tcp_and_udp_ports_with_the_same_number_do_not_conflict() {
    let mut cluster = ClusterModel::new();
    cluster.apply([service("tcp").tcp(53), service("udp").udp(53)]);
    assert_eq!(*cluster.allocation("tcp"), Allocation::default());
    assert_eq!(*cluster.allocation("udp"), Allocation::default());
}

#[test]
fn own_node_port_of_a_service_does_not_conflict_with_its_port() {
    let mut cluster = ClusterModel::new();
    cluster.apply([
        service("web").tcp(31_400).node_port(31_400),
        service("local").tcp(32_000).traffic_policy_local().health_check_node_port(32_000),
    ]);
    assert_eq!(*cluster.allocation("web"), Allocation::default());
    assert_eq!(*cluster.allocation("local"), Allocation::default());
}

#[test]
fn node_port_of_another_service_denies_a_later_claim() {
    let mut cluster = ClusterModel::new();
    let health_check_service =
        || service("health").tcp(80).traffic_policy_local().health_check_node_port(30_500);
    cluster.apply([
        service("np").service_type("NodePort").tcp(80).node_port(30_080),
        health_check_service(),
        service("a").tcp(30_080).created_at(1),
        service("b").tcp(30_500).created_at(1),
        service("c").udp(30_080).created_at(1),
    ]);
    assert!(cluster.allocation("a").is_denied() && cluster.allocation("b").is_denied());
    assert_eq!(cluster.conflicts("a"), ["port 30080/TCP is the nodePort of Service default/np"]);
    assert_eq!(
        cluster.conflicts("b"),
        ["port 30500/TCP is the healthCheckNodePort of Service default/health"]
    );
    assert_eq!(*cluster.allocation("c"), Allocation::default());
    // kube-proxy listens for health checks on the addresses of both families.
    cluster.apply([service("d").tcp(30_500).cluster_ips(&["fd97::7"]).families(&["IPv6"])]);
    assert!(cluster.allocation("d").is_denied());
}

#[test]
fn service_keeps_its_port_when_a_later_node_port_uses_it() {
    let mut cluster = ClusterModel::new();
    cluster.apply([service("web").tcp(30_500).created_at(2)]);
    cluster.apply([service("np").service_type("NodePort").tcp(80).node_port(30_500).created_at(1)]);
    for _ in 0..2 {
        assert_eq!(
            (cluster.allowed_nodes("web"), cluster.conflicts("web")),
            (ALL_NODES.map(str::to_owned).into(), Vec::new())
        );
        let shared_node_ports = &cluster.allocation("web").shared_node_ports;
        assert_eq!(shared_node_ports.len(), 1);
        assert_eq!(shared_node_ports[0].to_string(), "port 30500/TCP is the nodePort of Service default/np");
        cluster.sync_workloads();
        cluster.restart();
        cluster.allocate();
    }
}

#[test]
fn previous_proxies_of_a_rejected_service_keep_their_ports() {
    let mut cluster = ClusterModel::new();
    let web_service = || service("web").tcp(80).created_at(2).annotation(NODE_SELECTOR, "name=n2");
    cluster.apply([web_service()]);
    cluster.sync_workloads();
    cluster.apply([
        web_service().annotation("akrobateo.io/ip-mode", "vip"),
        service("older").tcp(80).created_at(1),
    ]);
    assert!(matches!(cluster.allocations.get(&key("web")), Some(AllocationResult::Rejected(_))));
    assert_eq!(cluster.allowed_nodes("older"), ["n1", "n3"]);
}

#[test]
fn service_waits_until_a_rejected_service_releases_its_port() {
    let mut cluster = ClusterModel::new();
    cluster.apply([service("web").tcp(80)]);
    cluster.sync_workloads();
    cluster.apply([service("web").tcp(81), service("waiting").tcp(80)]);
    assert_eq!(cluster.allowed_nodes("waiting"), ALL_NODES);
    // The workload of Service web still has port 80. The workload does not change while the Service is rejected.
    cluster.apply([service("web").tcp(81).annotation("akrobateo.io/ip-mode", "typo")]);
    assert_eq!(cluster.conflicts("waiting"), ["port 80/TCP on node n1 belongs to Service default/web"]);
    assert!(cluster.allocation("waiting").is_denied());
}

#[test]
fn rejected_service_releases_a_port_that_becomes_reserved() {
    let mut cluster = ClusterModel::new();
    let web_service = || service("web").tcp(80).udp(22).created_at(1);
    cluster
        .apply([web_service().annotation(NODE_SELECTOR, "name=n1"), service("other").tcp(80).created_at(2)]);
    cluster.sync_workloads();
    cluster.restart();
    cluster.reserved_ports = "udp/22".parse().unwrap();
    cluster.apply([web_service().annotation("akrobateo.io/ip-mode", "vip")]);
    assert_eq!(cluster.allowed_nodes("other"), ALL_NODES);
    cluster.restart();
    cluster.apply([web_service()]);
    assert!(matches!(
        cluster.allocations.get(&key("web")),
        Some(AllocationResult::Rejected(SpecError::PortReserved(_)))
    ));
    assert_eq!(cluster.allowed_nodes("other"), ALL_NODES);
}

#[test]
fn only_the_older_service_gets_a_new_node() {
    let mut cluster = ClusterModel::new();
    cluster.apply([
        service("older").tcp(80).created_at(1).annotation(NODE_SELECTOR, "name!=n3"),
        service("younger").tcp(80).created_at(2),
    ]);
    assert_eq!(cluster.allowed_nodes("younger"), ["n3"]);
    cluster.nodes.push(NodeInfo::from_node(&labelled_node("n4")));
    cluster.allocate();
    assert_eq!(cluster.allowed_nodes("older"), ["n1", "n2", "n4"]);
    assert_eq!(cluster.allowed_nodes("younger"), ["n3"]);
}

#[test]
fn owner_keeps_its_port_after_a_label_change() {
    let mut cluster = ClusterModel::new();
    cluster.apply([
        service("older").tcp(80).created_at(1).annotation(NODE_SELECTOR, "pool=edge"),
        service("younger").tcp(80).created_at(2).annotation(NODE_SELECTOR, "name=n2"),
    ]);
    cluster.sync_workloads();
    cluster.nodes[1] = NodeInfo::from_node(&node("n2").label("name", "n2").label("pool", "edge").build());
    for _ in 0..2 {
        cluster.allocate();
        assert_eq!(
            (cluster.allowed_nodes("older"), cluster.allowed_nodes("younger")),
            (vec![], vec!["n2".to_owned()])
        );
        assert_eq!(cluster.conflicts("older"), ["port 80/TCP on node n2 belongs to Service default/younger"]);
    }
}

#[test]
fn rejected_service_does_not_get_ports_after_a_label_change() {
    let mut cluster = ClusterModel::new();
    let rejected_service =
        || service("rejected").tcp(80).created_at(1).annotation(NODE_SELECTOR, "pool=edge");
    cluster.apply([
        rejected_service(),
        service("web").tcp(80).created_at(2).annotation(NODE_SELECTOR, "name=n2"),
    ]);
    cluster.allocate_until_stable();
    cluster.apply([rejected_service().annotation("akrobateo.io/ip-mode", "typo")]);
    cluster.nodes[1] = NodeInfo::from_node(&node("n2").label("name", "n2").label("pool", "edge").build());
    assert!(cluster.allocate_until_stable());
    assert_eq!(cluster.allowed_nodes("web"), ["n2"]);
    cluster.restart();
    cluster.allocate();
    assert_eq!(cluster.allowed_nodes("web"), ["n2"]);
}

#[test]
fn pod_on_a_node_with_a_new_taint_keeps_its_port() {
    let mut cluster = ClusterModel::new();
    let tolerating_service =
        || service("b").tcp(80).created_at(1).annotation("akrobateo.io/tolerations", "[{operator: Exists}]");
    cluster.apply([service("a").tcp(80).created_at(2), tolerating_service().service_type("ClusterIP")]);
    cluster.sync_workloads();
    let tainted_node = node("n1").label("name", "n1").taint("dedicated").build();
    cluster.nodes[0] = NodeInfo::from_node(&tainted_node);
    let occupied_ports = |nodes: &[&str]| OccupiedPorts {
        frontends: [Frontend {
            family: Family::V4,
            protocol: Protocol::Tcp,
            port: NonZeroU16::new(80).unwrap(),
        }]
        .into(),
        nodes: names(nodes),
        is_assumed: false,
    };
    // The pod keeps running on the node with the new taint.
    cluster.occupied_port_overrides.insert(key("a"), occupied_ports(&ALL_NODES));
    cluster.apply([tolerating_service()]);
    assert_eq!(cluster.conflicts("b"), ["port 80/TCP on node n1 belongs to Service default/a"]);
    assert!(cluster.allocation("b").is_denied());
    // The pod ends, and the node is free.
    cluster.occupied_port_overrides.insert(key("a"), occupied_ports(&["n2", "n3"]));
    cluster.allocate();
    assert_eq!(cluster.allowed_nodes("b"), ["n1"]);
    assert_eq!(cluster.allowed_nodes("a"), ["n2", "n3"]);
}

#[test]
fn service_without_nodes_does_not_own_ports() {
    let mut cluster = ClusterModel::new();
    cluster.apply([
        service("a").tcp(80).created_at(1),
        service("b").tcp(80).tcp(443).created_at(2),
        service("c").tcp(443).created_at(3),
        service("nowhere").tcp(443).created_at(0).annotation(NODE_SELECTOR, "name=n9"),
    ]);
    assert!(cluster.allocation("b").is_denied());
    assert_eq!(cluster.allowed_nodes("c"), ALL_NODES);
    assert!(!cluster.allocation("nowhere").is_empty());
}

#[test]
fn conflict_mentions_the_first_node_of_each_port() {
    let mut cluster = ClusterModel::new();
    cluster.apply([
        service("a").tcp(80).tcp(443).created_at(1).annotation(NODE_SELECTOR, "name in (n1,n2)"),
        service("b").tcp(80).tcp(443).created_at(2),
    ]);
    assert_eq!(cluster.allowed_nodes("b"), ["n3"]);
    let conflicts = cluster.conflicts("b");
    assert_eq!(conflicts.len(), 2);
    assert!(conflicts.iter().all(|conflict| conflict.contains("on node n1 ")), "{conflicts:?}");
    // A new node does not change the message, even if the new node is the first one in the list of nodes.
    let new_node = cluster.nodes.remove(1);
    cluster.restart();
    cluster.allocate();
    assert_eq!(cluster.conflicts("b"), conflicts);
    cluster.nodes.insert(0, new_node);
    cluster.allocate();
    assert_eq!(cluster.conflicts("b"), conflicts);
}
