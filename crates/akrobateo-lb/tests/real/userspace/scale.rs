//! Scale: memory and file descriptors with many connections and many ports.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};

use super::{EmbeddedProxy, accept, fetch_metrics, ip, start_proxy, sum_metric, with_timeouts};
use crate::harness::addr::{self, with_port};
use crate::harness::process::{count_open_descriptors, peak_memory_bytes, resident_memory_bytes};
use crate::harness::traffic::{REPLY_TIMEOUT, UdpClient, serve_udp};
use crate::harness::{Network, eventually, isolated};

/// Number of connections without traffic.
const IDLE_CONNECTION_COUNT: usize = 10_000;
/// Number of connections with traffic.
const BUSY_CONNECTION_COUNT: usize = 1_000;
/// Memory limit of the proxy's process, in bytes.
const MEMORY_LIMIT: u64 = 64 << 20;
/// Memory limit of one idle connection, in bytes.
const CONNECTION_MEMORY_LIMIT: u64 = 4 << 10;

/// Raises the descriptor limit of this process and of the processes that it starts. Returns the limit.
fn raise_descriptor_limit() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    limit.current.map_or(usize::MAX, |limit| limit.try_into().unwrap())
}

#[test]
fn thousands_of_connections_stay_below_the_memory_limit() {
    isolated(|| {
        // A connection has two descriptors in the proxy, and two in this process.
        let idle_count =
            IDLE_CONNECTION_COUNT.min((raise_descriptor_limit() - 1_000) / 2 - BUSY_CONNECTION_COUNT);
        let network = Network::new();
        for namespace in [&network.client, &network.pod] {
            namespace.set_sysctl("ipv4/ip_local_port_range", "1024 65535");
        }
        let (idle_address, busy_address) = (with_port(addr::BACKEND[0], 80), with_port(addr::BACKEND[0], 81));
        let [idle_backend, busy_backend] = [&idle_address, &busy_address]
            .map(|address| network.backend.run(|| TcpListener::bind(address).unwrap()));
        let command_line = "--data-path=userspace --forward=tcp/80=10.96.3.7:80 --forward=tcp/81=10.96.3.7:81 \
                    --proxy-protocol=v2:80";
        let proxy = start_proxy(&network.pod, command_line);
        let connect = |port| {
            let address = SocketAddr::new(ip(addr::POD[0]), port);
            with_timeouts(TcpStream::connect_timeout(&address, REPLY_TIMEOUT).unwrap())
        };
        let (memory_before, descriptors_before) =
            (resident_memory_bytes(proxy.pid()).unwrap(), count_open_descriptors(proxy.pid()));
        let idle_connections: Vec<_> = network.client.run(|| {
            (0..idle_count)
                .map(|_| {
                    let client = connect(80);
                    let mut backend = accept(&idle_backend);
                    backend.read_exact(&mut [0; 28]).unwrap();
                    (client, backend)
                })
                .collect()
        });
        let bytes_per_connection =
            (resident_memory_bytes(proxy.pid()).unwrap() - memory_before) / idle_count as u64;
        assert!(
            bytes_per_connection < CONNECTION_MEMORY_LIMIT,
            "{bytes_per_connection} bytes for each of {idle_count} connections"
        );
        // Probes and metrics requests open and close a few more descriptors.
        let new_descriptor_count = count_open_descriptors(proxy.pid()) - descriptors_before;
        assert!(
            new_descriptor_count.abs_diff(2 * idle_count) < 5,
            "{new_descriptor_count} descriptors for {idle_count} connections"
        );

        let busy_connections: Vec<_> = network
            .client
            .run(|| (0..BUSY_CONNECTION_COUNT).map(|_| (connect(81), accept(&busy_backend))).collect());
        std::thread::scope(|scope| {
            for chunk in busy_connections.chunks(BUSY_CONNECTION_COUNT / 8) {
                scope.spawn(|| exchange_bytes(chunk));
            }
        });
        let peak_memory_bytes = peak_memory_bytes(proxy.pid()).unwrap();
        assert!(
            peak_memory_bytes < MEMORY_LIMIT,
            "{peak_memory_bytes} bytes for {idle_count} idle and {BUSY_CONNECTION_COUNT} busy connections"
        );
        wait_until_zero(&network, "akrobateo_lb_pipes");
        drop((idle_connections, busy_connections));
        wait_until_zero(&network, "akrobateo_lb_open_connections");
    });
}

fn wait_until_zero(network: &Network, metric: &str) {
    eventually(&format!("{metric} is 0"), || {
        (sum_metric(&fetch_metrics(&network.pod), metric, &[]) == 0).then_some(())
    });
}

/// Moves bytes on all connections at the same time and in both directions. The number of bytes exceeds the size of the
/// sockets' buffers.
fn exchange_bytes(connections: &[(TcpStream, TcpStream)]) {
    let (sent_bytes, mut received_bytes) = (vec![7; 96 << 10], vec![0; 96 << 10]);
    let start = Instant::now();
    for round in 0..3 {
        for (client, backend) in connections {
            (&*client).write_all(&sent_bytes).unwrap();
            (&*backend).write_all(&sent_bytes).unwrap();
        }
        for (client, backend) in connections {
            (&*backend).read_exact(&mut received_bytes).unwrap();
            (&*client).read_exact(&mut received_bytes).unwrap();
        }
        if start.elapsed() > Duration::from_secs(5) && round > 0 {
            break;
        }
    }
}

#[test]
fn each_of_hundreds_of_ports_reaches_its_own_target() {
    isolated(|| {
        raise_descriptor_limit();
        let network = Network::new();
        let ports = 20_000..20_400_u16;
        let listen = |port| TcpListener::bind((addr::BACKEND[0], port + 10_000)).unwrap();
        let backends: Vec<_> = network.backend.run(|| ports.clone().map(listen).collect());
        serve_udp(&network.backend, &with_port(addr::BACKEND[1], 53));
        let tcp = ports.clone().map(|port| format!("--forward=tcp/{port}=10.96.3.7:{}", port + 10_000));
        let udp = ports.clone().map(|port| format!("--forward=udp/{port}=[fd00:96::7]:53"));
        let forwards = tcp.chain(udp).collect::<Vec<_>>().join(" ");
        let proxy = start_proxy(&network.pod, &format!("--data-path=userspace {forwards}"));
        for (port, backend) in ports.zip(backends) {
            let client = network.client.run(|| TcpStream::connect((addr::POD[0], port)).unwrap());
            drop((accept(&backend), client));
        }
        let last_udp_port = with_port(addr::POD[1], 20_399);
        UdpClient::new(&network.client, addr::CLIENT[1], &last_udp_port).request(REPLY_TIMEOUT).unwrap();
        let memory_bytes = resident_memory_bytes(proxy.pid()).unwrap();
        assert!(memory_bytes < MEMORY_LIMIT / 4, "{memory_bytes} bytes");
    });
}

#[test]
fn unread_bytes_of_slow_readers_stay_in_the_kernel() {
    isolated(|| {
        raise_descriptor_limit();
        let network = Network::new();
        let backend = network.backend.run(|| TcpListener::bind(with_port(addr::BACKEND[0], 80)).unwrap());
        let proxy = start_proxy(&network.pod, "--data-path=userspace --forward=tcp/80=10.96.3.7:80");
        let connections: Vec<_> = (0..1_000)
            .map(|_| {
                let client = super::connect(&network, 0);
                let backend = accept(&backend);
                backend.set_nonblocking(true).unwrap();
                (client, backend)
            })
            .collect();
        let block = vec![5; 32 << 10];
        // Write until the buffers of all sockets on the path are full.
        let mut written_bytes = vec![0; connections.len()];
        let mut rounds_without_progress = 0;
        while rounds_without_progress < 3 {
            let total_bytes_before: usize = written_bytes.iter().sum();
            for ((_, backend), written) in connections.iter().zip(&mut written_bytes) {
                while *written < 1 << 20
                    && let Ok(length) = (&*backend).write(&block)
                {
                    *written += length;
                }
            }
            let total_bytes: usize = written_bytes.iter().sum();
            rounds_without_progress =
                if total_bytes == total_bytes_before { rounds_without_progress + 1 } else { 0 };
            std::thread::sleep(Duration::from_millis(20));
        }
        let peak_memory_bytes = peak_memory_bytes(proxy.pid()).unwrap();
        assert!(peak_memory_bytes < MEMORY_LIMIT / 2, "{peak_memory_bytes} bytes");
        for ((client, backend), written) in connections.into_iter().zip(written_bytes) {
            drop(backend);
            assert_eq!(super::read_to_end(&client).unwrap().len(), written);
        }
    });
}

#[test]
fn dropped_proxy_closes_its_listeners() {
    isolated(|| {
        let network = Network::new();
        let proxy = EmbeddedProxy::new(&network.pod, &["tcp/80=10.96.3.7:80"], |_| {});
        drop(proxy);
        eventually("the port is free", || network.pod.run(|| TcpListener::bind((addr::POD[0], 80)).ok()));
    });
}
