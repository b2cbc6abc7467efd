//! Capacity of the kernel data path: the number of open connections, and memory.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::harness::addr::{self, with_port};
use crate::harness::proxy::split_args;
use crate::harness::traffic::REPLY_TIMEOUT;
use crate::harness::{Metrics, Network, Proxy, isolated};

const CONNECTION_COUNT: u32 = 10_000;

/// Listens without accepting, so that established connections wait in the kernel and need no descriptors.
fn listen_without_accepting(network: &Network) -> TcpListener {
    network.backend.set_sysctl("core/somaxconn", "20000");
    network.backend.run(|| {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&socket, &with_port(addr::BACKEND[0], 80).parse::<SocketAddr>().unwrap()).unwrap();
        listen(&socket, 20_000).unwrap();
        socket.into()
    })
}

#[test]
fn ten_thousand_open_connections_reach_their_own_clients() {
    isolated(|| {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).unwrap();
        let network = Network::new();
        let listener = listen_without_accepting(&network);
        let _proxy = Proxy::start_and_wait(&network.pod, &split_args("--forward=tcp/80=10.96.3.7:80"));
        let connect = |number: u32| {
            let mut stream = TcpStream::connect((addr::POD[0], 80)).unwrap_or_else(|error| {
                panic!("connection {number} (ulimit -n must allow {CONNECTION_COUNT}): {error}")
            });
            stream.set_read_timeout(Some(REPLY_TIMEOUT)).unwrap();
            stream.write_all(&number.to_be_bytes()).unwrap();
            stream
        };
        let mut connections: Vec<_> = network.client.run(|| (0..CONNECTION_COUNT).map(connect).collect());
        let metrics = Metrics::scrape(&network.pod);
        assert!(metrics.get("conntrack_entries") >= CONNECTION_COUNT.into());
        assert_eq!(metrics.get("conntrack_clashes_total") + metrics.get("conntrack_full_total"), 0);
        // All connections are open now. The backend echoes the number of each connection.
        for _ in 0..CONNECTION_COUNT {
            let (mut stream, _) = listener.accept().unwrap();
            let mut number = [0; 4];
            stream.set_read_timeout(Some(REPLY_TIMEOUT)).unwrap();
            stream.read_exact(&mut number).unwrap();
            stream.write_all(&number).unwrap();
        }
        for (number, stream) in (0..CONNECTION_COUNT).zip(&mut connections) {
            let mut reply = [0; 4];
            stream.read_exact(&mut reply).unwrap();
            assert_eq!(u32::from_be_bytes(reply), number);
        }
    });
}

#[test]
fn proxy_with_a_thousand_ports_needs_little_memory() {
    isolated(|| {
        let network = Network::new();
        let forward = |port| format!("--forward=tcp/{port}=10.96.3.7:80");
        let forwards: Vec<_> = (20_000..21_000).map(forward).collect();
        let proxy = Proxy::start_and_wait(&network.pod, &forwards);
        let memory_before_scrapes = proxy.private_memory_kib();
        for _ in 0..10 {
            assert_eq!(Metrics::scrape(&network.pod).count_series("connections_total"), 1000);
        }
        let memory_after_scrapes = proxy.private_memory_kib();
        assert!(memory_before_scrapes < 1024, "{memory_before_scrapes} KiB");
        assert!(memory_after_scrapes < 2048, "{memory_after_scrapes} KiB");
    });
}
