//! Port allocation: examples. `properties.rs` has the properties that hold after any events.

mod events;
mod local_services;
mod properties;
mod world;

use std::sync::Arc;

use akrobateo_core::annotations::NODE_SELECTOR;

use super::*;
use crate::decide::fixtures::{key, node, pod, service};
use crate::decide::occupied_ports;
use crate::decide::workload_fixtures::daemonset;
use world::{World, labelled_node, names};

const ALL: [&str; 3] = ["n1", "n2", "n3"];

#[test]
fn services_of_the_same_second_get_a_port_by_namespace_and_name() {
    let mut world = World::new();
    world.apply([
        service("a").tcp(80).created_at(1).uid("z"),
        service("b").tcp(80).created_at(1).uid("a"),
        service("c").tcp(80).created_at(2),
    ]);
    assert_eq!(world.allowed("a"), ALL);
    assert!(world.allocation("b").is_denied() && world.allocation("c").is_denied());
    assert_eq!(world.conflicts("b"), ["port 80/TCP on node n1 belongs to Service default/a"]);
}

#[test]
fn an_edit_of_an_older_service_takes_no_port_from_a_younger_one() {
    let mut world = World::new();
    let older = || service("older").tcp(443).created_at(1);
    world.apply([older().service_type("ClusterIP"), service("younger").tcp(443).created_at(2)]);
    // The workload of the younger Service does not exist yet.
    world.apply([older()]);
    assert_eq!(world.allowed("younger"), ALL);
    assert_eq!(world.conflicts("older"), ["port 443/TCP on node n1 belongs to Service default/younger"]);
    world.sync_workloads();
    world.restart();
    world.allocate();
    assert_eq!(world.allowed("younger"), ALL);
    world.services.remove(&key("younger"));
    world.allocate();
    assert_eq!(world.allowed("older"), ALL);
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
    assert_eq!(world.allowed("other"), ["n1"]);
    assert_eq!(world.allowed("edited"), ["n2", "n3"]);
    assert_eq!(world.allowed("waiting"), ["n1"]);
}

#[test]
fn two_services_that_add_each_others_port_do_not_both_lose_their_node() {
    let mut world = World::new();
    world.apply([service("a").tcp(80).created_at(1), service("b").tcp(81).created_at(2)]);
    world.apply([service("a").tcp(80).tcp(81).created_at(1), service("b").tcp(80).tcp(81).created_at(2)]);
    assert_eq!(world.allowed("a"), ALL);
    assert!(world.allocation("b").is_denied());
}

#[test]
fn two_services_that_add_the_same_free_port_do_not_share_it() {
    let mut world = World::new();
    world.apply([service("a").tcp(80).created_at(2), service("b").tcp(81).created_at(1)]);
    world.apply([service("a").tcp(80).tcp(443).created_at(2), service("b").tcp(81).tcp(443).created_at(1)]);
    assert_eq!(world.allowed("b"), ALL);
    assert_eq!(world.conflicts("a"), ["port 443/TCP on node n1 belongs to Service default/b"]);
}

#[test]
fn service_that_cannot_get_a_node_blocks_no_port_of_other_services() {
    let mut world = World::new();
    let older = || service("older").tcp(80).created_at(1);
    let edited = || service("edited").tcp(81).created_at(2);
    let younger = || service("younger").tcp(82).created_at(4);
    world.apply([older(), edited(), younger()]);
    world.apply([service("waiting").tcp(82).created_at(3)]);
    // Two Services add each other's port. One of them also adds a port that it cannot get.
    world.apply([edited().tcp(80).tcp(82), younger().tcp(81)]);
    assert_eq!(
        (world.allowed("older"), world.allowed("younger")),
        (ALL.map(str::to_owned).into(), ALL.map(str::to_owned).into())
    );
    assert!(world.allocation("edited").is_denied() && world.allocation("waiting").is_denied());
}

#[test]
fn a_published_service_precedes_an_older_one_if_no_workload_holds_the_port() {
    let mut world = World::new();
    world.published_nodes.insert(key("younger"), names(&["n2"]));
    world.apply([service("older").tcp(80).created_at(1), service("younger").tcp(80).created_at(2)]);
    assert_eq!(world.allowed("older"), ["n1", "n3"]);
    assert_eq!(world.allowed("younger"), ["n2"]);
}

#[test]
fn a_recreated_service_does_not_inherit_the_ports_of_the_earlier_one() {
    let mut world = World::new();
    world.apply([service("a").tcp(80).created_at(1).uid("first"), service("b").tcp(80).created_at(2)]);
    world.apply([service("a").tcp(80).created_at(3).uid("second")]);
    assert_eq!(world.allowed("b"), ALL);
    assert!(world.allocation("a").is_denied());
}

#[test]
fn services_of_different_families_share_a_port() {
    let mut world = World::new();
    let ipv6 = |name| service(name).udp(53).tcp(53).cluster_ips(&["fd97::7"]).families(&["IPv6"]);
    world.apply([service("v4").udp(53).tcp(53).created_at(1), ipv6("v6").created_at(2)]);
    assert_eq!(
        (world.allowed("v4"), world.allowed("v6")),
        (ALL.map(str::to_owned).into(), ALL.map(str::to_owned).into())
    );
    let dual = service("dual").udp(53).cluster_ips(&["10.97.0.8", "fd97::8"]).families(&["IPv4", "IPv6"]);
    world.apply([dual.created_at(3)]);
    assert_eq!(
        world.conflicts("dual"),
        [
            "port 53/UDP on node n1 belongs to Service default/v4",
            "port 53/UDP on node n1 belongs to Service default/v6"
        ]
    );
    world.apply([ipv6("v6-2").created_at(4)]);
    assert!(world.conflicts("v6-2").iter().all(|conflict| conflict.ends_with("default/v6")));
}

#[test]
fn a_tcp_port_and_a_udp_port_do_not_conflict() {
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
fn a_node_port_or_health_check_node_port_of_another_service_is_a_conflict_for_the_later_one() {
    let mut world = World::new();
    let health_check = || service("health").tcp(80).traffic_policy_local().health_check_node_port(30_500);
    world.apply([
        service("np").service_type("NodePort").tcp(80).node_port(30_080),
        health_check(),
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
fn later_node_port_of_another_service_takes_no_port_away() {
    let mut world = World::new();
    world.apply([service("web").tcp(30_500).created_at(2)]);
    world.apply([service("np").service_type("NodePort").tcp(80).node_port(30_500).created_at(1)]);
    for _ in 0..2 {
        assert_eq!(
            (world.allowed("web"), world.conflicts("web")),
            (ALL.map(str::to_owned).into(), Vec::new())
        );
        let shared = &world.allocation("web").shared_node_ports;
        assert_eq!(shared.len(), 1);
        assert_eq!(shared[0].to_string(), "port 30500/TCP is the nodePort of Service default/np");
        world.sync_workloads();
        world.restart();
        world.allocate();
    }
}

#[test]
fn the_previous_proxies_of_a_rejected_service_keep_their_ports() {
    let mut world = World::new();
    let web = || service("web").tcp(80).created_at(2).annotation(NODE_SELECTOR, "name=n2");
    world.apply([web()]);
    world.sync_workloads();
    world.apply([web().annotation("akrobateo.io/ip-mode", "vip"), service("older").tcp(80).created_at(1)]);
    assert!(matches!(world.allocations.get(&key("web")), Some(AllocationResult::Rejected(_))));
    assert_eq!(world.allowed("older"), ["n1", "n3"]);
}

#[test]
fn a_service_waits_for_a_port_that_the_proxies_of_a_rejected_service_have_not_released() {
    let mut world = World::new();
    world.apply([service("web").tcp(80)]);
    world.sync_workloads();
    world.apply([service("web").tcp(81), service("waiting").tcp(80)]);
    assert_eq!(world.allowed("waiting"), ALL);
    // Its workload still has port 80, and does not change while the Service is rejected.
    world.apply([service("web").tcp(81).annotation("akrobateo.io/ip-mode", "typo")]);
    assert_eq!(world.conflicts("waiting"), ["port 80/TCP on node n1 belongs to Service default/web"]);
    assert!(world.allocation("waiting").is_denied());
}

#[test]
fn a_port_that_becomes_reserved_is_released_also_by_a_rejected_service() {
    let mut world = World::new();
    let web = || service("web").tcp(80).udp(22).created_at(1);
    world.apply([web().annotation(NODE_SELECTOR, "name=n1"), service("other").tcp(80).created_at(2)]);
    world.sync_workloads();
    world.restart();
    world.reserved_ports = "udp/22".parse().unwrap();
    world.apply([web().annotation("akrobateo.io/ip-mode", "vip")]);
    assert_eq!(world.allowed("other"), ALL);
    world.restart();
    world.apply([web()]);
    assert!(matches!(
        world.allocations.get(&key("web")),
        Some(AllocationResult::Rejected(SpecError::PortReserved(_)))
    ));
    assert_eq!(world.allowed("other"), ALL);
}

#[test]
fn a_node_that_joins_goes_to_the_first_claim_and_the_other_one_never_selects_it() {
    let mut world = World::new();
    world.apply([
        service("older").tcp(80).created_at(1).annotation(NODE_SELECTOR, "name!=n3"),
        service("younger").tcp(80).created_at(2),
    ]);
    assert_eq!(world.allowed("younger"), ["n3"]);
    let owned = world.allocation("younger").owned_nodes.clone();
    let with_new_node: Vec<_> = ["n3", "n4"].map(|name| NodeInfo::from_node(&labelled_node(name))).into();
    // The DaemonSet controller sees the node before the operator does.
    let held = occupied_ports(&[daemonset(&[], owned.as_ref())], &[], &with_new_node);
    assert_eq!(held.nodes, names(&["n3"]));
    world.nodes.push(NodeInfo::from_node(&labelled_node("n4")));
    world.allocate();
    assert_eq!(world.allowed("older"), ["n1", "n2", "n4"]);
    assert_eq!(world.allowed("younger"), ["n3"]);
}

#[test]
fn a_new_label_of_a_node_takes_no_port_from_the_service_that_holds_it() {
    let mut world = World::new();
    world.apply([
        service("older").tcp(80).created_at(1).annotation(NODE_SELECTOR, "pool=edge"),
        service("younger").tcp(80).created_at(2).annotation(NODE_SELECTOR, "name=n2"),
    ]);
    world.sync_workloads();
    world.nodes[1] = NodeInfo::from_node(&node("n2").label("name", "n2").label("pool", "edge").build());
    for _ in 0..2 {
        world.allocate();
        assert_eq!((world.allowed("older"), world.allowed("younger")), (vec![], vec!["n2".to_owned()]));
        assert_eq!(world.conflicts("older"), ["port 80/TCP on node n2 belongs to Service default/younger"]);
    }
}

#[test]
fn a_new_label_of_a_node_gives_no_port_of_another_service_to_a_rejected_one() {
    let mut world = World::new();
    let rejected = || service("rejected").tcp(80).created_at(1).annotation(NODE_SELECTOR, "pool=edge");
    world.apply([rejected(), service("web").tcp(80).created_at(2).annotation(NODE_SELECTOR, "name=n2")]);
    world.settle();
    world.apply([rejected().annotation("akrobateo.io/ip-mode", "typo")]);
    world.nodes[1] = NodeInfo::from_node(&node("n2").label("name", "n2").label("pool", "edge").build());
    assert!(world.settle());
    assert_eq!(world.allowed("web"), ["n2"]);
    world.restart();
    world.allocate();
    assert_eq!(world.allowed("web"), ["n2"]);
}

#[test]
fn a_pod_that_stays_on_a_node_with_a_new_taint_keeps_the_port_there() {
    let mut world = World::new();
    let tolerating =
        || service("b").tcp(80).created_at(1).annotation("akrobateo.io/tolerations", "[{operator: Exists}]");
    world.apply([service("a").tcp(80).created_at(2), tolerating().service_type("ClusterIP")]);
    world.sync_workloads();
    let tainted = node("n1").label("name", "n1").taint("dedicated").build();
    world.nodes[0] = NodeInfo::from_node(&tainted);
    let pods = [Arc::new(pod("a-1").on("n1").ready().build())];
    world.held.insert(key("a"), occupied_ports(&[daemonset(&[], None)], &pods, &world.nodes));
    world.apply([tolerating()]);
    assert_eq!(world.conflicts("b"), ["port 80/TCP on node n1 belongs to Service default/a"]);
    assert!(world.allocation("b").is_denied());
    // When the pod is gone, the node is free.
    world.held.insert(key("a"), occupied_ports(&[daemonset(&[], None)], &[], &world.nodes));
    world.allocate();
    assert_eq!(world.allowed("b"), ["n1"]);
    assert_eq!(world.allowed("a"), ["n2", "n3"]);
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
    assert_eq!(world.allowed("c"), ALL);
    assert!(!world.allocation("nowhere").is_empty());
}

#[test]
fn a_conflict_names_the_first_node_for_every_port() {
    let mut world = World::new();
    world.apply([
        service("a").tcp(80).tcp(443).created_at(1).annotation(NODE_SELECTOR, "name in (n1,n2)"),
        service("b").tcp(80).tcp(443).created_at(2),
    ]);
    assert_eq!(world.allowed("b"), ["n3"]);
    let conflicts = world.conflicts("b");
    assert_eq!(conflicts.len(), 2);
    assert!(conflicts.iter().all(|conflict| conflict.contains("on node n1 ")), "{conflicts:?}");
    // A node that joins does not change the message, also if it comes first in the list of nodes.
    let joining = world.nodes.remove(1);
    world.restart();
    world.allocate();
    assert_eq!(world.conflicts("b"), conflicts);
    world.nodes.insert(0, joining);
    world.allocate();
    assert_eq!(world.conflicts("b"), conflicts);
}
