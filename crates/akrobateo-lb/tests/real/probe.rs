//! The probe's server under connections of hostile pods.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::addr::{self, with_port};
use crate::harness::proxy::{PROBE_PORT, split_args};
use crate::harness::{Network, Proxy, eventually, http, isolated};

/// The kubelet's default timeout of a probe.
const KUBELET_TIMEOUT: Duration = Duration::from_secs(1);
/// The number of connections that the hostile pod keeps open.
const SILENT_CONNECTIONS: usize = 200;

/// Sends a readiness probe as the kubelet of the pod's node does.
fn probe(network: &Network) -> Option<u16> {
    let address: SocketAddr = with_port(addr::POD[0], PROBE_PORT).parse().unwrap();
    network.node.run(|| http::status(address, "/readyz", KUBELET_TIMEOUT))
}

/// Opens silent connections to the probe's port. Opens those again that the proxy has closed.
fn keep_connections_open(network: &Network, address: SocketAddr, silent: &mut Vec<TcpStream>) {
    silent.retain(|stream| {
        stream.set_nonblocking(true).unwrap();
        matches!(stream.peek(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    });
    let missing = SILENT_CONNECTIONS - silent.len();
    network.client.run(|| {
        for _ in 0..missing {
            // An attempt fails if the accept queue is full.
            silent.extend(TcpStream::connect_timeout(&address, Duration::from_millis(20)));
        }
    });
}

#[test]
fn kubelet_gets_an_answer_while_a_pod_keeps_two_hundred_silent_connections_open() {
    isolated(|| {
        let network = Network::new();
        for data_path in ["kernel", "userspace"] {
            let line = format!("--forward=tcp/80=10.96.3.7:80 --data-path={data_path}");
            let _proxy = Proxy::start_and_wait(&network.pod, &split_args(&line));
            let address = with_port(addr::POD[0], PROBE_PORT).parse().unwrap();
            let mut silent = Vec::new();
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(3) {
                keep_connections_open(&network, address, &mut silent);
                assert_eq!(probe(&network), Some(200), "{data_path}, {:?} after the start", start.elapsed());
            }
        }
    });
}

/// Scrapes of a proxy with many ports cost most.
#[test]
fn kubelet_gets_an_answer_while_a_pod_scrapes_without_end() {
    isolated(|| {
        let network = Network::new();
        let forwards: Vec<_> =
            (20_000..21_000).map(|port| format!("--forward=tcp/{port}=10.96.3.7:80")).collect();
        let _proxy = Proxy::start_and_wait(&network.pod, &forwards);
        let address: SocketAddr = with_port(addr::POD[0], PROBE_PORT).parse().unwrap();
        let end = Instant::now() + Duration::from_secs(3);
        std::thread::scope(|scope| {
            for client in [addr::CLIENT, addr::CLIENT_2, addr::CLIENT_3] {
                for _ in 0..8 {
                    let network = &network;
                    scope.spawn(move || {
                        while Instant::now() < end {
                            let _ = network.client.run(|| {
                                let from = (addr::parse_ip(client[0]), 0).into();
                                http::get_from(Some(from), address, "/metrics", Duration::from_secs(5))
                            });
                        }
                    });
                }
            }
            while Instant::now() < end {
                let start = Instant::now();
                assert_eq!(probe(&network), Some(200));
                assert!(start.elapsed() < KUBELET_TIMEOUT, "{:?}", start.elapsed());
                std::thread::sleep(Duration::from_millis(50));
            }
        });
    });
}

#[test]
fn proxy_is_healthy_also_while_it_is_not_ready() {
    isolated(|| {
        let network = Network::new();
        let status =
            |path: &str| network.pod.run(|| http::status(("127.0.0.1", PROBE_PORT), path, KUBELET_TIMEOUT));
        let line = "--forward=tcp/80=[fd00:96::7]:80";
        let proxy = Proxy::start_and_wait(&network.pod, &split_args(line));
        assert_eq!(status("/healthz"), Some(200));
        network.pod.set_sysctl("ipv6/conf/all/forwarding", "0");
        assert_eq!((status("/readyz"), status("/healthz")), (Some(503), Some(200)));
        proxy.kill();
        let args = split_args(&format!("{line} --data-path=userspace"));
        let mut proxy = Proxy::start_and_wait(&network.pod, &args);
        for _ in 0..20 {
            assert_eq!(status("/healthz"), Some(200));
        }
        proxy.signal(Signal::TERM);
        eventually("the proxy is not ready", || (status("/readyz") == Some(503)).then_some(()));
        assert_eq!(status("/healthz"), Some(200));
        assert!(proxy.wait_for_exit().0.success());
    });
}
