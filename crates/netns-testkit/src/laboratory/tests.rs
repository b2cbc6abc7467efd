//! Tests of the laboratory: packets take the paths that its options describe.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use akrobateo_core::family::Family;
use akrobateo_core::protocol::Protocol;

use super::addresses::{BACKEND_PORT, CLUSTER_IP_PORT, HOST_PORT, client_address, cluster_ip, node_port};
use super::*;
use crate::isolation::report_not_tested;
use crate::{DEADLINE, isolated};

/// The time after which a missing answer means that a packet was lost.
const LOSS_TIMEOUT: Duration = Duration::from_millis(300);
const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// Sends a TCP and a UDP request to `address` and `port` from a namespace, and expects that `backend` answers. Returns
/// true if the backend saw the address `client`.
fn backend_sees_client_address(from: &Namespace, client: IpAddr, to: (IpAddr, u16), backend: &str) -> bool {
    let answers = PROTOCOLS.map(|protocol| {
        let result = from.run(|| ask(protocol, to.into(), DEADLINE));
        let answer = result.unwrap_or_else(|error| panic!("{protocol} from {client} to {to:?}: {error}"));
        assert_eq!(answer.backend, backend, "{protocol} from {client} to {to:?}");
        answer.client.ip() == client
    });
    assert_eq!(answers[0], answers[1], "from {client} to {to:?}");
    answers[0]
}

fn is_lost(from: &Namespace, to: (IpAddr, u16)) -> bool {
    from.run(|| ask(Protocol::Udp, to.into(), LOSS_TIMEOUT)).is_err()
}

/// Checks the connections that work in each laboratory.
fn check_connectivity(options: &Options) {
    let laboratory = Laboratory::new(options);
    let [from, to] = [laboratory.pod(1, 1), laboratory.pod(2, 1)];
    for family in Family::ALL {
        let client = from.address(family);
        assert!(
            backend_sees_client_address(&from.namespace, client, (to.address(family), BACKEND_PORT), "n2p1"),
            "{options:?}"
        );
        if options.kube_proxy != KubeProxy::Absent {
            let cluster_ip = (cluster_ip(family, 2), CLUSTER_IP_PORT);
            assert!(backend_sees_client_address(&from.namespace, client, cluster_ip, "n2p1"), "{options:?}");
        }
    }
    for family in options.segment_families() {
        let (client, node) = (client_address(*family), laboratory.node(1));
        assert!(backend_sees_client_address(
            &laboratory.client,
            client,
            (node.address(*family), HOST_PORT),
            "n1p2"
        ));
        if options.kube_proxy != KubeProxy::Absent {
            for (service, backend) in [(1, "n1p1"), (2, "n2p1")] {
                let to = (node.address(*family), node_port(service));
                assert!(!backend_sees_client_address(&laboratory.client, client, to, backend), "{options:?}");
            }
        }
    }
}

#[test]
fn packets_reach_services_with_each_kube_proxy_and_pod_network() {
    isolated(|| {
        for pod_network in [PodNetwork::HostRoutes, PodNetwork::Overlay] {
            for kube_proxy in [KubeProxy::Absent, KubeProxy::Iptables, KubeProxy::Nftables] {
                check_connectivity(&Options { pod_network, kube_proxy, ..Options::default() });
            }
        }
    });
}

#[test]
fn packets_reach_services_with_each_reverse_path_and_bridge_filter() {
    isolated(|| {
        for reverse_path_filter in [0, 1, 2] {
            for filters_bridged_packets in [false, true] {
                check_connectivity(&Options {
                    reverse_path_filter,
                    filters_bridged_packets,
                    ..Options::default()
                });
            }
        }
    });
}

#[test]
fn packets_reach_pods_and_services_with_each_uplink() {
    isolated(|| {
        for uplink in Uplink::ALL {
            if uplink.is_supported() {
                let filters_bridged_packets = uplink != Uplink::Bridge;
                check_connectivity(&Options { filters_bridged_packets, uplink, ..Options::default() });
            } else {
                report_not_tested(&format!("uplink {uplink:?}: this kernel cannot create the device"));
            }
        }
    });
}

#[test]
fn filtered_bridge_uplink_loses_packets_to_other_nodes() {
    isolated(|| {
        // br_netfilter bridges a packet after DNAT if the packet leaves through the bridge on which the packet arrived.
        // The bridge drops the packet, because a bridge does not send a packet back to its port of arrival. Hairpin
        // mode does not help: the frame keeps the client's MAC address, and the switch then expects the client at the
        // node's port.
        let options = Options { uplink: Uplink::Bridge, filters_bridged_packets: true, ..Options::default() };
        let laboratory = Laboratory::new(&options);
        for family in Family::ALL {
            let node = laboratory.node(1).address(family);
            assert!(is_lost(&laboratory.client, (node, node_port(2))), "{family}");
            backend_sees_client_address(
                &laboratory.client,
                client_address(family),
                (node, node_port(1)),
                "n1p1",
            );
        }
    });
}

#[test]
fn packets_reach_pods_and_services_in_an_ipv6_underlay() {
    isolated(|| {
        for pod_network in [PodNetwork::HostRoutes, PodNetwork::Overlay] {
            check_connectivity(&Options { pod_network, underlay: Underlay::Ipv6, ..Options::default() });
        }
    });
}

#[test]
fn cni_masquerades_the_packets_that_its_option_describes() {
    isolated(|| {
        for (pod_masquerade, sees_pod, sees_external_client) in [
            (PodMasquerade::OutsideCluster, true, true),
            (PodMasquerade::OutsideNode, false, true),
            (PodMasquerade::Flannel, true, false),
        ] {
            let laboratory = Laboratory::new(&Options { pod_masquerade, ..Options::default() });
            for family in Family::ALL {
                let to = (laboratory.pod(2, 1).address(family), BACKEND_PORT);
                let pod = laboratory.pod(1, 1);
                assert_eq!(
                    backend_sees_client_address(&pod.namespace, pod.address(family), to, "n2p1"),
                    sees_pod
                );
                // The client's packets and the replies to these packets pass through node 1.
                let (client, node) = (client_address(family), laboratory.node(1).address(family));
                laboratory.client.ip(&format!("route add {} via {node}", to.0));
                laboratory.node(2).namespace.ip(&format!("route add {client} via {node}"));
                assert_eq!(
                    backend_sees_client_address(&laboratory.client, client, to, "n2p1"),
                    sees_external_client,
                    "{pod_masquerade:?}"
                );
            }
        }
    });
}

#[test]
fn kube_proxy_and_portmap_forward_port_80_of_a_node() {
    isolated(|| {
        for kube_proxy in [KubeProxy::Iptables, KubeProxy::Nftables] {
            for (has_load_balancer_address, has_host_port_80, backend) in
                [(true, false, "n2p1"), (false, true, "n1p2"), (true, true, "n2p1")]
            {
                let options =
                    Options { kube_proxy, has_load_balancer_address, has_host_port_80, ..Options::default() };
                let laboratory = Laboratory::new(&options);
                for family in Family::ALL {
                    let to = (laboratory.node(1).address(family), CLUSTER_IP_PORT);
                    backend_sees_client_address(&laboratory.client, client_address(family), to, backend);
                }
            }
        }
    });
}

#[test]
fn forwarded_packets_are_dropped_unless_a_program_accepts_them() {
    isolated(|| {
        for drops_forwarded_packets in [false, true] {
            let laboratory = Laboratory::new(&Options { drops_forwarded_packets, ..Options::default() });
            // kube-proxy and the CNI accept only packets from or to pods. The addresses of the client and of node 2 are
            // outside of the ranges of pods.
            let (client, address) = (&laboratory.client, laboratory.node(2).address(Family::V4));
            let _backend = Backend::start(&laboratory.node(2).namespace, "n2");
            client.ip(&format!("route add {address} via {}", laboratory.node(1).address(Family::V4)));
            assert_eq!(is_lost(client, (address, BACKEND_PORT)), drops_forwarded_packets);
        }
    });
}

#[test]
fn filters_of_addresses_and_macs_drop_foreign_packets() {
    isolated(|| {
        let laboratory = Laboratory::new(&Options::default());
        let (client, first_node) = (&laboratory.client, &laboratory.node(1).namespace);
        let _backend = Backend::start(&laboratory.node(2).namespace, "n2");
        for family in Family::ALL {
            let pod = (laboratory.pod(2, 1).address(family), BACKEND_PORT);
            let node = (laboratory.node(2).address(family), BACKEND_PORT);
            laboratory.set_filters(&[]);
            assert!(!is_lost(client, pod) && !is_lost(first_node, node));
            for filter in [Filter::OwnAddressOnly(2), Filter::OwnSourceAddressOnly(2)] {
                laboratory.set_filters(&[filter]);
                assert!(is_lost(client, pod) && !is_lost(first_node, node), "{filter:?} {family}");
            }
            laboratory.set_filters(&[Filter::OwnMacOnly(2)]);
            assert!(!is_lost(client, pod));
            laboratory.node(2).namespace.ip("link set eth0 address 02:00:00:00:00:77");
            assert!(is_lost(client, pod));
            laboratory.node(2).namespace.ip(&format!("link set eth0 address {}", laboratory.node(2).mac));
        }
    });
}

#[test]
fn gateway_replaces_the_source_mac_of_a_node() {
    isolated(|| {
        let laboratory = Laboratory::new(&Options::default());
        let pod = (laboratory.pod(2, 1).address(Family::V4), BACKEND_PORT);
        laboratory.client.load_nft(
            "table inet macs { chain input { type filter hook input priority 0;\n \
             ether saddr 02:99:99:99:99:99 ip protocol { tcp, udp } drop\n }\n}\n",
        );
        assert!(!is_lost(&laboratory.client, pod));
        laboratory.set_filters(&[Filter::GatewayMac(2)]);
        assert!(is_lost(&laboratory.client, pod));
    });
}

#[test]
fn one_way_filter_drops_packets_in_one_direction() {
    isolated(|| {
        let laboratory = Laboratory::new(&Options::default());
        laboratory.set_filters(&[Filter::OneWay { from_node: 1, to_node: 2 }]);
        for family in Family::ALL {
            let is_delivered = |from: usize, to: usize| {
                let address = SocketAddr::new(laboratory.node(to).address(family), 7000);
                let receiver = laboratory.node(to).namespace.run(|| UdpSocket::bind(address).unwrap());
                receiver.set_read_timeout(Some(LOSS_TIMEOUT)).unwrap();
                laboratory.node(from).namespace.run(|| {
                    let local_address = SocketAddr::new(laboratory.node(from).address(family), 0);
                    UdpSocket::bind(local_address).unwrap().send_to(b"x", address).unwrap()
                });
                receiver.recv(&mut [0]).is_ok()
            };
            assert!(is_delivered(2, 1) && !is_delivered(1, 2) && is_delivered(1, 3), "{family}");
        }
    });
}

#[test]
fn filters_drop_long_packets_and_icmp_errors() {
    isolated(|| {
        let laboratory = Laboratory::new(&Options::default());
        let (client, pod) = (&laboratory.client, laboratory.pod(2, 1).address(Family::V4));
        let ask_long = |protocol, length| {
            client
                .run(|| Flow::open(protocol, None, (pod, BACKEND_PORT).into(), LOSS_TIMEOUT)?.ask(length))
                .is_ok()
        };
        let is_refused = || {
            let result = client.run(|| ask(Protocol::Udp, (pod, 9).into(), LOSS_TIMEOUT));
            result.unwrap_err().kind() == std::io::ErrorKind::ConnectionRefused
        };
        assert!(is_refused() && ask_long(Protocol::Udp, 1472) && ask_long(Protocol::Tcp, 60_000));
        laboratory.set_filters(&[Filter::MaxPacketLen(1400), Filter::DropIcmpErrors]);
        assert!(!is_refused() && ask_long(Protocol::Udp, 1372) && !ask_long(Protocol::Udp, 1373));
        assert!(!ask_long(Protocol::Tcp, 60_000));
        laboratory.set_filters(&[]);
        assert!(is_refused() && ask_long(Protocol::Udp, 1472));
    });
}

#[test]
fn disconnected_node_answers_only_after_it_is_reconnected() {
    isolated(|| {
        let laboratory = Laboratory::new(&Options::default());
        let pod = (laboratory.pod(2, 1).address(Family::V4), BACKEND_PORT);
        laboratory.disconnect(2);
        assert!(is_lost(&laboratory.client, pod));
        laboratory.reconnect(2);
        crate::eventually("the pod answers again", || (!is_lost(&laboratory.client, pod)).then_some(()));
    });
}
