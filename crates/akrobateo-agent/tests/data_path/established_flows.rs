//! Established flows survive changes of the configuration if their endpoints remain.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Instant;

use akrobateo_agent::config::{Endpoint, NodeConfig, Service};
use akrobateo_agent::probe::PeerPath;
use akrobateo_agent::table::NodeTables;
use akrobateo_core::{Family, Protocol};
use netfilter::conntrack::{Conntrack, EntryFilter};
use netns_testkit::laboratory::{Flow, Options, PodNetwork};
use netns_testkit::{DEADLINE, isolated};

use crate::cluster::{
    Cluster, ClusterMode, PROTOCOLS, SERVICE_PORT, all_pod_endpoints, pod_endpoints, service,
};
use crate::random::{Random, for_each_seed};
use crate::random_config::change_layout;

/// Opens a flow of each protocol and family to a port of a node.
fn open_flows(cluster: &Cluster, node: usize, port: u16) -> Vec<Flow> {
    let addresses = &cluster.laboratory.node(node).addresses;
    let flows = PROTOCOLS.into_iter().flat_map(|protocol| addresses.iter().map(move |ip| (protocol, *ip)));
    flows
        .map(|(protocol, ip)| {
            let to = SocketAddr::new(ip, port);
            cluster.laboratory.client.run(|| Flow::open(protocol, None, to, DEADLINE / 10).unwrap())
        })
        .collect()
}

/// Sends a request on each flow. The endpoint `backend` must answer.
fn check_backend(flows: &mut [Flow], backend: &str, context: &str) {
    for flow in flows {
        let answer = flow.ask(1).unwrap_or_else(|error| panic!("{context}: {flow:?}: {error}"));
        assert_eq!(answer.backend, backend, "{context}");
    }
}

#[test]
fn established_flows_survive_each_change_of_the_path() {
    isolated(|| {
        let paths = [None, Some(PeerPath::Direct), Some(PeerPath::Tunnel)];
        let changes = paths.into_iter().flat_map(|before| paths.map(|after| (before, after)));
        let cases = changes.flat_map(|paths| [true, false].map(|has_egress_hook| (paths, has_egress_hook)));
        for ((before, after), has_egress_hook) in cases {
            let mode = ClusterMode { path: before, has_egress_hook };
            let mut cluster = Cluster::start(&Options::default(), mode, |laboratory| {
                vec![service(SERVICE_PORT, &pod_endpoints(laboratory, 2, 1))]
            });
            let mut flows = open_flows(&cluster, 1, SERVICE_PORT);
            check_backend(&mut flows, "n2p1", "before the change");
            cluster.path = after;
            // The nodes learn of the change one after the other.
            for node in [1, 2, 3] {
                cluster.apply(node, &cluster.config(node));
                check_backend(&mut flows, "n2p1", &format!("{mode:?} to {after:?} on node {node}"));
            }
        }
    });
}

#[test]
fn established_flows_survive_the_silence_of_the_other_agents() {
    isolated(|| {
        let cases = PeerPath::ALL.into_iter().flat_map(|path| [true, false].map(|hook| (path, hook)));
        for (path, has_egress_hook) in cases {
            let mode = ClusterMode { path: Some(path), has_egress_hook };
            let pod_network = match path {
                PeerPath::Direct => PodNetwork::HostRoutes,
                PeerPath::Tunnel => PodNetwork::Overlay,
            };
            let options = Options { pod_network, ..Options::default() };
            let cluster = Cluster::start(&options, mode, |laboratory| {
                vec![
                    service(SERVICE_PORT, &pod_endpoints(laboratory, 2, 1)),
                    service(SERVICE_PORT + 1, &pod_endpoints(laboratory, 1, 1)),
                ]
            });
            let mut flows_to_silent_node = open_flows(&cluster, 1, SERVICE_PORT);
            let mut flows_through_silent_node = open_flows(&cluster, 2, SERVICE_PORT + 1);
            // Node 1 does not receive answers from the agents of the other nodes, but the rules of these nodes remain.
            let mut config = NodeConfig { probes_tunnel: false, ..cluster.config(1) };
            for peer in &mut config.peers {
                peer.is_silent = true;
                peer.paths.clear();
            }
            for step in ["first change", "restart of the agent"] {
                cluster.apply(1, &config);
                check_backend(&mut flows_to_silent_node, "n2p1", &format!("{mode:?}: {step}"));
                check_backend(&mut flows_through_silent_node, "n1p1", &format!("{mode:?}: {step}"));
            }
        }
    });
}

#[test]
fn connections_to_former_endpoints_survive_while_their_pods_run() {
    isolated(|| {
        for path in [None, Some(PeerPath::Direct), Some(PeerPath::Tunnel)] {
            // A second Service also keeps the clients' addresses.
            let mut cluster = Cluster::start(&Options::default(), path, |laboratory| {
                vec![
                    service(SERVICE_PORT, &pod_endpoints(laboratory, 2, 1)),
                    service(SERVICE_PORT + 1, &pod_endpoints(laboratory, 3, 1)),
                ]
            });
            let open_connections = |cluster: &Cluster| -> Vec<_> {
                let addresses = &cluster.laboratory.node(1).addresses;
                let open = |ip: &IpAddr| {
                    let to = SocketAddr::new(*ip, SERVICE_PORT);
                    cluster
                        .laboratory
                        .client
                        .run(|| Flow::open(Protocol::Tcp, None, to, DEADLINE / 10).unwrap())
                };
                addresses.iter().map(open).collect()
            };
            let services = cluster.services.clone();
            let service_with_other_endpoint =
                service(SERVICE_PORT, &pod_endpoints(&cluster.laboratory, 3, 2));
            let masqueraded_service = Service { keeps_client_address: false, ..services[0].clone() };
            for changed_service in [Some(service_with_other_endpoint), Some(masqueraded_service), None] {
                let mut flows = open_connections(&cluster);
                check_backend(&mut flows, "n2p1", "before the change");
                cluster.services = changed_service.into_iter().chain([services[1].clone()]).collect();
                // The nodes learn of the change one after the other. Repeated changes of the same node must not end the
                // connections.
                for node in [1, 2, 3, 2, 1] {
                    let mut config = cluster.config(node);
                    config.services.push(service(SERVICE_PORT + 2, &[]));
                    cluster.apply(node, &config);
                    check_backend(
                        &mut flows,
                        "n2p1",
                        &format!("{path:?} on node {node}: {:?}", cluster.services),
                    );
                }
                cluster.services = services.clone();
                cluster.apply_all();
                check_backend(&mut flows, "n2p1", "after the change");
            }
        }
    });
}

#[test]
fn new_flows_reach_an_endpoint_whose_address_moved_to_another_node() {
    isolated(|| {
        for path in [None, Some(PeerPath::Direct), Some(PeerPath::Tunnel)] {
            let mut cluster = Cluster::start(&Options::default(), path, |laboratory| {
                vec![service(SERVICE_PORT, &pod_endpoints(laboratory, 2, 1))]
            });
            let mut flows = open_flows(&cluster, 1, SERVICE_PORT);
            check_backend(&mut flows, "n2p1", "before the change");
            // The endpoint's address now belongs to a pod of the node that the client addressed.
            let node = &cluster.laboratory.node(1).namespace;
            let pod = cluster.laboratory.pod(1, 2);
            for address in cluster.laboratory.pod(2, 1).addresses {
                pod.namespace.add_addresses("eth0", &[address]);
                let prefix_len = if address.is_ipv4() { 32 } else { 128 };
                node.ip(&format!("route add {address}/{prefix_len} dev cni0"));
            }
            let ports = cluster.services.iter_mut().flat_map(|service| &mut service.ports);
            ports.flat_map(|port| &mut port.endpoints).for_each(|endpoint| endpoint.node = Some(1));
            cluster.apply_all();
            // The test uses only TCP, because the backend's answers over UDP have the pod's first address.
            for family in Family::ALL {
                let client = &cluster.laboratory.client;
                let answer = cluster.request(client, Protocol::Tcp, family, 1);
                assert_eq!(answer.unwrap().backend, "n1p2", "{path:?} {family}");
            }
        }
    });
}

#[test]
fn elements_of_former_endpoints_are_deleted_after_their_connections() {
    isolated(|| {
        let mut cluster = Cluster::start(&Options::default(), Some(PeerPath::Tunnel), |laboratory| {
            vec![service(SERVICE_PORT, &pod_endpoints(laboratory, 2, 1))]
        });
        let mut flows = open_flows(&cluster, 1, SERVICE_PORT);
        check_backend(&mut flows, "n2p1", "before the change");
        cluster.services = vec![service(SERVICE_PORT, &pod_endpoints(&cluster.laboratory, 3, 1))];
        let has_element = |node: usize, set: &str| {
            let table = cluster.laboratory.node(node).namespace.nft("list table inet akrobateo");
            let set = table.split_once(&format!(" {set} {{")).unwrap().1.split_once("\n\t}").unwrap().0;
            set.contains(&cluster.laboratory.pod(2, 1).address(Family::V4).to_string())
        };
        cluster.apply_all();
        assert!(has_element(1, "tunnel_marks4") && has_element(2, "own_destinations4"));
        // Closed connections remain in conntrack for some time, so the test deletes their entries.
        drop(flows);
        for node in [1, 2] {
            let namespace = &cluster.laboratory.node(node).namespace;
            let conntrack = namespace.run(|| Conntrack::open().unwrap());
            for family in Family::ALL {
                conntrack.delete_entries_if(&EntryFilter::new(family), |_| true).unwrap();
            }
        }
        cluster.apply_all();
        assert!(!has_element(1, "tunnel_marks4") && !has_element(2, "own_destinations4"));
    });
}

/// The number of random sequences, and the number of changes in each sequence.
const SEQUENCE_COUNT: u64 = 20;
const CHANGES_PER_SEQUENCE: usize = 12;

/// Changes a part of the configuration of one node. The endpoints `remaining_endpoints` and the port [`SERVICE_PORT`]
/// remain, and the Service keeps the clients' addresses.
fn change_node(config: &mut NodeConfig, remaining_endpoints: &[Endpoint], random: &mut Random) {
    let service = &mut config.services[0];
    let other_endpoints: Vec<_> =
        service.ports[0].endpoints.iter().filter(|it| !remaining_endpoints.contains(it)).cloned().collect();
    match random.number_below(6) {
        0 => {
            for port in &mut service.ports {
                for endpoint in port.endpoints.iter_mut().filter(|it| !remaining_endpoints.contains(it)) {
                    endpoint.is_ready = random.random_bool(50);
                }
            }
        }
        1 => {
            let chosen_endpoints = random.choose_some(&other_endpoints);
            let endpoints = [remaining_endpoints, &chosen_endpoints].concat();
            service.ports.iter_mut().for_each(|port| port.endpoints.clone_from(&endpoints));
        }
        2 => service.affinity_seconds = *random.choose(&[None, NonZeroU32::new(60), NonZeroU32::new(90)]),
        3 => {
            let ranges = [None, Some(["0.0.0.0/0", "::/0"]), Some(["192.0.2.0/24", "fd77::/64"])];
            let ranges = *random.choose(&ranges);
            service.source_ranges = ranges.map(|it| it.map(|range| range.parse().unwrap()).into());
        }
        4 => {
            let other_service = self::service(
                SERVICE_PORT + 1 + u16::try_from(random.number_below(3)).unwrap(),
                remaining_endpoints,
            );
            match config.services.iter().position(|service| service.name == other_service.name) {
                Some(index) => _ = config.services.remove(index),
                None => config.services.push(other_service),
            }
        }
        _ => {
            for peer in &mut config.peers {
                peer.set_paths(Family::ALL.map(|family| (family, *random.choose(&PeerPath::ALL))).into());
            }
        }
    }
}

/// Applies a configuration as a new process does. In some cases, another program has deleted a table before, or the
/// tables came from another version of the agent ([`change_layout`]).
fn apply_after_random_disturbance(cluster: &Cluster, node: usize, config: &NodeConfig, random: &mut Random) {
    if random.random_bool(20) {
        let families: &[_] = if config.node.has_egress_hook { &["inet", "netdev"] } else { &["inet"] };
        let family = *random.choose(families);
        cluster.laboratory.node(node).namespace.nft(&format!("delete table {family} akrobateo"));
    }
    cluster.with_data_path(node, |data_path| {
        if random.random_bool(20) {
            let mut tables = NodeTables::new(config);
            change_layout(&mut tables);
            data_path.apply_tables(config, |_| tables.clone()).unwrap();
        }
        data_path.apply(config).unwrap();
    });
}

#[test]
fn established_flows_to_remaining_endpoints_survive_random_sequences() {
    isolated(|| {
        let mut cluster = Cluster::new(&Options::default(), Some(PeerPath::Direct));
        let remaining_endpoints = pod_endpoints(&cluster.laboratory, 2, 1);
        for_each_seed(SEQUENCE_COUNT, |seed| {
            let mut random = Random::new(seed);
            cluster.services = vec![service(SERVICE_PORT, &remaining_endpoints)];
            cluster.path = Some(*random.choose(&PeerPath::ALL));
            cluster.has_egress_hook = random.random_bool(70);
            cluster.apply_all();
            let mut flows: Vec<_> = [1, 2, 3]
                .map(|node| open_flows(&cluster, node, SERVICE_PORT))
                .into_iter()
                .flatten()
                .collect();
            check_backend(&mut flows, "n2p1", "before the changes");
            cluster.services = vec![service(SERVICE_PORT, &all_pod_endpoints(&cluster.laboratory))];
            let mut configs: Vec<_> = [1, 2, 3].map(|node| cluster.config(node)).into();
            for step in 0..CHANGES_PER_SEQUENCE {
                let node = random.number_below(configs.len());
                for _ in 0..=random.number_below(3) {
                    change_node(&mut configs[node], &remaining_endpoints, &mut random);
                }
                apply_after_random_disturbance(&cluster, node + 1, &configs[node], &mut random);
                check_backend(
                    &mut flows,
                    "n2p1",
                    &format!("step {step}, node {}: {:?}", node + 1, configs[node]),
                );
            }
        });
    });
}

#[test]
fn one_search_finds_the_stale_flows_of_several_changes() {
    isolated(|| {
        let ports = [SERVICE_PORT, SERVICE_PORT + 1];
        let mut cluster = Cluster::start(&Options::default(), None, |laboratory| {
            ports.map(|port| service(port, &pod_endpoints(laboratory, 1, 1))).into()
        });
        let client = &cluster.laboratory.client;
        let mut flows: Vec<_> = ports
            .map(|port| SocketAddr::new(cluster.laboratory.node(1).address(Family::V4), port))
            .map(|to| client.run(|| Flow::open(Protocol::Udp, None, to, DEADLINE).unwrap()))
            .into();
        check_backend(&mut flows, "n1p1", "before the changes");
        let first_config = cluster.config(1);
        let configs = [0, 1].map(|index| {
            cluster.services[index] = service(ports[index], &pod_endpoints(&cluster.laboratory, 1, 2));
            cluster.config(1)
        });
        let deleted_count = cluster.with_data_path(1, |data_path| {
            data_path.apply(&first_config).unwrap();
            for config in &configs {
                data_path.install(config).unwrap();
                data_path.delete_stale_affinities().unwrap();
                let now = Instant::now();
                assert_eq!(data_path.stale_flows_at(now), Some(now));
                assert!(!data_path.must_check_leftover_flows());
            }
            let now = Instant::now();
            let deleted_count = data_path.delete_stale_flows(now).unwrap();
            assert_eq!(data_path.stale_flows_at(now), None);
            deleted_count
        });
        assert_eq!(deleted_count, flows.len());
        check_backend(&mut flows, "n1p2", "after the changes");
    });
}

#[test]
fn udp_flow_keeps_its_path_for_some_time_after_the_probe_has_lost_the_path() {
    isolated(|| {
        for path in PeerPath::ALL {
            let cluster = Cluster::start(&Options::default(), Some(path), |laboratory| {
                vec![service(SERVICE_PORT, &pod_endpoints(laboratory, 2, 1))]
            });
            let to = SocketAddr::new(cluster.laboratory.node(1).address(Family::V4), SERVICE_PORT);
            let client = &cluster.laboratory.client;
            let mut flow = client.run(|| Flow::open(Protocol::Udp, None, to, DEADLINE).unwrap());
            let client_address = flow.ask(1).unwrap().client;
            let with_path = cluster.config(1);
            let mut without_path = with_path.clone();
            without_path.peers.iter_mut().for_each(|peer| peer.paths.clear());
            let node_address = cluster.with_data_path(1, |data_path| {
                data_path.apply(&with_path).unwrap();
                for (config, is_delayed) in
                    [(&without_path, true), (&with_path, false), (&without_path, true)]
                {
                    data_path.apply(config).unwrap();
                    assert_eq!(data_path.stale_flows_at(Instant::now()).is_some(), is_delayed, "{path:?}");
                    assert_eq!(flow.ask(1).unwrap().client, client_address, "{path:?}");
                }
                let stale_at = data_path.stale_flows_at(Instant::now()).unwrap();
                assert_eq!(data_path.delete_stale_flows(stale_at).unwrap(), 1, "{path:?}");
                assert_eq!(data_path.stale_flows_at(stale_at), None, "{path:?}");
                flow.ask(1).unwrap().client
            });
            assert_ne!(node_address.ip(), client_address.ip(), "{path:?}");
        }
    });
}
