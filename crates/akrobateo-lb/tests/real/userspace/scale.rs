//! Many connections, and many ports, with little memory.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};

use super::{Inside, accept, ip, metric, metrics, patient, ready};
use crate::harness::addr::{self, with_port};
use crate::harness::process::{open_descriptors, peak_memory, resident_memory};
use crate::harness::traffic::{REPLY_TIMEOUT, UdpClient, serve_udp};
use crate::harness::{Network, eventually, isolated};

/// Connections that say nothing, and those that do.
const IDLE: usize = 10_000;
const BUSY: usize = 1_000;
/// What the proxy's process may have in memory, and what an idle connection may add to it.
const MEMORY: u64 = 64 << 20;
const PER_CONNECTION: u64 = 4 << 10;

/// Has this process, and those that it starts, use all descriptors that it may; returns how many.
fn all_descriptors() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    limit.current.map_or(usize::MAX, |limit| limit.try_into().unwrap())
}

#[test]
fn thousands_of_idle_and_busy_connections_fit_into_little_memory() {
    isolated(|| {
        // Two descriptors each, in the proxy as here.
        let idle = IDLE.min((all_descriptors() - 1_000) / 2 - BUSY);
        let network = Network::new();
        for namespace in [&network.client, &network.pod] {
            namespace.set_sysctl("ipv4/ip_local_port_range", "1024 65535");
        }
        let (quiet, lively) = (with_port(addr::BACKEND[0], 80), with_port(addr::BACKEND[0], 81));
        let [quiet_backend, lively_backend] =
            [&quiet, &lively].map(|to| network.backend.run(|| TcpListener::bind(to).unwrap()));
        let line = "--data-path=userspace --forward=tcp/80=10.96.3.7:80 --forward=tcp/81=10.96.3.7:81 \
                    --proxy-protocol=v2:80";
        let proxy = ready(&network.pod, line);
        let connect = |number| {
            let to = SocketAddr::new(ip(addr::POD[0]), number);
            patient(TcpStream::connect_timeout(&to, REPLY_TIMEOUT).unwrap())
        };
        let (memory, files) = (resident_memory(proxy.pid()).unwrap(), open_descriptors(proxy.pid()));
        let open: Vec<_> = network.client.run(|| {
            (0..idle)
                .map(|_| {
                    let client = connect(80);
                    let mut backend = accept(&quiet_backend);
                    backend.read_exact(&mut [0; 28]).unwrap();
                    (client, backend)
                })
                .collect()
        });
        let per_connection = (resident_memory(proxy.pid()).unwrap() - memory) / idle as u64;
        assert!(per_connection < PER_CONNECTION, "{per_connection} bytes for each of {idle}");
        // Some more or less for whoever asks the proxy how it is.
        let more = open_descriptors(proxy.pid()) - files;
        assert!(more.abs_diff(2 * idle) < 5, "{more} descriptors for {idle} connections");

        let busy: Vec<_> =
            network.client.run(|| (0..BUSY).map(|_| (connect(81), accept(&lively_backend))).collect());
        let rounds = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for some in busy.chunks(BUSY / 8) {
                scope.spawn(|| exchange(some, &rounds));
            }
        });
        let memory = peak_memory(proxy.pid()).unwrap();
        assert!(memory < MEMORY, "{memory} bytes for {idle} idle and {BUSY} busy connections");
        eventually("no pipe is held", || {
            (metric(&metrics(&network.pod), "akrobateo_lb_pipes", &[]) == 0).then_some(())
        });
        drop((open, busy));
        eventually("all are over", || {
            (metric(&metrics(&network.pod), "akrobateo_lb_open_connections", &[]) == 0).then_some(())
        });
    });
}

/// Has all of these connections under way at a time, with more than fits into the sockets' buffers, both ways.
fn exchange(connections: &[(TcpStream, TcpStream)], rounds: &AtomicUsize) {
    let (sent, mut received) = (vec![7; 96 << 10], vec![0; 96 << 10]);
    let start = Instant::now();
    for round in 0..3 {
        for (client, backend) in connections {
            (&*client).write_all(&sent).unwrap();
            (&*backend).write_all(&sent).unwrap();
        }
        for (client, backend) in connections {
            (&*backend).read_exact(&mut received).unwrap();
            (&*client).read_exact(&mut received).unwrap();
            rounds.fetch_add(1, Relaxed);
        }
        if start.elapsed() > Duration::from_secs(5) && round > 0 {
            break;
        }
    }
}

#[test]
fn hundreds_of_ports_each_reach_their_own_target() {
    isolated(|| {
        all_descriptors();
        let network = Network::new();
        let numbers = 20_000..20_400_u16;
        let listen = |number| TcpListener::bind((addr::BACKEND[0], number + 10_000)).unwrap();
        let backends: Vec<_> = network.backend.run(|| numbers.clone().map(listen).collect());
        serve_udp(&network.backend, &with_port(addr::BACKEND[1], 53));
        let tcp =
            numbers.clone().map(|number| format!("--forward=tcp/{number}=10.96.3.7:{}", number + 10_000));
        let udp = numbers.clone().map(|number| format!("--forward=udp/{number}=[fd00:96::7]:53"));
        let line = tcp.chain(udp).collect::<Vec<_>>().join(" ");
        let proxy = ready(&network.pod, &format!("--data-path=userspace {line}"));
        for (number, backend) in numbers.zip(backends) {
            let client = network.client.run(|| TcpStream::connect((addr::POD[0], number)).unwrap());
            drop((accept(&backend), client));
        }
        let last = with_port(addr::POD[1], 20_399);
        UdpClient::new(&network.client, addr::CLIENT[1], &last).request(REPLY_TIMEOUT).unwrap();
        let memory = resident_memory(proxy.pid()).unwrap();
        assert!(memory < MEMORY / 4, "{memory} bytes");
    });
}

#[test]
fn slow_readers_by_the_thousand_leave_the_bytes_in_the_kernel() {
    isolated(|| {
        all_descriptors();
        let network = Network::new();
        let backend = network.backend.run(|| TcpListener::bind(with_port(addr::BACKEND[0], 80)).unwrap());
        let proxy = ready(&network.pod, "--data-path=userspace --forward=tcp/80=10.96.3.7:80");
        let open: Vec<_> = (0..1_000)
            .map(|_| {
                let client = super::connect(&network, 0);
                let backend = accept(&backend);
                backend.set_nonblocking(true).unwrap();
                (client, backend)
            })
            .collect();
        let block = vec![5; 32 << 10];
        // As many bytes as all of the sockets on the way take.
        let mut written = vec![0; open.len()];
        let mut quiet = 0;
        while quiet < 3 {
            let before: usize = written.iter().sum();
            for ((_, backend), written) in open.iter().zip(&mut written) {
                while *written < 1 << 20
                    && let Ok(some) = (&*backend).write(&block)
                {
                    *written += some;
                }
            }
            quiet = if written.iter().sum::<usize>() == before { quiet + 1 } else { 0 };
            std::thread::sleep(Duration::from_millis(20));
        }
        let memory = peak_memory(proxy.pid()).unwrap();
        assert!(memory < MEMORY / 2, "{memory} bytes");
        for ((client, backend), written) in open.into_iter().zip(written) {
            drop(backend);
            assert_eq!(super::rest(&client).unwrap().len(), written);
        }
    });
}

/// Used by nobody else: a proxy within this process, to see that it ends.
#[test]
fn a_dropped_proxy_leaves_no_listener_behind() {
    isolated(|| {
        let network = Network::new();
        let inside = Inside::new(&network.pod, &["tcp/80=10.96.3.7:80"], |_| {});
        drop(inside);
        eventually("the port is free", || network.pod.run(|| TcpListener::bind((addr::POD[0], 80)).ok()));
    });
}
