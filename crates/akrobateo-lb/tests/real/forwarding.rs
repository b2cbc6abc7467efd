//! Packets reach the backend: protocols, families, many ports.

use crate::harness::network::{at, with_port};
use crate::harness::proxy::args;
use crate::harness::traffic::{Datagrams, PATIENCE, serve_tcp, serve_udp, tcp};
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
