//! Tests of the clients that a Service accepts, and of the endpoints that the clients reach.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use akrobateo_agent::config::{Endpoint, Service};
use akrobateo_agent::probe::PeerPath;
use akrobateo_core::{Family, Protocol};
use netns_testkit::laboratory::addresses::{
    CLUSTER_IP_PORT, HOST_PORT, client_address, cluster_ip, node_port,
};
use netns_testkit::laboratory::{Flow, KubeProxy, Options, ask};
use netns_testkit::{DEADLINE, Namespace, isolated};

use crate::cluster::{Cluster, PROTOCOLS, SERVICE_PORT, all_pod_endpoints, pod_endpoints, service};

/// The time after which the tests consider a packet lost.
const LOSS_TIMEOUT: Duration = Duration::from_millis(300);

fn is_request_lost(
    cluster: &Cluster,
    client_netns: &Namespace,
    protocol: Protocol,
    family: Family,
    node: usize,
) -> bool {
    let to = SocketAddr::new(cluster.laboratory.node(node).address(family), SERVICE_PORT);
    client_netns
        .run(|| ask(protocol, to, LOSS_TIMEOUT))
        .is_err_and(|error| error.kind() == ErrorKind::TimedOut)
}

#[test]
fn each_endpoint_gets_its_share_of_the_clients() {
    isolated(|| {
        let cluster = Cluster::start(&Options::default(), Some(PeerPath::Direct), |laboratory| {
            vec![service(SERVICE_PORT, &all_pod_endpoints(laboratory))]
        });
        let mut counts = BTreeMap::new();
        for _ in 0..300 {
            let answer = cluster.request(&cluster.laboratory.client, Protocol::Udp, Family::V4, 1).unwrap();
            assert_eq!(answer.client.ip(), client_address(Family::V4));
            *counts.entry(answer.backend).or_insert(0) += 1;
        }
        // Each of the six endpoints has 50 clients on average. An endpoint has 20 or fewer clients once in a million
        // runs.
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|count| *count > 20), "{counts:?}");
    });
}

#[test]
fn service_without_endpoints_refuses_clients_at_once() {
    isolated(|| {
        for kube_proxy in [KubeProxy::Iptables, KubeProxy::Nftables] {
            let options = Options { kube_proxy, ..Options::default() };
            let cluster = Cluster::start(&options, Some(PeerPath::Direct), |laboratory| {
                // Only node 2 has an endpoint.
                let service = service(SERVICE_PORT, &pod_endpoints(laboratory, 2, 1));
                vec![Service { is_traffic_policy_local: true, ..service }]
            });
            let laboratory = &cluster.laboratory;
            let pod = &laboratory.pod(1, 1).namespace;
            for from in
                [&laboratory.client, &laboratory.node(1).namespace, &laboratory.node(3).namespace, pod]
            {
                for (protocol, family) in
                    PROTOCOLS.into_iter().flat_map(|it| Family::ALL.map(|family| (it, family)))
                {
                    let start = Instant::now();
                    let error = cluster.request(from, protocol, family, 1).unwrap_err();
                    // If the kernel refuses a datagram of the same host, the error is "operation not permitted".
                    let is_refused = [ErrorKind::ConnectionRefused, ErrorKind::PermissionDenied];
                    assert!(is_refused.contains(&error.kind()), "{protocol} {family}: {error}");
                    assert!(start.elapsed() < DEADLINE / 2);
                }
                cluster.seen_client_addresses(from, 2, "n2p1");
            }
        }
    });
}

#[test]
fn only_clients_in_the_source_ranges_can_connect() {
    isolated(|| {
        let cluster = Cluster::start(&Options::default(), Some(PeerPath::Direct), |laboratory| {
            let client_range = format!("{}/32", client_address(Family::V4)).parse().unwrap();
            let service = service(SERVICE_PORT, &pod_endpoints(laboratory, 2, 1));
            vec![Service {
                source_ranges: Some(vec![client_range, "10.244.3.0/24".parse().unwrap()]),
                ..service
            }]
        });
        let laboratory = &cluster.laboratory;
        for protocol in PROTOCOLS {
            for node in [1, 2] {
                let answer = cluster.request(&laboratory.client, protocol, Family::V4, node).unwrap();
                assert_eq!(answer.client.ip(), client_address(Family::V4));
                assert!(is_request_lost(&cluster, &laboratory.client, protocol, Family::V6, node));
                // The clients inside the cluster have addresses outside of the source ranges.
                assert!(is_request_lost(&cluster, &laboratory.node(3).namespace, protocol, Family::V4, node));
                assert!(is_request_lost(
                    &cluster,
                    &laboratory.pod(1, 1).namespace,
                    protocol,
                    Family::V4,
                    node
                ));
                // This pod has an address in the source ranges. The pod sends to its own node, because the CNI
                // masquerades packets to other nodes.
                cluster.request(&laboratory.pod(3, 1).namespace, protocol, Family::V4, 3).unwrap();
            }
        }
        // A Service without endpoints refuses only allowed clients. The Service drops the packets of other clients.
        let mut cluster = cluster;
        cluster.services[0].ports.iter_mut().for_each(|port| port.endpoints.clear());
        cluster.apply_all();
        let error = cluster.request(&cluster.laboratory.client, Protocol::Tcp, Family::V4, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(is_request_lost(&cluster, &cluster.laboratory.client, Protocol::Tcp, Family::V6, 1));
    });
}

#[test]
fn client_with_affinity_keeps_its_endpoint_while_the_endpoint_exists() {
    isolated(|| {
        let affinity = |seconds, endpoints: &[Endpoint]| {
            vec![Service { affinity_seconds: NonZeroU32::new(seconds), ..service(SERVICE_PORT, endpoints) }]
        };
        let mut cluster = Cluster::start(&Options::default(), Some(PeerPath::Direct), |laboratory| {
            affinity(10_800, &all_pod_endpoints(laboratory))
        });
        let backend = |cluster: &Cluster, family, protocol| {
            let answers: Vec<_> = (0..12)
                .map(|_| cluster.request(&cluster.laboratory.client, protocol, family, 1).unwrap().backend)
                .collect();
            assert!(answers.iter().all(|backend| *backend == answers[0]), "{answers:?}");
            answers[0].clone()
        };
        for family in Family::ALL {
            for protocol in PROTOCOLS {
                let first_backend = backend(&cluster, family, protocol);
                // Changes of other Services do not change the client's endpoint.
                cluster.services.push(service(SERVICE_PORT + 1, &[]));
                cluster.apply_all();
                cluster.services.pop();
                cluster.apply_all();
                assert_eq!(backend(&cluster, family, protocol), first_backend);
                // If the endpoint disappears, another endpoint answers at once.
                let services_before = cluster.services.clone();
                for port in &mut cluster.services[0].ports {
                    port.endpoints.retain(|endpoint| {
                        let pods = cluster.laboratory.nodes.iter().flat_map(|node| &node.pods);
                        let pod = pods.into_iter().find(|pod| pod.addresses.contains(&endpoint.address.ip()));
                        pod.unwrap().name != first_backend
                    });
                }
                cluster.apply_all();
                assert_ne!(backend(&cluster, family, protocol), first_backend);
                cluster.services = services_before;
                cluster.apply_all();
            }
        }
        // An affinity ends if the client does not open a flow within the timeout.
        cluster.services = affinity(1, &all_pod_endpoints(&cluster.laboratory));
        cluster.apply_all();
        let backends: Vec<_> = (0..6)
            .map(|_| {
                std::thread::sleep(Duration::from_millis(1200));
                backend(&cluster, Family::V4, Protocol::Tcp)
            })
            .collect();
        assert!(backends.iter().any(|backend| *backend != backends[0]), "{backends:?}");
    });
}

#[test]
fn udp_flows_follow_their_endpoints() {
    isolated(|| {
        let mut cluster = Cluster::new(&Options::default(), Some(PeerPath::Direct));
        cluster.apply_all();
        for family in Family::ALL {
            let to = SocketAddr::new(cluster.laboratory.node(1).address(family), SERVICE_PORT);
            let open = || {
                cluster.laboratory.client.run(|| Flow::open(Protocol::Udp, None, to, LOSS_TIMEOUT).unwrap())
            };
            // The flow begins before its Service exists.
            let mut flow = open();
            flow.ask(1).unwrap_err();
            cluster.services = vec![service(SERVICE_PORT, &pod_endpoints(&cluster.laboratory, 2, 1))];
            cluster.apply_all();
            assert_eq!(flow.ask(1).unwrap().backend, "n2p1", "{family}");
            // The endpoint of the Service changes, and then the Service is deleted.
            cluster.services = vec![service(SERVICE_PORT, &pod_endpoints(&cluster.laboratory, 1, 1))];
            cluster.apply_all();
            assert_eq!(flow.ask(1).unwrap().backend, "n1p1", "{family}");
            cluster.services = Vec::new();
            cluster.apply_all();
            flow.ask(1).unwrap_err();
        }
    });
}

#[test]
fn established_flows_survive_changes_of_other_endpoints_and_of_the_rules() {
    isolated(|| {
        for path in PeerPath::ALL {
            let mut cluster = Cluster::start(&Options::default(), Some(path), |laboratory| {
                vec![service(SERVICE_PORT, &pod_endpoints(laboratory, 2, 1))]
            });
            let open = |cluster: &Cluster, protocol, family| {
                let to = SocketAddr::new(cluster.laboratory.node(1).address(family), SERVICE_PORT);
                cluster.laboratory.client.run(|| Flow::open(protocol, None, to, DEADLINE).unwrap())
            };
            let mut flows: Vec<_> = PROTOCOLS
                .into_iter()
                .flat_map(|protocol| Family::ALL.map(|family| (protocol, family)))
                .map(|(protocol, family)| open(&cluster, protocol, family))
                .collect();
            let mut check_backend =
                || flows.iter_mut().for_each(|flow| assert_eq!(flow.ask(1).unwrap().backend, "n2p1"));
            check_backend();
            let endpoints =
                [pod_endpoints(&cluster.laboratory, 2, 1), pod_endpoints(&cluster.laboratory, 3, 1)].concat();
            cluster.services = vec![service(SERVICE_PORT, &endpoints), service(SERVICE_PORT + 1, &endpoints)];
            cluster.apply_all();
            check_backend();
            cluster.services[0].affinity_seconds = NonZeroU32::new(60);
            cluster.apply_all();
            check_backend();
            cluster.services[0].source_ranges =
                Some(vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()]);
            cluster.services.pop();
            cluster.apply_all();
            check_backend();
        }
    });
}

#[test]
fn client_can_use_one_source_port_for_several_nodes_and_the_pod() {
    isolated(|| {
        for path in PeerPath::ALL {
            let cluster = Cluster::start(&Options::default(), Some(path), |laboratory| {
                vec![service(SERVICE_PORT, &pod_endpoints(laboratory, 2, 1))]
            });
            let laboratory = &cluster.laboratory;
            for protocol in PROTOCOLS {
                for family in Family::ALL {
                    let pod = SocketAddr::new(laboratory.pod(2, 1).address(family), 8080);
                    let nodes = laboratory
                        .nodes
                        .iter()
                        .map(|node| SocketAddr::new(node.address(family), SERVICE_PORT));
                    let client_socket = SocketAddr::new(client_address(family), 40_000);
                    let mut flows: Vec<_> = nodes
                        .chain([pod])
                        .map(|to| {
                            laboratory
                                .client
                                .run(|| Flow::open(protocol, Some(client_socket), to, DEADLINE).unwrap())
                        })
                        .collect();
                    // The pod sees the client's address. Some flows have a different source port. With the same port,
                    // the pod could not distinguish the flows.
                    let mut ask_on_all_flows = || -> Vec<_> {
                        let answers = flows.iter_mut().map(|flow| flow.ask(1).unwrap());
                        answers.map(|answer| (answer.backend, answer.client)).collect()
                    };
                    let answers = ask_on_all_flows();
                    assert!(
                        answers
                            .iter()
                            .all(|(backend, client)| backend == "n2p1" && client.ip() == client_socket.ip())
                    );
                    let clients: BTreeSet<_> = answers.iter().map(|(_, client)| client).collect();
                    assert_eq!(clients.len(), answers.len(), "{path:?} {protocol}");
                    assert_eq!(ask_on_all_flows(), answers);
                }
            }
        }
    });
}

#[test]
fn agent_precedes_kube_proxy_and_portmap_but_their_own_ports_work() {
    isolated(|| {
        for kube_proxy in [KubeProxy::Iptables, KubeProxy::Nftables] {
            for (has_load_balancer_address, has_host_port_80) in [(true, false), (false, true), (true, true)]
            {
                let options =
                    Options { kube_proxy, has_load_balancer_address, has_host_port_80, ..Options::default() };
                let cluster = Cluster::start(&options, Some(PeerPath::Direct), |laboratory| {
                    vec![service(SERVICE_PORT, &pod_endpoints(laboratory, 3, 1))]
                });
                let laboratory = &cluster.laboratory;
                let clients: Vec<IpAddr> = Family::ALL.map(client_address).into();
                assert_eq!(cluster.seen_client_addresses(&laboratory.client, 1, "n3p1"), clients);
                cluster.seen_client_addresses(&laboratory.pod(1, 1).namespace, 1, "n3p1");
                for family in Family::ALL {
                    let node = laboratory.node(1).address(family);
                    let request_over_tcp_and_udp = |from: &Namespace, to: (IpAddr, u16)| {
                        from.run(|| ask(Protocol::Tcp, to.into(), DEADLINE)).unwrap().backend
                    };
                    assert_eq!(request_over_tcp_and_udp(&laboratory.client, (node, HOST_PORT)), "n1p2");
                    assert_eq!(request_over_tcp_and_udp(&laboratory.client, (node, node_port(2))), "n2p1");
                    let cluster_ip = (cluster_ip(family, 2), CLUSTER_IP_PORT);
                    assert_eq!(request_over_tcp_and_udp(&laboratory.pod(1, 1).namespace, cluster_ip), "n2p1");
                }
            }
        }
    });
}
