//! Tests of the port allocation with examples. `properties.rs` tests properties of the allocation with random events.

mod events;
mod local_services;
mod properties;
mod shared_services;
mod world;

use std::num::NonZeroU16;

use akrobateo_core::annotations::NODE_SELECTOR;
use akrobateo_core::{Family, Protocol};

use super::*;
use crate::fixtures::{key, node, service};
use world::{World, labelled_node, names};

const ALL_NODES: [&str; 3] = ["n1", "n2", "n3"];

#[test]
fn services_of_the_same_age_get_ports_by_name() {
    let mut world = World::new();
    world.apply([
        service("a").tcp(80).created_at(1).uid("z"),
        service("b").tcp(80).created_at(1).uid("a"),
        service("c").tcp(80).created_at(2),
    ]);
    assert_eq!(world.allowed_nodes("a"), ALL_NODES);
    assert!(world.allocation("b").is_denied() && world.allocation("c").is_denied());
    assert_eq!(world.conflicts("b"), ["port 80/TCP on node n1 belongs to Service default/a"]);
}

#[test]
fn edit_of_an_older_service_takes_no_port_from_a_younger_service() {
    let mut world = World::new();
    let older_service = || service("older").tcp(443).created_at(1);
    world.apply([older_service().service_type("ClusterIP"), service("younger").tcp(443).created_at(2)]);
    // The workload of the younger Service does not exist yet.
    world.apply([older_service()]);
    assert_eq!(world.allowed_nodes("younger"), ALL_NODES);
    assert_eq!(world.conflicts("older"), ["port 443/TCP on node n1 belongs to Service default/younger"]);
    world.sync_workloads();
    world.restart();
    world.allocate();
    assert_eq!(world.allowed_nodes("younger"), ALL_NODES);
    world.services.remove(&key("younger"));
    world.allocate();
    assert_eq!(world.allowed_nodes("older"), ALL_NODES);
}

#[test]
fn service_that_adds_a_port_of_another_service_loses_the_node() {
    let mut world = World::new();
    world.apply([
        service("edited").tcp(80).created_at(1),
        service("other").tcp(443).created_at(2).annotation(NODE_SELECTOR, "name=n1"),
        service("waiting").tcp(80).created_at(3),
    ]);
    world.apply([service("edited").tcp(80).tcp(443).created_at(1)]);
    assert_eq!(world.allowed_nodes("other"), ["n1"]);
    assert_eq!(world.allowed_nodes("edited"), ["n2", "n3"]);
    assert_eq!(world.allowed_nodes("waiting"), ["n1"]);
}

#[test]
fn older_service_wins_if_two_services_add_each_others_port() {
    let mut world = World::new();
    world.apply([service("a").tcp(80).created_at(1), service("b").tcp(81).created_at(2)]);
    world.apply([service("a").tcp(80).tcp(81).created_at(1), service("b").tcp(80).tcp(81).created_at(2)]);
    assert_eq!(world.allowed_nodes("a"), ALL_NODES);
    assert!(world.allocation("b").is_denied());
}

#[test]
fn older_service_wins_if_two_services_add_the_same_free_port() {
    let mut world = World::new();
    world.apply([service("a").tcp(80).created_at(2), service("b").tcp(81).created_at(1)]);
    world.apply([service("a").tcp(80).tcp(443).created_at(2), service("b").tcp(81).tcp(443).created_at(1)]);
    assert_eq!(world.allowed_nodes("b"), ALL_NODES);
    assert_eq!(world.conflicts("a"), ["port 443/TCP on node n1 belongs to Service default/b"]);
}

#[test]
fn denied_service_blocks_no_port_of_other_services() {
    let mut world = World::new();
    let older_service = || service("older").tcp(80).created_at(1);
    let edited_service = || service("edited").tcp(81).created_at(2);
    let younger_service = || service("younger").tcp(82).created_at(4);
    world.apply([older_service(), edited_service(), younger_service()]);
    world.apply([service("waiting").tcp(82).created_at(3)]);
    // Two Services add each other's port. One of them also adds a port that it cannot get.
    world.apply([edited_service().tcp(80).tcp(82), younger_service().tcp(81)]);
    assert_eq!(
        (world.allowed_nodes("older"), world.allowed_nodes("younger")),
        (ALL_NODES.map(str::to_owned).into(), ALL_NODES.map(str::to_owned).into())
    );
    assert!(world.allocation("edited").is_denied() && world.allocation("waiting").is_denied());
}

#[test]
fn published_service_gets_a_free_port_before_an_older_service() {
    let mut world = World::new();
    world.published_nodes.insert(key("younger"), names(&["n2"]));
    world.apply([service("older").tcp(80).created_at(1), service("younger").tcp(80).created_at(2)]);
    assert_eq!(world.allowed_nodes("older"), ["n1", "n3"]);
    assert_eq!(world.allowed_nodes("younger"), ["n2"]);
}

#[test]
fn recreated_service_does_not_inherit_the_ports_of_its_predecessor() {
    let mut world = World::new();
    world.apply([service("a").tcp(80).created_at(1).uid("first"), service("b").tcp(80).created_at(2)]);
    world.apply([service("a").tcp(80).created_at(3).uid("second")]);
    assert_eq!(world.allowed_nodes("b"), ALL_NODES);
    assert!(world.allocation("a").is_denied());
}

#[test]
fn services_of_different_families_share_a_port() {
    let mut world = World::new();
    let ipv6_service = |name| service(name).udp(53).tcp(53).cluster_ips(&["fd97::7"]).families(&["IPv6"]);
    world.apply([service("v4").udp(53).tcp(53).created_at(1), ipv6_service("v6").created_at(2)]);
    assert_eq!(
        (world.allowed_nodes("v4"), world.allowed_nodes("v6")),
        (ALL_NODES.map(str::to_owned).into(), ALL_NODES.map(str::to_owned).into())
    );
    let dual_stack_service =
        service("dual").udp(53).cluster_ips(&["10.97.0.8", "fd97::8"]).families(&["IPv4", "IPv6"]);
    world.apply([dual_stack_service.created_at(3)]);
    assert_eq!(
        world.conflicts("dual"),
        [
            "port 53/UDP on node n1 belongs to Service default/v4",
            "port 53/UDP on node n1 belongs to Service default/v6"
        ]
    );
    world.apply([ipv6_service("v6-2").created_at(4)]);
    assert!(world.conflicts("v6-2").iter().all(|conflict| conflict.ends_with("default/v6")));
}

#[test]
fn equal_tcp_and_udp_ports_do_not_conflict() {
    let mut world = World::new();
    world.apply([service("tcp").tcp(53), service("udp").udp(53)]);
    assert_eq!(*world.allocation("tcp"), Allocation::default());
    assert_eq!(*world.allocation("udp"), Allocation::default());
}

#[test]
fn own_node_port_of_a_service_is_no_conflict() {
    let mut world = World::new();
    world.apply([
        service("web").tcp(31_400).node_port(31_400),
        service("local").tcp(32_000).traffic_policy_local().health_check_node_port(32_000),
    ]);
    assert_eq!(*world.allocation("web"), Allocation::default());
    assert_eq!(*world.allocation("local"), Allocation::default());
}

#[test]
fn node_port_of_another_service_denies_a_later_claim() {
    let mut world = World::new();
    let health_check_service =
        || service("health").tcp(80).traffic_policy_local().health_check_node_port(30_500);
    world.apply([
        service("np").service_type("NodePort").tcp(80).node_port(30_080),
        health_check_service(),
        service("a").tcp(30_080).created_at(1),
        service("b").tcp(30_500).created_at(1),
        service("c").udp(30_080).created_at(1),
    ]);
    assert!(world.allocation("a").is_denied() && world.allocation("b").is_denied());
    assert_eq!(world.conflicts("a"), ["port 30080/TCP is the nodePort of Service default/np"]);
    assert_eq!(world.conflicts("b"), ["port 30500/TCP is the healthCheckNodePort of Service default/health"]);
    assert_eq!(*world.allocation("c"), Allocation::default());
    // kube-proxy listens for health checks on the addresses of both families.
    world.apply([service("d").tcp(30_500).cluster_ips(&["fd97::7"]).families(&["IPv6"])]);
    assert!(world.allocation("d").is_denied());
}

#[test]
fn later_node_port_takes_no_port_from_a_service() {
    let mut world = World::new();
    world.apply([service("web").tcp(30_500).created_at(2)]);
    world.apply([service("np").service_type("NodePort").tcp(80).node_port(30_500).created_at(1)]);
    for _ in 0..2 {
        assert_eq!(
            (world.allowed_nodes("web"), world.conflicts("web")),
            (ALL_NODES.map(str::to_owned).into(), Vec::new())
        );
        let shared_node_ports = &world.allocation("web").shared_node_ports;
        assert_eq!(shared_node_ports.len(), 1);
        assert_eq!(shared_node_ports[0].to_string(), "port 30500/TCP is the nodePort of Service default/np");
        world.sync_workloads();
        world.restart();
        world.allocate();
    }
}

#[test]
fn the_previous_proxies_of_a_rejected_service_keep_their_ports() {
    let mut world = World::new();
    let web_service = || service("web").tcp(80).created_at(2).annotation(NODE_SELECTOR, "name=n2");
    world.apply([web_service()]);
    world.sync_workloads();
    world.apply([
        web_service().annotation("akrobateo.io/ip-mode", "vip"),
        service("older").tcp(80).created_at(1),
    ]);
    assert!(matches!(world.allocations.get(&key("web")), Some(AllocationResult::Rejected(_))));
    assert_eq!(world.allowed_nodes("older"), ["n1", "n3"]);
}

#[test]
fn service_waits_until_a_rejected_service_releases_its_port() {
    let mut world = World::new();
    world.apply([service("web").tcp(80)]);
    world.sync_workloads();
    world.apply([service("web").tcp(81), service("waiting").tcp(80)]);
    assert_eq!(world.allowed_nodes("waiting"), ALL_NODES);
    // The workload of Service web still has port 80. The workload does not change while the Service is rejected.
    world.apply([service("web").tcp(81).annotation("akrobateo.io/ip-mode", "typo")]);
    assert_eq!(world.conflicts("waiting"), ["port 80/TCP on node n1 belongs to Service default/web"]);
    assert!(world.allocation("waiting").is_denied());
}

#[test]
fn rejected_service_releases_a_port_that_becomes_reserved() {
    let mut world = World::new();
    let web_service = || service("web").tcp(80).udp(22).created_at(1);
    world.apply([web_service().annotation(NODE_SELECTOR, "name=n1"), service("other").tcp(80).created_at(2)]);
    world.sync_workloads();
    world.restart();
    world.reserved_ports = "udp/22".parse().unwrap();
    world.apply([web_service().annotation("akrobateo.io/ip-mode", "vip")]);
    assert_eq!(world.allowed_nodes("other"), ALL_NODES);
    world.restart();
    world.apply([web_service()]);
    assert!(matches!(
        world.allocations.get(&key("web")),
        Some(AllocationResult::Rejected(SpecError::PortReserved(_)))
    ));
    assert_eq!(world.allowed_nodes("other"), ALL_NODES);
}

#[test]
fn new_node_goes_to_the_older_service_only() {
    let mut world = World::new();
    world.apply([
        service("older").tcp(80).created_at(1).annotation(NODE_SELECTOR, "name!=n3"),
        service("younger").tcp(80).created_at(2),
    ]);
    assert_eq!(world.allowed_nodes("younger"), ["n3"]);
    world.nodes.push(NodeInfo::from_node(&labelled_node("n4")));
    world.allocate();
    assert_eq!(world.allowed_nodes("older"), ["n1", "n2", "n4"]);
    assert_eq!(world.allowed_nodes("younger"), ["n3"]);
}

#[test]
fn label_change_of_a_node_takes_no_port_from_the_owner() {
    let mut world = World::new();
    world.apply([
        service("older").tcp(80).created_at(1).annotation(NODE_SELECTOR, "pool=edge"),
        service("younger").tcp(80).created_at(2).annotation(NODE_SELECTOR, "name=n2"),
    ]);
    world.sync_workloads();
    world.nodes[1] = NodeInfo::from_node(&node("n2").label("name", "n2").label("pool", "edge").build());
    for _ in 0..2 {
        world.allocate();
        assert_eq!(
            (world.allowed_nodes("older"), world.allowed_nodes("younger")),
            (vec![], vec!["n2".to_owned()])
        );
        assert_eq!(world.conflicts("older"), ["port 80/TCP on node n2 belongs to Service default/younger"]);
    }
}

#[test]
fn label_change_of_a_node_gives_no_port_to_a_rejected_service() {
    let mut world = World::new();
    let rejected_service =
        || service("rejected").tcp(80).created_at(1).annotation(NODE_SELECTOR, "pool=edge");
    world.apply([
        rejected_service(),
        service("web").tcp(80).created_at(2).annotation(NODE_SELECTOR, "name=n2"),
    ]);
    world.settle();
    world.apply([rejected_service().annotation("akrobateo.io/ip-mode", "typo")]);
    world.nodes[1] = NodeInfo::from_node(&node("n2").label("name", "n2").label("pool", "edge").build());
    assert!(world.settle());
    assert_eq!(world.allowed_nodes("web"), ["n2"]);
    world.restart();
    world.allocate();
    assert_eq!(world.allowed_nodes("web"), ["n2"]);
}

#[test]
fn pod_on_a_node_with_a_new_taint_keeps_its_port() {
    let mut world = World::new();
    let tolerating_service =
        || service("b").tcp(80).created_at(1).annotation("akrobateo.io/tolerations", "[{operator: Exists}]");
    world.apply([service("a").tcp(80).created_at(2), tolerating_service().service_type("ClusterIP")]);
    world.sync_workloads();
    let tainted = node("n1").label("name", "n1").taint("dedicated").build();
    world.nodes[0] = NodeInfo::from_node(&tainted);
    let occupied_ports = |nodes: &[&str]| OccupiedPorts {
        frontends: [Frontend {
            family: Family::V4,
            protocol: Protocol::Tcp,
            port: NonZeroU16::new(80).unwrap(),
        }]
        .into(),
        nodes: names(nodes),
    };
    // The pod keeps running on the node with the new taint.
    world.occupied_port_overrides.insert(key("a"), occupied_ports(&ALL_NODES));
    world.apply([tolerating_service()]);
    assert_eq!(world.conflicts("b"), ["port 80/TCP on node n1 belongs to Service default/a"]);
    assert!(world.allocation("b").is_denied());
    // The pod ends, and the node is free.
    world.occupied_port_overrides.insert(key("a"), occupied_ports(&["n2", "n3"]));
    world.allocate();
    assert_eq!(world.allowed_nodes("b"), ["n1"]);
    assert_eq!(world.allowed_nodes("a"), ["n2", "n3"]);
}

#[test]
fn a_service_without_nodes_owns_no_port() {
    let mut world = World::new();
    world.apply([
        service("a").tcp(80).created_at(1),
        service("b").tcp(80).tcp(443).created_at(2),
        service("c").tcp(443).created_at(3),
        service("nowhere").tcp(443).created_at(0).annotation(NODE_SELECTOR, "name=n9"),
    ]);
    assert!(world.allocation("b").is_denied());
    assert_eq!(world.allowed_nodes("c"), ALL_NODES);
    assert!(!world.allocation("nowhere").is_empty());
}

#[test]
fn conflict_names_the_first_node_of_each_port() {
    let mut world = World::new();
    world.apply([
        service("a").tcp(80).tcp(443).created_at(1).annotation(NODE_SELECTOR, "name in (n1,n2)"),
        service("b").tcp(80).tcp(443).created_at(2),
    ]);
    assert_eq!(world.allowed_nodes("b"), ["n3"]);
    let conflicts = world.conflicts("b");
    assert_eq!(conflicts.len(), 2);
    assert!(conflicts.iter().all(|conflict| conflict.contains("on node n1 ")), "{conflicts:?}");
    // A new node does not change the message, even if the new node is the first one in the list of nodes.
    let new_node = world.nodes.remove(1);
    world.restart();
    world.allocate();
    assert_eq!(world.conflicts("b"), conflicts);
    world.nodes.insert(0, new_node);
    world.allocate();
    assert_eq!(world.conflicts("b"), conflicts);
}
