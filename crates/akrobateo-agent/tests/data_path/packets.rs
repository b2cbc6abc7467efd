//! Packets of all lengths, errors of the network, and packets that the data path must not change.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use akrobateo_agent::config::{Endpoint, NodeConfig};
use akrobateo_agent::marks;
use akrobateo_agent::probe::PeerPath;
use akrobateo_agent::tunnel;
use akrobateo_core::{Family, Protocol};
use netfilter::conntrack::{Conntrack, EntryFilter};
use netns_testkit::laboratory::addresses::{BACKEND_PORT, client_address, pod_address};
use netns_testkit::laboratory::{Filter, Flow, KubeProxy, Options, PodMasquerade, PodNetwork, ask};
use netns_testkit::{DEADLINE, Namespace, eventually, isolated};

use crate::cluster::{
    ADDRESS_KEEPING_MODES, ALL_MODES, Cluster, ClusterMode, PROTOCOLS, SERVICE_PORT, pod_endpoints, service,
};

/// The timeout of an answer in tests that expect a lost packet.
const SHORT_TIMEOUT: Duration = Duration::from_millis(500);

fn start_cluster(options: &Options, mode: impl Into<ClusterMode>) -> Cluster {
    Cluster::start(options, mode, |laboratory| vec![service(SERVICE_PORT, &pod_endpoints(laboratory, 2, 1))])
}

fn open_flow(cluster: &Cluster, protocol: Protocol, family: Family, timeout: Duration) -> Flow {
    let to = SocketAddr::new(cluster.laboratory.node(1).address(family), SERVICE_PORT);
    cluster.laboratory.client.run(|| Flow::open(protocol, None, to, timeout).unwrap())
}

#[test]
fn only_packets_with_foreign_source_addresses_get_the_conntrack_zone_of_their_peer() {
    isolated(|| {
        for mode in ALL_MODES {
            let cluster = start_cluster(&Options::default(), mode);
            for family in Family::ALL {
                cluster.request(&cluster.laboratory.client, Protocol::Udp, family, 1).unwrap();
                let conntrack = cluster.laboratory.node(2).namespace.run(|| Conntrack::open().unwrap());
                let entries = conntrack.entries(&EntryFilter::new(family)).unwrap();
                let entries_to_endpoint =
                    entries.iter().filter(|it| it.flow.original_destination.port() == BACKEND_PORT);
                let clients_and_zones: BTreeSet<_> =
                    entries_to_endpoint.map(|it| (it.flow.client.ip(), it.zone)).collect();
                let expected = match mode.path {
                    None => (cluster.laboratory.node(1).address(family), 0),
                    Some(_) => (client_address(family), marks::conntrack_zone(1)),
                };
                assert_eq!(clients_and_zones, BTreeSet::from([expected]), "{mode:?}");
            }
        }
    });
}

#[test]
fn packets_of_all_lengths_pass() {
    isolated(|| {
        for mode in ALL_MODES {
            let cluster = start_cluster(&Options::default(), mode);
            for family in Family::ALL {
                for length in [1352, 1402, 1452, 1472, 4_000, 30_000] {
                    let mut flow = open_flow(&cluster, Protocol::Udp, family, SHORT_TIMEOUT);
                    // The tunnel has a smaller MTU. The client learns the MTU from the error for the first datagram.
                    let answer = eventually("the datagram passes", || flow.ask(length).ok());
                    assert_eq!(answer.backend, "n2p1");
                }
                let mut flow = open_flow(&cluster, Protocol::Tcp, family, DEADLINE);
                for length in [1_000, 10_000, 60_000] {
                    flow.ask(length).unwrap_or_else(|error| panic!("{mode:?} {family} {length}: {error}"));
                }
            }
        }
    });
}

#[test]
fn long_segments_pass_if_icmp_errors_are_lost() {
    isolated(|| {
        for mode in ALL_MODES {
            let cluster = start_cluster(&Options::default(), mode);
            cluster.laboratory.set_filters(&[Filter::DropIcmpErrors]);
            for family in Family::ALL {
                let mut flow = open_flow(&cluster, Protocol::Tcp, family, DEADLINE);
                flow.ask(60_000).unwrap_or_else(|error| panic!("{mode:?} {family}: {error}"));
            }
        }
    });
}

#[test]
fn errors_of_the_endpoint_reach_the_client() {
    isolated(|| {
        for mode in ALL_MODES {
            let cluster = Cluster::start(&Options::default(), mode, |laboratory| {
                let close_endpoint_port = |endpoint: Endpoint| {
                    let address = SocketAddr::new(endpoint.address.ip(), 9);
                    Endpoint { address, ..endpoint }
                };
                let endpoints: Vec<_> =
                    pod_endpoints(laboratory, 2, 1).into_iter().map(close_endpoint_port).collect();
                vec![service(SERVICE_PORT, &endpoints)]
            });
            for (protocol, family) in
                PROTOCOLS.into_iter().flat_map(|it| Family::ALL.map(|family| (it, family)))
            {
                let error = cluster.request(&cluster.laboratory.client, protocol, family, 1).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{mode:?} {protocol} {family}");
            }
        }
    });
}

#[test]
fn different_peers_can_have_different_paths_at_the_same_time() {
    isolated(|| {
        for has_egress_hook in [true, false] {
            check_different_paths(ClusterMode { path: Some(PeerPath::Direct), has_egress_hook });
        }
    });
}

fn check_different_paths(mode: ClusterMode) {
    let mut cluster = Cluster::new(&Options::default(), mode);
    let config = |cluster: &Cluster, node: usize| {
        let mut config = cluster.config(node);
        for peer in &mut config.peers {
            let path = match usize::from(peer.number) + node {
                3 => Some(PeerPath::Direct),
                4 => Some(PeerPath::Tunnel),
                _ => None,
            };
            let paths = path.into_iter().flat_map(|path| Family::ALL.map(|family| (family, path)));
            peer.set_paths(paths.collect());
        }
        config
    };
    for endpoint_node in 1..=3 {
        cluster.services = vec![service(SERVICE_PORT, &pod_endpoints(&cluster.laboratory, endpoint_node, 1))];
        for node in 1..=3 {
            cluster.apply(node, &config(&cluster, node));
        }
        for addressed_node in 1..=3 {
            let backend = format!("n{endpoint_node}p1");
            let count_before = count_packets_from_tunnel(&cluster.laboratory.node(addressed_node).namespace);
            let seen_addresses =
                cluster.seen_client_addresses(&cluster.laboratory.client, addressed_node, &backend);
            // Replies take the same path as requests.
            let has_replies_in_tunnel =
                count_packets_from_tunnel(&cluster.laboratory.node(addressed_node).namespace) > count_before;
            assert_eq!(
                has_replies_in_tunnel,
                addressed_node != endpoint_node && addressed_node + endpoint_node == 4
            );
            let is_kept = seen_addresses == Family::ALL.map(client_address);
            assert_eq!(is_kept, addressed_node + endpoint_node != 5 || addressed_node == endpoint_node);
        }
    }
}

#[test]
fn nodes_with_and_without_the_egress_hook_forward_to_each_other() {
    isolated(|| {
        for path in PeerPath::ALL {
            let cluster = start_cluster(&Options::default(), Some(path));
            let mut config = cluster.config(1);
            config.node.has_egress_hook = false;
            for endpoint_node in [2, 1] {
                let endpoints = pod_endpoints(&cluster.laboratory, endpoint_node, 1);
                config.services = vec![service(SERVICE_PORT, &endpoints)];
                cluster.apply(1, &config);
                cluster.apply(2, &NodeConfig { services: config.services.clone(), ..cluster.config(2) });
                for addressed_node in [1, 2] {
                    let backend = format!("n{endpoint_node}p1");
                    let seen_addresses =
                        cluster.seen_client_addresses(&cluster.laboratory.client, addressed_node, &backend);
                    assert_eq!(seen_addresses, Family::ALL.map(client_address), "{path:?}");
                }
            }
        }
    });
}

#[test]
fn peer_without_an_agent_is_masqueraded() {
    isolated(|| {
        let cluster = start_cluster(&Options::default(), Some(PeerPath::Direct));
        cluster.with_data_path(2, |data_path| data_path.cleanup().unwrap());
        let mut config = cluster.config(1);
        config.peers.retain(|peer| peer.number != 2);
        cluster.apply(1, &config);
        let seen_addresses = cluster.seen_client_addresses(&cluster.laboratory.client, 1, "n2p1");
        assert_eq!(seen_addresses, Family::ALL.map(|family| cluster.laboratory.node(1).address(family)));
    });
}

/// Returns the number of packets that have arrived through the tunnel.
fn count_packets_from_tunnel(netns: &Namespace) -> u64 {
    let output = netns
        .run_program(Command::new("ip").args(["-stats", "-json", "link", "show", tunnel::TUNNEL_DEVICE]), "");
    let links: serde_json::Value = serde_json::from_str(&output).unwrap();
    links[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
}

#[test]
fn tunnel_accepts_packets_only_from_peers() {
    isolated(|| {
        let cluster = start_cluster(&Options::default(), Some(PeerPath::Tunnel));
        let laboratory = &cluster.laboratory;
        let target = laboratory.node(2);
        let send_to_tunnel = |from: &Namespace, to: &netns_testkit::laboratory::Node, family| {
            // A VXLAN header, and an Ethernet frame with an empty payload.
            let mut datagram = vec![0x08, 0, 0, 0, 0x61, 0x6b, 0x72, 0];
            datagram.extend(tunnel::tunnel_mac(2).0);
            datagram.extend(tunnel::tunnel_mac(1).0);
            datagram.extend([0x08, 0x00]);
            datagram.extend([0; 46]);
            let to = SocketAddr::new(to.address(family), tunnel::TUNNEL_PORT);
            let unspecified_address = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            from.run(|| {
                std::net::UdpSocket::bind(unspecified_address).unwrap().send_to(&datagram, to).unwrap()
            });
        };
        let count_before = count_packets_from_tunnel(&target.namespace);
        send_to_tunnel(&laboratory.client, target, Family::V4);
        send_to_tunnel(&laboratory.pod(2, 1).namespace, target, Family::V4);
        // The datagram of the peer arrives after the datagrams of the client and of the pod.
        send_to_tunnel(&laboratory.node(1).namespace, target, Family::V4);
        let received_count = eventually("the datagram of the peer arrives", || {
            Some(count_packets_from_tunnel(&target.namespace)).filter(|count| *count > count_before)
        });
        assert_eq!(received_count, count_before + 1);
    });
}

#[test]
fn flows_of_other_programs_keep_their_marks_and_addresses() {
    isolated(|| {
        for mode in ADDRESS_KEEPING_MODES {
            let options = Options { pod_masquerade: PodMasquerade::OutsideCluster, ..Options::default() };
            let cluster = start_cluster(&options, mode);
            let laboratory = &cluster.laboratory;
            // Other programs use marks and zones: a network plugin's bits, and a zone of an interface.
            for node in &laboratory.nodes {
                node.namespace.load_nft(
                    "table inet other {\n  counter lost { }\n  chain early { type filter hook prerouting priority -140;\n    \
                     meta mark set meta mark or 0x00010000 ct mark set ct mark or 0x80\n  }\n  \
                     chain late { type filter hook postrouting priority 110;\n    \
                     ct original zone 0 ct mark and 0x80 == 0x80 ct mark and 0x20000000 == 0 meta mark and 0x00010000 == 0 counter name lost\n  }\n}\n",
                );
            }
            let clients: Vec<_> = Family::ALL.map(client_address).into();
            assert_eq!(cluster.seen_client_addresses(&laboratory.client, 1, "n2p1"), clients);
            for family in Family::ALL {
                let from = laboratory.pod(1, 1);
                let to = SocketAddr::new(pod_address(family, 3, 1), BACKEND_PORT);
                let answer = from.namespace.run(|| ask(Protocol::Tcp, to, DEADLINE)).unwrap();
                assert_eq!(answer.client.ip(), from.address(family));
            }
            for node in &laboratory.nodes {
                let list = ["list", "counter", "inet", "other", "lost"];
                let counter = node.namespace.run_program(Command::new("nft").args(list), "");
                assert!(counter.contains("packets 0 "), "{mode:?}: {counter}");
            }
        }
    });
}

#[test]
fn flows_in_conntrack_zones_of_other_programs_are_still_masqueraded() {
    isolated(|| {
        for mode in ALL_MODES {
            let cluster = start_cluster(&Options::default(), mode);
            let laboratory = &cluster.laboratory;
            let (node, pod) = (laboratory.node(1), laboratory.pod(1, 1));
            let server = laboratory.client.run(|| std::net::TcpListener::bind("0.0.0.0:9999").unwrap());
            let seen_address = || {
                let to = SocketAddr::new(client_address(Family::V4), 9999);
                let stream =
                    pod.namespace.run(|| std::net::TcpStream::connect_timeout(&to, DEADLINE).unwrap());
                drop(stream);
                server.accept().unwrap().1.ip()
            };
            assert_eq!(seen_address(), node.address(Family::V4));
            for zone in ["7", "0x8001", "0xffff"] {
                let rule = format!("-s {} -j CT --zone-orig {zone}", pod.address(Family::V4));
                let arguments = format!("-t raw -I PREROUTING {rule}");
                node.namespace.run_program(Command::new("iptables").args(arguments.split(' ')), "");
                assert_eq!(seen_address(), node.address(Family::V4), "{mode:?} {zone}");
            }
        }
    });
}

/// Returns the words that describe the objects of a node's network, and how often each word occurs. The words are not
/// ordered, because the elements of a set have no order. Numbers are omitted, because counters, timers and interface
/// indexes change.
fn network_state(netns: &Namespace) -> BTreeMap<String, usize> {
    let commands: [&[&str]; 7] = [
        &["nft", "--stateless", "list", "ruleset"],
        &["ip", "-details", "link"],
        &["ip", "address"],
        &["ip", "rule"],
        &["ip", "-6", "rule"],
        &["ip", "route", "show", "table", "all"],
        &["ip", "neigh", "show", "nud", "permanent"],
    ];
    let mut words = BTreeMap::new();
    for command in commands {
        let output = netns.run_program(Command::new(command[0]).args(&command[1..]), "");
        let is_number = |word: &str| word.trim_end_matches(':').parse::<f64>().is_ok();
        for word in output.split([' ', ',', '\n', '\t']).filter(|word| !is_number(word)) {
            *words.entry(word.to_owned()).or_insert(0) += 1;
        }
    }
    words.remove("");
    words
}

#[test]
fn cleanup_removes_all_objects() {
    isolated(|| {
        for (options, has_egress_hook) in [
            (Options { kube_proxy: KubeProxy::Nftables, ..Options::default() }, true),
            (Options { kube_proxy: KubeProxy::Nftables, ..Options::default() }, false),
            (Options { pod_network: PodNetwork::Overlay, ..Options::default() }, true),
        ] {
            let mut cluster =
                Cluster::new(&options, ClusterMode { path: Some(PeerPath::Tunnel), has_egress_hook });
            cluster.services = vec![service(SERVICE_PORT, &pod_endpoints(&cluster.laboratory, 2, 1))];
            let namespace = &cluster.laboratory.node(1).namespace;
            let state_before = network_state(namespace);
            let changes = cluster.apply(1, &cluster.config(1));
            assert!(changes.nftables_steps > 0 && changes.tunnel_changes > 0);
            assert_ne!(network_state(namespace), state_before);
            let changes = cluster.with_data_path(1, |data_path| data_path.cleanup().unwrap());
            assert!(changes.nftables_steps > 0 && changes.tunnel_changes > 0);
            assert_eq!(network_state(namespace), state_before);
            let changes = cluster.with_data_path(1, |data_path| data_path.cleanup().unwrap());
            assert_eq!((changes.nftables_steps, changes.tunnel_changes), (0, 0));
        }
    });
}

#[test]
fn second_apply_of_a_configuration_changes_nothing() {
    isolated(|| {
        for mode in ALL_MODES {
            let cluster = start_cluster(&Options::default(), mode);
            let changes = cluster.apply(1, &cluster.config(1));
            assert_eq!(changes, akrobateo_agent::data_path::Changes::default(), "{mode:?}");
        }
    });
}

/// Commands of another program that delete or change an object of the data path.
const FOREIGN_CHANGES: [&str; 8] = [
    "nft delete table inet akrobateo",
    "nft flush chain inet akrobateo nat_pre",
    "nft flush set inet akrobateo kept4",
    "nft add rule inet akrobateo nat_post drop",
    "nft add element inet akrobateo kept4 { 192.0.2.1 }",
    "ip link delete akr0",
    "ip rule delete priority 96",
    "ip link set akr0 down",
];
const FOREIGN_CHANGES_WITH_EGRESS_HOOK: [&str; 1] = ["nft delete table netdev akrobateo"];
/// Further commands for nodes that do not use the egress hook.
const FOREIGN_CHANGES_WITHOUT_EGRESS_HOOK: [&str; 5] = [
    "ip rule delete priority 98",
    "ip -6 rule delete fwmark 0x6b400002/0xffc03fff",
    "ip route flush table 0x6b720002",
    "ip neighbour delete 169.254.192.2 dev akr0",
    "nft flush chain inet akrobateo unmark",
];

#[test]
fn apply_restores_objects_that_another_program_changes() {
    isolated(|| {
        for (has_egress_hook, other_changes) in
            [(true, &FOREIGN_CHANGES_WITH_EGRESS_HOOK[..]), (false, &FOREIGN_CHANGES_WITHOUT_EGRESS_HOOK)]
        {
            let mode = ClusterMode { path: Some(PeerPath::Tunnel), has_egress_hook };
            let cluster = start_cluster(&Options::default(), mode);
            let namespace = &cluster.laboratory.node(1).namespace;
            let expected = network_state(namespace);
            let config: NodeConfig = cluster.config(1);
            for change in FOREIGN_CHANGES.iter().chain(other_changes) {
                let mut words = change.split(' ');
                namespace.run_program(Command::new(words.next().unwrap()).args(words), "");
                assert_ne!(network_state(namespace), expected, "{change}");
                cluster.apply(1, &config);
                assert_eq!(network_state(namespace), expected, "{change}");
                cluster.seen_client_addresses(&cluster.laboratory.client, 1, "n2p1");
            }
        }
    });
}
