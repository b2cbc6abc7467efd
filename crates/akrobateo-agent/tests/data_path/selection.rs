//! The endpoints that receive a Service's packets: by readiness, externalTrafficPolicy, and hints.

use std::collections::BTreeSet;

use akrobateo_agent::config::{Endpoint, Service};
use akrobateo_agent::probe::PeerPath;
use akrobateo_core::{Family, Protocol};
use netns_testkit::isolated;
use netns_testkit::laboratory::Options;

use crate::cluster::{Cluster, PROTOCOLS, SERVICE_PORT, all_pod_endpoints, pod_endpoints, service};

/// The number of requests after which each of two endpoints has received a request, with a probability of 0.999999.
const REQUEST_COUNT: usize = 20;

/// Applies a Service on all nodes. Returns the names of the pods that answer on node 1.
fn apply_and_list_backends(cluster: &mut Cluster, service: Service) -> Vec<String> {
    cluster.services = vec![service];
    cluster.apply_all();
    let mut backends = BTreeSet::new();
    for (protocol, family) in PROTOCOLS.into_iter().flat_map(|it| Family::ALL.map(|family| (it, family))) {
        let mut backends_of_family = BTreeSet::new();
        for _ in 0..REQUEST_COUNT {
            backends_of_family
                .insert(cluster.request(&cluster.laboratory.client, protocol, family, 1).unwrap().backend);
        }
        assert!(
            backends.is_empty() || backends == backends_of_family,
            "{protocol} {family}: {backends_of_family:?}"
        );
        backends = backends_of_family;
    }
    backends.into_iter().collect()
}

fn with_terminating_endpoints(endpoints: Vec<Endpoint>) -> Vec<Endpoint> {
    let terminating_endpoint =
        |endpoint| Endpoint { is_ready: false, is_serving_while_terminating: true, ..endpoint };
    endpoints.into_iter().map(terminating_endpoint).collect()
}

#[test]
fn terminating_endpoints_answer_only_without_ready_endpoints() {
    isolated(|| {
        let mut cluster = Cluster::new(&Options::default(), Some(PeerPath::Direct));
        let [first, second] = [1, 2].map(|node| pod_endpoints(&cluster.laboratory, node, 1));
        let all_endpoints = [with_terminating_endpoints(first.clone()), second].concat();
        assert_eq!(apply_and_list_backends(&mut cluster, service(SERVICE_PORT, &all_endpoints)), ["n2p1"]);
        assert_eq!(
            apply_and_list_backends(&mut cluster, service(SERVICE_PORT, &with_terminating_endpoints(first))),
            ["n1p1"]
        );
    });
}

#[test]
fn policy_local_selects_endpoints_of_the_requested_node() {
    isolated(|| {
        let mut cluster = Cluster::new(&Options::default(), Some(PeerPath::Direct));
        let endpoints = all_pod_endpoints(&cluster.laboratory);
        let local_service = Service { is_traffic_policy_local: true, ..service(SERVICE_PORT, &endpoints) };
        assert_eq!(apply_and_list_backends(&mut cluster, local_service), ["n1p1", "n1p2"]);
        let remote = pod_endpoints(&cluster.laboratory, 2, 1);
        cluster.services = vec![Service { is_traffic_policy_local: true, ..service(SERVICE_PORT, &remote) }];
        cluster.apply_all();
        cluster.request(&cluster.laboratory.client, Protocol::Tcp, Family::V4, 1).unwrap_err();
        cluster.request(&cluster.laboratory.client, Protocol::Tcp, Family::V4, 2).unwrap();
    });
}

#[test]
fn hints_for_nodes_select_endpoints() {
    isolated(|| {
        let mut cluster = Cluster::new(&Options::default(), Some(PeerPath::Direct));
        let endpoint_with_hint = |node: usize, hint: &str| {
            let hint_nodes = |endpoint| Endpoint { hinted_nodes: vec![hint.to_owned()], ..endpoint };
            pod_endpoints(&cluster.laboratory, node, 1).into_iter().map(hint_nodes).collect::<Vec<_>>()
        };
        let endpoints_with_matching_hints =
            [endpoint_with_hint(2, "node1"), endpoint_with_hint(3, "node3")].concat();
        let other_endpoints = [endpoint_with_hint(2, "node2"), endpoint_with_hint(3, "node3")].concat();
        assert_eq!(
            apply_and_list_backends(&mut cluster, service(SERVICE_PORT, &endpoints_with_matching_hints)),
            ["n2p1"]
        );
        // Hints have no effect if no hint is for this node.
        assert_eq!(
            apply_and_list_backends(&mut cluster, service(SERVICE_PORT, &other_endpoints)),
            ["n2p1", "n3p1"]
        );
    });
}

#[test]
fn node_that_does_not_serve_a_service_returns_replies_to_the_node_of_the_client() {
    isolated(|| {
        for path in PeerPath::ALL {
            let mut cluster = Cluster::new(&Options::default(), Some(path));
            let endpoint = pod_endpoints(&cluster.laboratory, 2, 1);
            cluster.services = vec![service(SERVICE_PORT, &endpoint)];
            cluster.apply_all();
            // Node 2 has the Service's endpoint, and no frontend of the Service.
            let mut config = cluster.config(2);
            config.services[0].families.clear();
            cluster.apply(2, &config);
            let seen_addresses = cluster.seen_client_addresses(&cluster.laboratory.client, 1, "n2p1");
            let clients = Family::ALL.map(netns_testkit::laboratory::addresses::client_address);
            assert_eq!(seen_addresses, clients, "{path:?}");
            cluster.request(&cluster.laboratory.client, Protocol::Tcp, Family::V4, 2).unwrap_err();
        }
    });
}
