//! Very many connections at the same time, and memory.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::harness::addr::{self, with_port};
use crate::harness::proxy::split_args;
use crate::harness::traffic::REPLY_TIMEOUT;
use crate::harness::{Metrics, Network, Proxy, isolated};

const CONNECTIONS: u32 = 10_000;

/// Serves without accepting: established connections wait in the kernel, and need no descriptor each.
fn waiting_room(network: &Network) -> TcpListener {
    network.backend.set_sysctl("core/somaxconn", "20000");
    network.backend.run(|| {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&socket, &with_port(addr::BACKEND[0], 80).parse::<SocketAddr>().unwrap()).unwrap();
        listen(&socket, 20_000).unwrap();
        socket.into()
    })
}

#[test]
fn ten_thousand_connections_at_the_same_time_each_keep_their_own() {
    isolated(|| {
        let mut descriptors = getrlimit(Resource::Nofile);
        descriptors.current = descriptors.maximum;
        setrlimit(Resource::Nofile, descriptors).unwrap();
        let network = Network::new();
        let backend = waiting_room(&network);
        let _proxy = Proxy::start_ready(&network.pod, &split_args("--forward=tcp/80=10.96.3.7:80"));
        let connect = |number: u32| {
            let mut stream = TcpStream::connect((addr::POD[0], 80)).unwrap_or_else(|error| {
                panic!("connection {number} (ulimit -n must allow {CONNECTIONS}): {error}")
            });
            stream.set_read_timeout(Some(REPLY_TIMEOUT)).unwrap();
            stream.write_all(&number.to_be_bytes()).unwrap();
            stream
        };
        let mut connections: Vec<_> = network.client.run(|| (0..CONNECTIONS).map(connect).collect());
        let metrics = Metrics::scrape(&network.pod);
        assert!(metrics.get("conntrack_entries") >= CONNECTIONS.into());
        assert_eq!(metrics.get("conntrack_clashes_total") + metrics.get("conntrack_full_total"), 0);
        // All are open now; each is answered by what it said.
        for _ in 0..CONNECTIONS {
            let (mut stream, _) = backend.accept().unwrap();
            let mut said = [0; 4];
            stream.set_read_timeout(Some(REPLY_TIMEOUT)).unwrap();
            stream.read_exact(&mut said).unwrap();
            stream.write_all(&said).unwrap();
        }
        for (number, stream) in (0..CONNECTIONS).zip(&mut connections) {
            let mut answer = [0; 4];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(u32::from_be_bytes(answer), number);
        }
    });
}

#[test]
fn a_thousand_ports_take_less_than_a_megabyte_and_two_when_their_metrics_are_read() {
    isolated(|| {
        let network = Network::new();
        let forward = |port| format!("--forward=tcp/{port}=10.96.3.7:80");
        let ports: Vec<_> = (20_000..21_000).map(forward).collect();
        let proxy = Proxy::start_ready(&network.pod, &ports);
        let before = proxy.private_memory();
        for _ in 0..10 {
            assert_eq!(Metrics::scrape(&network.pod).series_count("connections_total"), 1000);
        }
        let after = proxy.private_memory();
        assert!(before < 1024 && after < 2048, "{before} KiB before, {after} KiB after");
    });
}
