//! Ports of Services with externalTrafficPolicy Local: examples.

use akrobateo_core::annotations::NODE_SELECTOR;

use super::world::{World, names};
use super::{ALL, key, service};
use crate::allocation::Allocation;

#[test]
fn local_services_share_a_port_on_the_nodes_of_their_endpoints() {
    let mut world = World::new();
    let broker = |name| service(name).tcp(9092).traffic_policy_local();
    world.apply([broker("b1").created_at(1), broker("b2").created_at(2), broker("b3").created_at(3)]);
    // Without any endpoint the oldest Service gets all nodes. The others have no conflict, because no Service claims the nodes.
    assert_eq!(world.allowed("b1"), ALL);
    for name in ["b2", "b3"] {
        assert_eq!((world.allowed(name), world.conflicts(name)), (vec![], vec![]));
        assert_eq!(world.allocation(name).unclaimed_nodes, names(&ALL));
        assert!(world.allocation(name).taken_nodes.is_empty() && !world.allocation(name).is_denied());
    }
    world.sync_workloads();
    // A Service with an endpoint gets its node from a Service without endpoints, although that has proxies there.
    world.nodes_with_ready_endpoint.insert(key("b2"), names(&["n2"]));
    world.allocate();
    assert_eq!(
        (world.allowed("b1"), world.allowed("b2")),
        (vec!["n1".to_owned(), "n3".to_owned()], vec!["n2".to_owned()])
    );
    assert_eq!(world.conflicts("b1"), ["port 9092/TCP on node n2 belongs to Service default/b2"]);
    assert_eq!(world.conflicts("b3"), ["port 9092/TCP on node n2 belongs to Service default/b2"]);
    assert_eq!(world.allocation("b3").unclaimed_nodes, names(&["n1", "n3"]));
    assert!(!world.allocation("b3").is_denied());
    for (name, node) in [("b1", "n1"), ("b2", "n2"), ("b3", "n3")] {
        world.nodes_with_ready_endpoint.insert(key(name), names(&[node]));
    }
    world.allocate();
    for (name, node) in [("b1", "n1"), ("b2", "n2"), ("b3", "n3")] {
        assert_eq!((world.allowed(name), world.conflicts(name)), (vec![node.to_owned()], Vec::new()));
    }
    // A second endpoint on the node of another Service does not take the port there.
    world.nodes_with_ready_endpoint.insert(key("b1"), names(&["n1", "n2"]));
    world.allocate();
    assert_eq!(world.allowed("b1"), ["n1"]);
    assert_eq!(world.conflicts("b1"), ["port 9092/TCP on node n2 belongs to Service default/b2"]);
    assert_eq!(world.allowed("b2"), ["n2"]);
}

#[test]
fn a_local_service_without_endpoints_publishes_no_node_where_another_service_has_its_port() {
    let mut world = World::new();
    let waiting = |name| service(name).tcp(80).tcp(443).traffic_policy_local().created_at(1);
    world.apply([waiting("w1"), waiting("w2")]);
    world.sync_workloads();
    world.apply([service("holder").tcp(443).created_at(2).annotation(NODE_SELECTOR, "name=n1")]);
    assert_eq!(
        (world.allowed("holder"), world.allowed("w1")),
        (vec!["n1".to_owned()], vec!["n2".to_owned(), "n3".to_owned()])
    );
    assert_eq!(world.allocation("w2").unclaimed_nodes, names(&["n2", "n3"]));
    assert_eq!(world.allocation("w2").taken_nodes, names(&["n1"]));
    assert_eq!(world.conflicts("w2"), ["port 443/TCP on node n1 belongs to Service default/holder"]);
    // A nodePort is a port of every node. The holder keeps its port, and so does the Service that runs proxies.
    world.sync_workloads();
    world.apply([service("np").service_type("NodePort").tcp(1).node_port(80)]);
    assert_eq!(
        (world.allowed("holder"), world.allowed("w1")),
        (vec!["n1".to_owned()], vec!["n2".to_owned(), "n3".to_owned()])
    );
    assert!(world.allocation("w2").is_denied() && world.allocation("w2").unclaimed_nodes.is_empty());
    assert_eq!(world.conflicts("w2")[0], "port 80/TCP is the nodePort of Service default/np");
}

#[test]
fn a_node_whose_owner_lost_its_endpoint_is_published_for_a_service_without_endpoints() {
    let mut world = World::new();
    let broker = |name| service(name).tcp(9092).traffic_policy_local();
    world.nodes_with_ready_endpoint.insert(key("b1"), names(&["n1"]));
    world.apply([broker("b1"), broker("b2")]);
    assert_eq!(
        (world.allowed("b1"), world.allowed("b2")),
        (vec!["n1".to_owned()], vec!["n2".to_owned(), "n3".to_owned()])
    );
    assert_eq!(world.allocation("b2").taken_nodes, names(&["n1"]));
    // For one minute the node stays with its Service. The operator does not know this minute after a restart, so the
    // published nodes must not depend on it.
    world.without_endpoints.insert(key("b1"));
    world.allocate();
    assert_eq!((world.allowed("b1"), world.conflicts("b2")), (vec!["n1".to_owned()], vec![]));
    assert_eq!(world.allocation("b2").unclaimed_nodes, names(&["n1"]));
    assert!(world.allocation("b2").taken_nodes.is_empty());
}

#[test]
fn restart_between_two_workload_writes_keeps_ports_that_only_one_workload_holds() {
    let mut world = World::new();
    world.apply([service("local").tcp(81).traffic_policy_local().annotation(NODE_SELECTOR, "name=n2")]);
    world.sync_workloads();
    world.apply([
        service("web").tcp(81).tcp(82).annotation(NODE_SELECTOR, "name=n2"),
        service("other").tcp(80),
    ]);
    assert_eq!(world.allowed("web"), ["n2"]);
    // The workload of "web" exists, and that of "local" still has the port. So both may have it after a restart.
    world.sync_workload(&key("web"));
    world.sync_workload(&key("other"));
    world.nodes_with_ready_endpoint.insert(key("local"), names(&["n2"]));
    world.restart();
    world.allocate();
    assert_eq!((world.allowed("local"), world.allowed("web")), (vec!["n2".to_owned()], vec![]));
    assert_eq!(world.allowed("other"), ALL);
}

#[test]
fn a_local_service_alone_on_its_ports_has_proxies_on_all_selected_nodes() {
    let mut world = World::new();
    world.apply([service("web").tcp(80).traffic_policy_local()]);
    assert_eq!(*world.allocation("web"), Allocation::default());
    // Another Service gets the nodes on which the first one claims nothing.
    world.nodes_with_ready_endpoint.insert(key("web"), names(&["n3"]));
    world.apply([service("other").tcp(80).created_at(2)]);
    assert_eq!(
        (world.allowed("web"), world.allowed("other")),
        (vec!["n3".to_owned()], vec!["n1".to_owned(), "n2".to_owned()])
    );
    assert_eq!(world.conflicts("web"), Vec::<String>::new());
    assert_eq!(world.allocation("web").taken_nodes, names(&["n1", "n2"]));
}

#[test]
fn a_later_node_port_is_no_conflict_on_the_nodes_that_a_local_service_does_not_claim() {
    let mut world = World::new();
    world.nodes_with_ready_endpoint.insert(key("web"), names(&["n1"]));
    world.apply([
        service("web").tcp(30_500).traffic_policy_local(),
        service("other").tcp(30_500).annotation(NODE_SELECTOR, "name!=n1"),
    ]);
    world.apply([service("np").service_type("NodePort").tcp(80).node_port(30_500)]);
    assert_eq!((world.allowed("web"), world.conflicts("web")), (vec!["n1".to_owned()], vec![]));
    assert_eq!(world.allocation("web").shared_node_ports.len(), 1);
    // The Service keeps no port when its only endpoint is on a node that it does not select.
    world.nodes_with_ready_endpoint.insert(key("web"), names(&["n9"]));
    world.allocate();
    assert_eq!((world.allowed("web"), world.conflicts("web")), (vec![], vec![]));
    assert_eq!(world.allocation("web").shared_node_ports, []);
}
