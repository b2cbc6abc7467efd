//! Tests of the client address that an endpoint sees, for each path and each client.

use std::net::IpAddr;

use akrobateo_agent::config::Service;
use akrobateo_agent::probe::PeerPath;
use akrobateo_core::Family;
use netns_testkit::isolated;
use netns_testkit::isolation::report_not_tested;
use netns_testkit::laboratory::addresses::client_address;
use netns_testkit::laboratory::{Backend, KubeProxy, Options, PodMasquerade, PodNetwork, Underlay, Uplink};

use crate::cluster::{
    ADDRESS_KEEPING_MODES, ALL_MODES, Cluster, ClusterMode, SERVICE_PORT, endpoint, pod_endpoints, service,
};

/// Sends requests through each node to an endpoint on each node. Checks the client address that the endpoint sees.
fn check_seen_addresses(options: &Options, mode: ClusterMode) {
    let mut cluster = Cluster::new(options, mode);
    cluster.probes_tunnel = false;
    for endpoint_node in 1..=options.node_count {
        cluster.services = vec![service(SERVICE_PORT, &pod_endpoints(&cluster.laboratory, endpoint_node, 1))];
        cluster.apply_all();
        for addressed_node in 1..=options.node_count {
            let seen_addresses = cluster.seen_client_addresses(
                &cluster.laboratory.client,
                addressed_node,
                &format!("n{endpoint_node}p1"),
            );
            let keeps_client_address = mode.path.is_some() || addressed_node == endpoint_node;
            let expected: Vec<_> = cluster
                .families
                .iter()
                .map(|family| {
                    if keeps_client_address {
                        client_address(*family)
                    } else {
                        cluster.laboratory.node(addressed_node).address(*family)
                    }
                })
                .collect();
            // The source of masqueraded packets in an overlay is the address of the overlay's device.
            if keeps_client_address || options.pod_network == PodNetwork::HostRoutes {
                assert_eq!(
                    seen_addresses, expected,
                    "{options:?} {mode:?}: node {addressed_node}, pod on {endpoint_node}"
                );
            }
        }
    }
}

#[test]
fn client_address_is_kept_in_direct_mode() {
    isolated(|| {
        let options = Options::default();
        for options in [
            options.clone(),
            Options {
                kube_proxy: KubeProxy::Nftables,
                pod_masquerade: PodMasquerade::Flannel,
                ..options.clone()
            },
            Options { kube_proxy: KubeProxy::Absent, drops_forwarded_packets: false, ..options.clone() },
            Options { pod_masquerade: PodMasquerade::OutsideNode, ..options.clone() },
            Options { underlay: Underlay::Ipv6, ..options },
        ] {
            for mode in ADDRESS_KEEPING_MODES.into_iter().filter(|mode| mode.path == Some(PeerPath::Direct)) {
                check_seen_addresses(&options, mode);
            }
        }
    });
}

#[test]
fn client_address_is_kept_through_the_tunnel() {
    isolated(|| {
        let options = Options::default();
        for options in [
            options.clone(),
            Options {
                kube_proxy: KubeProxy::Nftables,
                pod_masquerade: PodMasquerade::Flannel,
                ..options.clone()
            },
            Options { pod_network: PodNetwork::Overlay, ..options.clone() },
            Options { underlay: Underlay::Ipv6, pod_network: PodNetwork::Overlay, ..options },
        ] {
            for mode in ADDRESS_KEEPING_MODES.into_iter().filter(|mode| mode.path == Some(PeerPath::Tunnel)) {
                check_seen_addresses(&options, mode);
            }
        }
    });
}

#[test]
fn client_address_is_masqueraded_without_a_working_path() {
    isolated(|| {
        for options in [
            Options::default(),
            // Without kube-proxy, no other program masquerades.
            Options { kube_proxy: KubeProxy::Absent, drops_forwarded_packets: false, ..Options::default() },
            Options {
                kube_proxy: KubeProxy::Nftables,
                pod_network: PodNetwork::Overlay,
                ..Options::default()
            },
        ] {
            check_seen_addresses(&options, None.into());
        }
    });
}

#[test]
fn client_address_is_kept_with_each_reverse_path_filter() {
    isolated(|| {
        for reverse_path_filter in [1, 2] {
            for mode in ADDRESS_KEEPING_MODES {
                check_seen_addresses(&Options { reverse_path_filter, ..Options::default() }, mode);
            }
        }
    });
}

#[test]
fn client_address_is_kept_with_each_uplink() {
    isolated(|| {
        for uplink in Uplink::ALL {
            if !uplink.is_supported() {
                report_not_tested(&format!("uplink {uplink:?}: this kernel cannot create the device"));
                continue;
            }
            let filters_bridged_packets = uplink != Uplink::Bridge;
            for mode in ADDRESS_KEEPING_MODES {
                check_seen_addresses(
                    &Options { filters_bridged_packets, uplink, ..Options::default() },
                    mode,
                );
            }
        }
    });
}

#[test]
fn service_can_request_masquerade() {
    isolated(|| {
        let cluster = Cluster::start(&Options::default(), Some(PeerPath::Direct), |laboratory| {
            let masqueraded_service = Service {
                keeps_client_address: false,
                ..service(SERVICE_PORT, &pod_endpoints(laboratory, 1, 1))
            };
            // A second Service with the same endpoint keeps the client's address.
            let keeping_service = service(SERVICE_PORT + 1, &pod_endpoints(laboratory, 1, 1));
            vec![masqueraded_service, keeping_service]
        });
        let seen_addresses = cluster.seen_client_addresses(&cluster.laboratory.client, 1, "n1p1");
        // The endpoint sees the address of the node's bridge.
        assert!(
            seen_addresses.iter().all(|ip| *ip != client_address(Family::from_ip(*ip))),
            "{seen_addresses:?}"
        );
    });
}

#[test]
fn endpoint_in_the_host_network_sees_the_client() {
    isolated(|| {
        for mode in ADDRESS_KEEPING_MODES {
            let cluster = Cluster::start(&Options::default(), mode, |laboratory| {
                let node = laboratory.node(2);
                let endpoints: Vec<_> = node.addresses.iter().map(|ip| endpoint(*ip, 2)).collect();
                vec![service(SERVICE_PORT, &endpoints)]
            });
            let _backend = Backend::start(&cluster.laboratory.node(2).namespace, "host2");
            let clients: Vec<IpAddr> = Family::ALL.map(client_address).into();
            for node in [1, 2] {
                assert_eq!(
                    cluster.seen_client_addresses(&cluster.laboratory.client, node, "host2"),
                    clients,
                    "{mode:?}"
                );
            }
            // Requests from the node of the endpoint, and from another node.
            for client_node in [2, 1] {
                cluster.seen_client_addresses(&cluster.laboratory.node(client_node).namespace, 2, "host2");
                cluster.seen_client_addresses(&cluster.laboratory.node(client_node).namespace, 1, "host2");
            }
        }
    });
}

#[test]
fn clients_inside_the_cluster_receive_answers() {
    isolated(|| {
        for mode in ALL_MODES {
            for kube_proxy in [KubeProxy::Iptables, KubeProxy::Nftables] {
                let options = Options { kube_proxy, ..Options::default() };
                let cluster = Cluster::start(&options, mode, |laboratory| {
                    vec![service(SERVICE_PORT, &pod_endpoints(laboratory, 2, 1))]
                });
                let laboratory = &cluster.laboratory;
                for addressed_node in 1..=3 {
                    // The clients are nodes, pods of each node, and the endpoint itself.
                    for node in &laboratory.nodes {
                        cluster.seen_client_addresses(&node.namespace, addressed_node, "n2p1");
                        for pod in &node.pods {
                            cluster.seen_client_addresses(&pod.namespace, addressed_node, "n2p1");
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn silent_peer_is_recognized_but_new_flows_to_its_endpoints_are_masqueraded() {
    isolated(|| {
        for mode in ADDRESS_KEEPING_MODES {
            let cluster = Cluster::start(&Options::default(), mode, |laboratory| {
                vec![service(SERVICE_PORT, &pod_endpoints(laboratory, 2, 1))]
            });
            let clients: Vec<IpAddr> = Family::ALL.map(client_address).into();
            // The node of the endpoint does not see the Lease of node 1.
            let mut config = cluster.config(2);
            config.peers[0].is_silent = true;
            cluster.apply(2, &config);
            assert_eq!(
                cluster.seen_client_addresses(&cluster.laboratory.client, 1, "n2p1"),
                clients,
                "{mode:?}"
            );
            // Node 1 does not see the Lease of the endpoint's node.
            let mut config = cluster.config(1);
            config.peers[0].is_silent = true;
            cluster.apply(1, &config);
            let seen_addresses = cluster.seen_client_addresses(&cluster.laboratory.client, 1, "n2p1");
            assert!(seen_addresses.iter().all(|address| !clients.contains(address)), "{seen_addresses:?}");
        }
    });
}
