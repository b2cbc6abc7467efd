//! The probe server while hostile pods connect to it.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::addr::{self, with_port};
use crate::harness::proxy::{PROBE_PORT, split_args};
use crate::harness::{DEADLINE, Network, Proxy, eventually, http, isolated};

/// The kubelet's default timeout of a probe.
const KUBELET_TIMEOUT: Duration = Duration::from_secs(1);
/// The number of failed probes in a row after which the kubelet considers a pod not ready (`failureThreshold`).
const FAILURE_THRESHOLD: u32 = 3;
/// The number of connections that the hostile pod keeps open.
const SILENT_CONNECTION_COUNT: usize = 200;

/// Sends readiness probes as the kubelet does. The kubelet considers a pod not ready only after several failed probes
/// in a row. The function therefore fails only after [`FAILURE_THRESHOLD`] failed probes in a row.
fn check_ready(network: &Network, situation: &str) {
    let address: SocketAddr = with_port(addr::POD[0], PROBE_PORT).parse().unwrap();
    let probe = |_| network.node.run(|| http::status(address, "/readyz", KUBELET_TIMEOUT)) == Some(200);
    assert!((0..FAILURE_THRESHOLD).any(probe), "{situation}: {FAILURE_THRESHOLD} probes failed");
}

/// Opens silent connections to the probe's port, until the number of connections is [`SILENT_CONNECTION_COUNT`].
/// Replaces connections that the proxy has closed.
fn keep_connections_open(network: &Network, address: SocketAddr, silent_clients: &mut Vec<TcpStream>) {
    silent_clients.retain(|stream| {
        stream.set_nonblocking(true).unwrap();
        matches!(stream.peek(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    });
    let missing_count = SILENT_CONNECTION_COUNT - silent_clients.len();
    network.client.run(|| {
        for _ in 0..missing_count {
            // An attempt fails if the accept queue is full.
            silent_clients.extend(TcpStream::connect_timeout(&address, Duration::from_millis(20)));
        }
    });
}

#[test]
fn kubelet_gets_an_answer_despite_two_hundred_silent_connections() {
    isolated(|| {
        let network = Network::new();
        for data_path in ["kernel", "userspace"] {
            let line = format!("--forward=tcp/80=10.96.3.7:80 --data-path={data_path}");
            let _proxy = Proxy::start_and_wait(&network.pod, &split_args(&line));
            let address = with_port(addr::POD[0], PROBE_PORT).parse().unwrap();
            let mut silent_clients = Vec::new();
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(3) {
                keep_connections_open(&network, address, &mut silent_clients);
                check_ready(&network, data_path);
            }
        }
    });
}

/// Opens one silent connection from `source`. Closes the oldest silent connection if there are more than a thousand.
fn open_silent_connection(
    network: &Network,
    server: SocketAddr,
    source: IpAddr,
    silent_clients: &mut VecDeque<TcpStream>,
) {
    let connect = || netns_testkit::tcp::connect(Some((source, 0).into()), server, Duration::from_millis(20));
    silent_clients.extend(network.client.run(connect));
    if silent_clients.len() > 1_000 {
        silent_clients.pop_front();
    }
}

#[test]
fn kubelet_gets_an_answer_while_clients_with_many_addresses_connect() {
    isolated(|| {
        let network = Network::new();
        let sources: Vec<IpAddr> = (3..=120).map(|host| [192, 0, 2, host].into()).collect();
        network.client.add_addresses("eth0", &sources);
        let server: SocketAddr = with_port(addr::POD[0], PROBE_PORT).parse().unwrap();
        let _proxy = Proxy::start_and_wait(&network.pod, &split_args("--forward=tcp/80=10.96.3.7:80"));
        let deadline = Instant::now() + Duration::from_secs(3);
        std::thread::scope(|scope| {
            for sources in sources.chunks(60) {
                let network = &network;
                scope.spawn(move || {
                    let mut silent_clients = VecDeque::new();
                    for source in sources.iter().cycle().take_while(|_| Instant::now() < deadline) {
                        open_silent_connection(network, server, *source, &mut silent_clients);
                    }
                });
            }
            while Instant::now() < deadline {
                check_ready(&network, "many addresses connect");
            }
        });
    });
}

/// The proxy has many ports, because the time for a response with metrics increases with the number of ports.
#[test]
fn kubelet_gets_an_answer_while_a_pod_repeatedly_requests_metrics() {
    isolated(|| {
        let network = Network::new();
        let forwards: Vec<_> =
            (20_000..21_000).map(|port| format!("--forward=tcp/{port}=10.96.3.7:80")).collect();
        let _proxy = Proxy::start_and_wait(&network.pod, &forwards);
        let address: SocketAddr = with_port(addr::POD[0], PROBE_PORT).parse().unwrap();
        let deadline = Instant::now() + Duration::from_secs(3);
        std::thread::scope(|scope| {
            for client in [addr::CLIENT, addr::CLIENT_2, addr::CLIENT_3] {
                for _ in 0..8 {
                    let network = &network;
                    scope.spawn(move || {
                        while Instant::now() < deadline {
                            let _ = network.client.run(|| {
                                let source = (addr::parse_ip(client[0]), 0).into();
                                http::get_from(Some(source), address, "/metrics", Duration::from_secs(5))
                            });
                        }
                    });
                }
            }
            while Instant::now() < deadline {
                check_ready(&network, "a pod scrapes");
                std::thread::sleep(Duration::from_millis(50));
            }
        });
    });
}

#[test]
fn proxy_is_healthy_even_while_it_is_not_ready() {
    isolated(|| {
        let network = Network::new();
        let status = |path: &str| network.pod.run(|| http::status(("127.0.0.1", PROBE_PORT), path, DEADLINE));
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
