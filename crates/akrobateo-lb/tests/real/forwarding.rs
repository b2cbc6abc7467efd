//! Packets reach the backend: protocols, families, many ports.

use std::net::{TcpListener, TcpStream};

use akrobateo_core::ProxyArgs;
use akrobateo_lb::forwarding_config::ForwardingConfig;
use akrobateo_lb::ruleset;
use netfilter::nft::client::Nftables;

use crate::harness::network::{at, with_port};
use crate::harness::proxy::args;
use crate::harness::traffic::{Datagrams, IMPATIENCE, PATIENCE, serve_tcp, serve_udp, tcp};
use crate::harness::{Network, Proxy, isolated};

#[test]
fn tcp_and_udp_on_one_port_number_reach_their_backends_in_both_families() {
    isolated(|| {
        let network = Network::new();
        let mut line = Vec::new();
        for family in 0..2 {
            let (one, two) = (with_port(at::BACKEND[family], 8080), with_port(at::BACKEND_2[family], 5353));
            serve_tcp(&network.backend, &one);
            serve_udp(&network.backend, &two);
            line.extend([format!("--forward=tcp/53={one}"), format!("--forward=udp/53={two}")]);
        }
        let _proxy = Proxy::ready(&network.pod, &line);
        for family in 0..2 {
            let (from, to) = (at::CLIENT[family], with_port(at::POD[family], 53));
            let pod = at::POD[family].parse::<std::net::IpAddr>().unwrap();
            let mut connection = tcp(&network.client, from, &to, PATIENCE).unwrap();
            connection.echoes().unwrap();
            assert_eq!(connection.answer.peer.ip(), pod, "not masqueraded");
            assert_eq!(connection.answer.local.to_string(), with_port(at::BACKEND[family], 8080));
            let answer = Datagrams::new(&network.client, from, &to).ask(PATIENCE).unwrap();
            assert_eq!(answer.peer.ip(), pod, "not masqueraded");
            assert_eq!(answer.local.to_string(), with_port(at::BACKEND_2[family], 5353));
        }
    });
}

#[test]
fn a_port_that_is_not_forwarded_is_refused() {
    isolated(|| {
        let network = Network::new();
        let _proxy = Proxy::ready(&network.pod, &args("--forward=tcp/80=10.96.3.7:8080"));
        let error = tcp(&network.client, at::CLIENT[0], &with_port(at::POD[0], 81), PATIENCE).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn five_hundred_ports_each_reach_their_own_target() {
    isolated(|| {
        let network = Network::new();
        let ports = 20_000..20_500_u16;
        let bind = |port| TcpListener::bind((at::BACKEND[0], port + 10_000)).unwrap();
        let backends: Vec<_> = network.backend.run(|| ports.clone().map(bind).collect());
        let forward = |port| format!("--forward=tcp/{port}={}", with_port(at::BACKEND[0], port + 10_000));
        let _proxy = Proxy::ready(&network.pod, &ports.clone().map(forward).collect::<Vec<_>>());
        for (port, backend) in ports.zip(backends) {
            backend.set_nonblocking(true).unwrap();
            let connection = network.client.run(|| TcpStream::connect((at::POD[0], port)).unwrap());
            // Established, so that it waits to be accepted here, or else elsewhere.
            backend.accept().unwrap_or_else(|error| panic!("port {port}: {error}"));
            drop(connection);
        }
    });
}

#[test]
fn a_host_port_of_the_node_leads_through_the_pod() {
    isolated(|| {
        let network = Network::new();
        serve_tcp(&network.backend, &with_port(at::BACKEND[0], 8080));
        serve_udp(&network.backend, &with_port(at::BACKEND[0], 8080));
        let both = args("--forward=tcp/80=10.96.3.7:8080 --forward=udp/80=10.96.3.7:8080");
        // As portmap does: the client's address stays, so that the pod's source ranges see it.
        host_port(&network, &["tcp/80=10.244.0.5:80", "udp/80=10.244.0.5:80"]);
        let _proxy = Proxy::ready(&network.pod, &[both, args("--source=192.0.2.2/32")].concat());
        let to = with_port(at::NODE[0], 80);
        let mut connection = tcp(&network.client, at::CLIENT[0], &to, PATIENCE).unwrap();
        connection.echoes().unwrap();
        assert_eq!(connection.answer.peer.ip().to_string(), at::POD[0]);
        Datagrams::new(&network.client, at::CLIENT[0], &to).ask(PATIENCE).unwrap();
        assert!(tcp(&network.client, at::CLIENT_2[0], &to, IMPATIENCE).is_err());
    });
}

/// Sends ports of the node to the pod, without masquerading.
fn host_port(network: &Network, forwards: &[&str]) {
    let forwards = forwards.iter().map(|text| text.parse().unwrap()).collect();
    let plan = ForwardingConfig::new(ProxyArgs { probe_port: 1, ..ProxyArgs::new(forwards) }).unwrap();
    let mut table = ruleset::table(&plan);
    table.chains.retain(|chain| chain.name == "prerouting");
    network.node.run(|| Nftables::open().unwrap().replace(&table).unwrap());
}
