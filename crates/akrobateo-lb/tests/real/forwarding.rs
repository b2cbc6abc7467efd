//! Forwarding in the kernel: protocols, address families, many ports, and hostPorts.

use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};

use akrobateo_core::ProxyArgs;
use akrobateo_lb::forwarding_config::ForwardingConfig;
use akrobateo_lb::ruleset;
use netfilter::nft::client::Nftables;

use crate::harness::addr::{self, with_port};
use crate::harness::proxy::split_args;
use crate::harness::traffic::{
    NO_REPLY_TIMEOUT, REPLY_TIMEOUT, UdpClient, connect_tcp, serve_tcp, serve_udp,
};
use crate::harness::{Network, Proxy, isolated};

#[test]
fn tcp_and_udp_of_one_port_reach_their_own_targets() {
    isolated(|| {
        let network = Network::new();
        let mut forwards = Vec::new();
        for family_index in 0..2 {
            let (tcp_target, udp_target) = (
                with_port(addr::BACKEND[family_index], 8080),
                with_port(addr::BACKEND_2[family_index], 5353),
            );
            serve_tcp(&network.backend, &tcp_target);
            serve_udp(&network.backend, &udp_target);
            forwards
                .extend([format!("--forward=tcp/53={tcp_target}"), format!("--forward=udp/53={udp_target}")]);
        }
        let _proxy = Proxy::start_and_wait(&network.pod, &forwards);
        for family_index in 0..2 {
            let (client, destination) = (addr::CLIENT[family_index], with_port(addr::POD[family_index], 53));
            let pod = addr::POD[family_index].parse::<std::net::IpAddr>().unwrap();
            let mut connection = connect_tcp(&network.client, client, &destination, REPLY_TIMEOUT).unwrap();
            connection.check_echo().unwrap();
            assert_eq!(connection.reply.source_address.ip(), pod, "not masqueraded");
            assert_eq!(
                connection.reply.destination_address.to_string(),
                with_port(addr::BACKEND[family_index], 8080)
            );
            let reply = UdpClient::new(&network.client, client, &destination).request(REPLY_TIMEOUT).unwrap();
            assert_eq!(reply.source_address.ip(), pod, "not masqueraded");
            assert_eq!(reply.destination_address.to_string(), with_port(addr::BACKEND_2[family_index], 5353));
        }
    });
}

#[test]
fn connection_to_a_port_that_is_not_forwarded_is_refused() {
    isolated(|| {
        let network = Network::new();
        let _proxy = Proxy::start_and_wait(&network.pod, &split_args("--forward=tcp/80=10.96.3.7:8080"));
        let error =
            connect_tcp(&network.client, addr::CLIENT[0], &with_port(addr::POD[0], 81), REPLY_TIMEOUT)
                .unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn each_of_five_hundred_ports_reaches_its_own_target() {
    isolated(|| {
        let network = Network::new();
        let ports = 20_000..20_500_u16;
        let listen = |port| TcpListener::bind((addr::BACKEND[0], port + 10_000)).unwrap();
        let listeners: Vec<_> = network.backend.run(|| ports.clone().map(listen).collect());
        let forward = |port| format!("--forward=tcp/{port}={}", with_port(addr::BACKEND[0], port + 10_000));
        let _proxy = Proxy::start_and_wait(&network.pod, &ports.clone().map(forward).collect::<Vec<_>>());
        for (port, listener) in ports.zip(listeners) {
            listener.set_nonblocking(true).unwrap();
            let connection = network.client.run(|| TcpStream::connect((addr::POD[0], port)).unwrap());
            // The connection is established, so the connection is in the accept queue of the target.
            listener.accept().unwrap_or_else(|error| panic!("port {port}: {error}"));
            drop(connection);
        }
    });
}

#[test]
fn host_port_of_the_node_is_forwarded_through_the_pod() {
    isolated(|| {
        let network = Network::new();
        serve_tcp(&network.backend, &with_port(addr::BACKEND[0], 8080));
        serve_udp(&network.backend, &with_port(addr::BACKEND[0], 8080));
        let forwards = split_args("--forward=tcp/80=10.96.3.7:8080 --forward=udp/80=10.96.3.7:8080");
        translate_host_ports(&network, &["tcp/80=10.244.0.5:80", "udp/80=10.244.0.5:80"]);
        let _proxy =
            Proxy::start_and_wait(&network.pod, &[forwards, split_args("--source=192.0.2.2/32")].concat());
        let destination = with_port(addr::NODE[0], 80);
        let mut connection =
            connect_tcp(&network.client, addr::CLIENT[0], &destination, REPLY_TIMEOUT).unwrap();
        connection.check_echo().unwrap();
        assert_eq!(connection.reply.source_address.ip().to_string(), addr::POD[0]);
        UdpClient::new(&network.client, addr::CLIENT[0], &destination).request(REPLY_TIMEOUT).unwrap();
        assert!(connect_tcp(&network.client, addr::CLIENT_2[0], &destination, NO_REPLY_TIMEOUT).is_err());
    });
}

/// Translates hostPorts of the node to the pod, as portmap does. The translation keeps the client's address, because
/// the pod checks this address against the source ranges.
fn translate_host_ports(network: &Network, forwards: &[&str]) {
    let forwards = forwards.iter().map(|text| text.parse().unwrap()).collect();
    let config = ForwardingConfig::new(ProxyArgs { probe_port: 1, ..ProxyArgs::new(forwards) }).unwrap();
    let mut table = ruleset::build_table(&config);
    table.chains.retain(|chain| chain.name == "prerouting");
    network.node.run(|| Nftables::open().unwrap().replace(&table).unwrap());
}

/// The rules of the forward chain in the syntax of nft(8).
const FORWARD_CHAIN: &str = "\
table inet akrobateo {
\tchain forward {
\t\ttype filter hook forward priority filter; policy drop;
\t\tct direction original ct mark @incoming accept
\t\tct mark @outgoing accept
\t\tct status dnat accept
\t}
}
";

#[test]
fn pod_forwards_only_packets_that_it_translates() {
    isolated(|| {
        let network = Network::new();
        let routed_destination = with_port(addr::BACKEND_2[0], 81);
        serve_tcp(&network.backend, &with_port(addr::BACKEND[0], 80));
        serve_tcp(&network.backend, &routed_destination);
        // The node sends packets of the client for the second backend through the pod.
        network.node.ip(&format!(
            "rule add iif client to {}/32 lookup 100\nroute add {}/32 via {} table 100",
            addr::BACKEND_2[0],
            addr::BACKEND_2[0],
            addr::POD[0]
        ));
        network.pod.set_sysctl("ipv4/ip_forward", "1");
        let connect =
            |destination, timeout| connect_tcp(&network.client, addr::CLIENT[0], destination, timeout);
        connect(&routed_destination, REPLY_TIMEOUT).expect("the test's route through the pod does not work");
        let _proxy = Proxy::start_and_wait(&network.pod, &split_args("--forward=tcp/80=10.96.3.7:80"));
        assert_eq!(connect(&routed_destination, NO_REPLY_TIMEOUT).unwrap_err().kind(), ErrorKind::TimedOut);
        connect(&with_port(addr::POD[0], 80), REPLY_TIMEOUT).unwrap();
        assert_eq!(network.pod.nft("-s list chain inet akrobateo forward"), FORWARD_CHAIN);
    });
}
