//! Examples of port allocation for Services with externalTrafficPolicy Local.

use akrobateo_core::annotations::NODE_SELECTOR;

use super::cluster_model::{ClusterModel, names};
use super::{ALL_NODES, key, service};
use crate::allocation::Allocation;

#[test]
fn local_services_with_one_port_get_the_nodes_of_their_endpoints() {
    let mut cluster = ClusterModel::new();
    let broker_service = |name| service(name).tcp(9092).traffic_policy_local();
    cluster.apply([
        broker_service("b1").created_at(1),
        broker_service("b2").created_at(2),
        broker_service("b3").created_at(3),
    ]);
    // No Service has an endpoint, so the oldest Service gets all nodes. The other Services report no conflict, because
    // the nodes are unclaimed.
    assert_eq!(cluster.allowed_nodes("b1"), ALL_NODES);
    for name in ["b2", "b3"] {
        assert_eq!((cluster.allowed_nodes(name), cluster.conflicts(name)), (vec![], vec![]));
        assert_eq!(cluster.allocation(name).unclaimed_nodes, names(&ALL_NODES));
        assert!(cluster.allocation(name).taken_nodes.is_empty() && !cluster.allocation(name).is_denied());
    }
    cluster.sync_workloads();
    // Service b2 has an endpoint on n2, and gets n2 from Service b1. Service b1 has proxies on n2, but no endpoint.
    cluster.nodes_with_ready_endpoint.insert(key("b2"), names(&["n2"]));
    cluster.allocate();
    assert_eq!(
        (cluster.allowed_nodes("b1"), cluster.allowed_nodes("b2")),
        (vec!["n1".to_owned(), "n3".to_owned()], vec!["n2".to_owned()])
    );
    assert_eq!(cluster.conflicts("b1"), ["port 9092/TCP on node n2 belongs to Service default/b2"]);
    assert_eq!(cluster.conflicts("b3"), ["port 9092/TCP on node n2 belongs to Service default/b2"]);
    assert_eq!(cluster.allocation("b3").unclaimed_nodes, names(&["n1", "n3"]));
    assert!(!cluster.allocation("b3").is_denied());
    for (name, node) in [("b1", "n1"), ("b2", "n2"), ("b3", "n3")] {
        cluster.nodes_with_ready_endpoint.insert(key(name), names(&[node]));
    }
    cluster.allocate();
    for (name, node) in [("b1", "n1"), ("b2", "n2"), ("b3", "n3")] {
        assert_eq!(
            (cluster.allowed_nodes(name), cluster.conflicts(name)),
            (vec![node.to_owned()], Vec::new())
        );
    }
    // Service b1 also gets an endpoint on n2, but Service b2 keeps the port on n2.
    cluster.nodes_with_ready_endpoint.insert(key("b1"), names(&["n1", "n2"]));
    cluster.allocate();
    assert_eq!(cluster.allowed_nodes("b1"), ["n1"]);
    assert_eq!(cluster.conflicts("b1"), ["port 9092/TCP on node n2 belongs to Service default/b2"]);
    assert_eq!(cluster.allowed_nodes("b2"), ["n2"]);
}

#[test]
fn waiting_local_service_publishes_only_unclaimed_nodes() {
    let mut cluster = ClusterModel::new();
    let waiting_service = |name| service(name).tcp(80).tcp(443).traffic_policy_local().created_at(1);
    cluster.apply([waiting_service("w1"), waiting_service("w2")]);
    cluster.sync_workloads();
    cluster.apply([service("holder").tcp(443).created_at(2).annotation(NODE_SELECTOR, "name=n1")]);
    assert_eq!(
        (cluster.allowed_nodes("holder"), cluster.allowed_nodes("w1")),
        (vec!["n1".to_owned()], vec!["n2".to_owned(), "n3".to_owned()])
    );
    assert_eq!(cluster.allocation("w2").unclaimed_nodes, names(&["n2", "n3"]));
    assert_eq!(cluster.allocation("w2").taken_nodes, names(&["n1"]));
    assert_eq!(cluster.conflicts("w2"), ["port 443/TCP on node n1 belongs to Service default/holder"]);
    // A nodePort is a port of every node. Service w1 keeps port 80, because it runs proxies. Service w2 has no proxies,
    // and loses port 80.
    cluster.sync_workloads();
    cluster.apply([service("np").service_type("NodePort").tcp(1).node_port(80)]);
    assert_eq!(
        (cluster.allowed_nodes("holder"), cluster.allowed_nodes("w1")),
        (vec!["n1".to_owned()], vec!["n2".to_owned(), "n3".to_owned()])
    );
    assert!(cluster.allocation("w2").is_denied() && cluster.allocation("w2").unclaimed_nodes.is_empty());
    assert_eq!(cluster.conflicts("w2")[0], "port 80/TCP is the nodePort of Service default/np");
}

#[test]
fn waiting_local_service_publishes_a_node_whose_owner_lost_its_endpoint() {
    let mut cluster = ClusterModel::new();
    let broker_service = |name| service(name).tcp(9092).traffic_policy_local();
    cluster.nodes_with_ready_endpoint.insert(key("b1"), names(&["n1"]));
    cluster.apply([broker_service("b1"), broker_service("b2")]);
    assert_eq!(
        (cluster.allowed_nodes("b1"), cluster.allowed_nodes("b2")),
        (vec!["n1".to_owned()], vec!["n2".to_owned(), "n3".to_owned()])
    );
    assert_eq!(cluster.allocation("b2").taken_nodes, names(&["n1"]));
    // Service b1 keeps the node for one minute. After a restart the operator does not know when this minute started.
    // The published nodes must not depend on the start of the minute.
    cluster.services_with_lost_endpoints.insert(key("b1"));
    cluster.allocate();
    assert_eq!((cluster.allowed_nodes("b1"), cluster.conflicts("b2")), (vec!["n1".to_owned()], vec![]));
    assert_eq!(cluster.allocation("b2").unclaimed_nodes, names(&["n1"]));
    assert!(cluster.allocation("b2").taken_nodes.is_empty());
}

#[test]
fn restart_between_two_workload_writes_keeps_ports_without_a_conflict() {
    let mut cluster = ClusterModel::new();
    cluster.apply([service("local").tcp(81).traffic_policy_local().annotation(NODE_SELECTOR, "name=n2")]);
    cluster.sync_workloads();
    cluster.apply([
        service("web").tcp(81).tcp(82).annotation(NODE_SELECTOR, "name=n2"),
        service("other").tcp(80),
    ]);
    assert_eq!(cluster.allowed_nodes("web"), ["n2"]);
    // The operator writes only the workload of Service web. Both workloads have port 81 at the restart, because the
    // workload of Service local is still outdated.
    cluster.sync_workload(&key("web"));
    cluster.sync_workload(&key("other"));
    cluster.nodes_with_ready_endpoint.insert(key("local"), names(&["n2"]));
    cluster.restart();
    cluster.allocate();
    assert_eq!(
        (cluster.allowed_nodes("local"), cluster.allowed_nodes("web")),
        (vec!["n2".to_owned()], vec![])
    );
    assert_eq!(cluster.allowed_nodes("other"), ALL_NODES);
}

#[test]
fn local_service_without_conflicts_runs_proxies_on_all_selected_nodes() {
    let mut cluster = ClusterModel::new();
    cluster.apply([service("web").tcp(80).traffic_policy_local()]);
    assert_eq!(*cluster.allocation("web"), Allocation::default());
    // Service other gets the nodes where Service web has no endpoint.
    cluster.nodes_with_ready_endpoint.insert(key("web"), names(&["n3"]));
    cluster.apply([service("other").tcp(80).created_at(2)]);
    assert_eq!(
        (cluster.allowed_nodes("web"), cluster.allowed_nodes("other")),
        (vec!["n3".to_owned()], vec!["n1".to_owned(), "n2".to_owned()])
    );
    assert_eq!(cluster.conflicts("web"), Vec::<String>::new());
    assert_eq!(cluster.allocation("web").taken_nodes, names(&["n1", "n2"]));
}

#[test]
fn later_node_port_does_not_conflict_with_a_local_service() {
    let mut cluster = ClusterModel::new();
    cluster.nodes_with_ready_endpoint.insert(key("web"), names(&["n1"]));
    cluster.apply([
        service("web").tcp(30_500).traffic_policy_local(),
        service("other").tcp(30_500).annotation(NODE_SELECTOR, "name!=n1"),
    ]);
    cluster.apply([service("np").service_type("NodePort").tcp(80).node_port(30_500)]);
    assert_eq!((cluster.allowed_nodes("web"), cluster.conflicts("web")), (vec!["n1".to_owned()], vec![]));
    assert_eq!(cluster.allocation("web").shared_node_ports.len(), 1);
    // The Service gives up its ports when its only endpoint is on a node that the Service does not select.
    cluster.nodes_with_ready_endpoint.insert(key("web"), names(&["n9"]));
    cluster.allocate();
    assert_eq!((cluster.allowed_nodes("web"), cluster.conflicts("web")), (vec![], vec![]));
    assert_eq!(cluster.allocation("web").shared_node_ports, []);
}
