//! Tests that the plan keeps the client's address only if all Services name the same node for an endpoint's address.

use super::*;
use crate::config;
use crate::probe::PeerPath;

/// The address for which the Services `victim` and `attacker` have endpoints.
const ADDRESS: &str = "172.29.0.1";

fn slice_of_nodes(nodes: &[Option<&str>]) -> Vec<Arc<EndpointSlice>> {
    let endpoints = nodes.iter().map(|node| json!({ "addresses": [ADDRESS], "nodeName": node }));
    let endpoints: Vec<_> = endpoints.collect();
    let slice = json!({ "addressType": "IPv4", "ports": [{ "port": 6443 }], "endpoints": endpoints });
    vec![Arc::new(serde_json::from_value(slice).unwrap())]
}

fn cluster_of_two_tenants() -> TestCluster {
    let mut cluster = TestCluster::new();
    cluster.apply(service("victim").tcp(80));
    cluster.apply(service("attacker").tcp(81));
    cluster.peer_reports.alive = vec![AgentReport {
        node: "n2".to_owned(),
        network: Some(NodeNetwork {
            number: 2,
            mac: "02:00:00:00:00:02".to_owned(),
            ..NodeNetwork::default()
        }),
        ..AgentReport::default()
    }];
    cluster
}

impl TestCluster {
    /// Replaces the endpoints of a Service with endpoints that have the same address and these nodes.
    fn set_nodes(&mut self, name: &str, nodes: &[Option<&str>]) {
        self.slices.insert(key(name), slice_of_nodes(nodes));
    }

    /// Makes a plan, and returns the names of the Services whose packets to the address are masqueraded.
    fn masqueraded_names(&mut self) -> Vec<String> {
        masqueraded_names(&self.plan())
    }
}

fn masqueraded_names(plan: &Plan) -> Vec<String> {
    let mut config = plan.config.clone();
    for peer in &mut config.peers {
        peer.set_paths([(Family::V4, PeerPath::Direct)].into());
    }
    let is_masqueraded = |service: &&config::Service| {
        let mut endpoints = service.ports.iter().flat_map(|port| &port.endpoints);
        endpoints.all(|endpoint| !config.is_local(endpoint) && config.path_to(endpoint).is_none())
    };
    config.services.iter().filter(is_masqueraded).map(|service| service.name.clone()).collect()
}

#[test]
fn services_that_name_different_nodes_are_masqueraded() {
    let mut cluster = cluster_of_two_tenants();
    for (node, other_node) in
        [(None, Some("n1")), (Some("n1"), Some("n2")), (Some("n2"), None), (Some("n2"), Some("unknown"))]
    {
        cluster.set_nodes("victim", &[node]);
        cluster.set_nodes("attacker", &[other_node]);
        let names = cluster.masqueraded_names();
        assert_eq!(names, ["default/attacker", "default/victim"], "{node:?} {other_node:?}");
    }
}

#[test]
fn services_that_name_the_same_node_keep_the_client_address() {
    let mut cluster = cluster_of_two_tenants();
    for node in ["n1", "n2"] {
        cluster.set_nodes("victim", &[Some(node)]);
        cluster.set_nodes("attacker", &[Some(node)]);
        assert!(cluster.masqueraded_names().is_empty());
    }
}

#[test]
fn service_that_names_different_nodes_for_one_address_is_masqueraded() {
    let mut cluster = cluster_of_two_tenants();
    cluster.set_nodes("victim", &[Some("n1"), Some("n2")]);
    cluster.set_nodes("attacker", &[Some("n1")]);
    assert_eq!(cluster.masqueraded_names(), ["default/attacker", "default/victim"]);
    cluster.set_nodes("victim", &[Some("n1"), Some("n1")]);
    assert!(cluster.masqueraded_names().is_empty());
}

#[test]
fn endpoint_change_begins_and_ends_a_conflict() {
    let mut cluster = cluster_of_two_tenants();
    cluster.apply(service("elsewhere").tcp(82).annotation(NODE_SELECTOR, "pool=edge"));
    cluster.apply(service("cluster-ip").tcp(83).service_type("ClusterIP"));
    cluster.set_nodes("victim", &[Some("n1")]);
    cluster.set_nodes("elsewhere", &[Some("n1")]);
    let mut plan = cluster.plan();
    let all_names = ["default/attacker", "default/victim", "default/elsewhere"];
    for (name, nodes, expected_names) in [
        ("attacker", &[Some("n1")][..], &[][..]),
        ("attacker", &[Some("n2")], &all_names),
        ("attacker", &[None], &all_names),
        ("attacker", &[], &["default/attacker"]),
        ("elsewhere", &[Some("n1"), Some("n2")], &all_names),
        ("elsewhere", &[Some("n2")], &["default/attacker", "default/victim"]),
        ("elsewhere", &[], &["default/attacker"]),
    ] {
        assert_eq!(cluster.change_slices(&mut plan, name, &slice_of_nodes(nodes)), Some(true));
        assert_eq!(masqueraded_names(&plan), expected_names, "{name} {nodes:?}");
    }
    // Only Services that an agent may serve count.
    let slices = slice_of_nodes(&[Some("n2")]);
    assert_eq!(cluster.change_slices(&mut plan, "cluster-ip", &slices), Some(false));
    assert_eq!(masqueraded_names(&plan), ["default/attacker"]);
}

#[test]
fn deleted_service_ends_a_conflict() {
    let mut cluster = cluster_of_two_tenants();
    cluster.set_nodes("victim", &[Some("n1")]);
    cluster.set_nodes("attacker", &[Some("n2")]);
    assert_eq!(cluster.masqueraded_names(), ["default/attacker", "default/victim"]);
    cluster.services.remove(&key("attacker"));
    assert!(cluster.masqueraded_names().is_empty());
}

#[test]
fn service_with_policy_local_keeps_its_endpoint_in_a_conflict() {
    let mut cluster = cluster_of_two_tenants();
    cluster.apply(service("victim").tcp(80).traffic_policy_local());
    cluster.set_nodes("victim", &[Some("n1")]);
    cluster.set_nodes("attacker", &[Some("n2")]);
    let config = cluster.plan().config;
    let victim = config.services.iter().find(|service| service.name == "default/victim").unwrap();
    assert_eq!(config.node.select_endpoints(victim, &victim.ports[0], Family::V4).len(), 1);
    assert_eq!(cluster.masqueraded_names(), ["default/attacker", "default/victim"]);
}
