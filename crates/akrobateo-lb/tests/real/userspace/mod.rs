//! Tests of the userspace path with real sockets.

mod drain;
mod limits;
mod preflight;
mod proxy_protocol;
mod scale;
mod source_ranges;
mod streams;
mod targets;
mod udp;

use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU16;
use std::os::fd::AsFd;
use std::thread::JoinHandle;
use std::time::Duration;

use akrobateo_core::{DataPath, ProxyArgs};
use akrobateo_lb::forwarding_config::ForwardingConfig;
use akrobateo_lb::probe::DataPathStatus;
use akrobateo_lb::userspace::{self, ProxyStatus, Settings};
use rustix::net::sockopt;

use crate::harness::addr::{self, with_port};
use crate::harness::http;
use crate::harness::proxy::{PROBE_PORT, split_args};
use crate::harness::traffic::REPLY_TIMEOUT;
use crate::harness::{DEADLINE, Namespace, Network, Proxy, eventually};

/// The argument of setpriv(1) that drops all capabilities.
const NO_CAPABILITIES: &str = "-all";

/// Forwards TCP port 80 in both families to port 80 of the backends.
const FORWARD_ARGS: &str =
    "--data-path=userspace --forward=tcp/80=10.96.3.7:80 --forward=tcp/80=[fd00:96::7]:80";

/// Starts a proxy without any capability, and waits until it is ready.
fn start_proxy(pod: &Namespace, command_line: &str) -> Proxy {
    Proxy::start_with_capabilities_and_wait(pod, &split_args(command_line), NO_CAPABILITIES)
}

/// Binds one listener per address family to port 80 of the backend.
fn bind_backends(network: &Network) -> [TcpListener; 2] {
    addr::BACKEND.map(|ip| network.backend.run(|| TcpListener::bind(with_port(ip, 80)).unwrap()))
}

/// Connects from the client to port 80 of the pod.
fn connect(network: &Network, family_index: usize) -> TcpStream {
    let address: SocketAddr = with_port(addr::POD[family_index], 80).parse().unwrap();
    with_timeouts(network.client.run(|| TcpStream::connect_timeout(&address, REPLY_TIMEOUT).unwrap()))
}

/// Asserts that a connection from the client to port 80 of the pod is reset, at once or at the first read.
fn assert_reset(network: &Network, family_index: usize) {
    let address: SocketAddr = with_port(addr::POD[family_index], 80).parse().unwrap();
    let connect_result = network.client.run(|| TcpStream::connect_timeout(&address, REPLY_TIMEOUT));
    let error = connect_result.and_then(|stream| read_to_end(&with_timeouts(stream))).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

/// Waits for one connection and accepts it.
fn accept(listener: &TcpListener) -> TcpStream {
    sockopt::set_socket_timeout(listener, sockopt::Timeout::Recv, Some(DEADLINE)).unwrap();
    with_timeouts(listener.accept().expect("no connection arrived").0)
}

/// Sets timeouts for reads and writes, and returns the stream.
fn with_timeouts(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(REPLY_TIMEOUT)).unwrap();
    stream.set_write_timeout(Some(REPLY_TIMEOUT)).unwrap();
    stream
}

/// Connects through the proxy. Returns the client's stream and the backend's stream.
fn connect_pair(
    network: &Network,
    backends: &[TcpListener; 2],
    family_index: usize,
) -> (TcpStream, TcpStream) {
    let client = connect(network, family_index);
    (client, accept(&backends[family_index]))
}

/// Reads until the end of the stream.
fn read_to_end(mut stream: &TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map(|_| bytes)
}

/// Closes the stream with a reset.
fn close_with_reset(stream: TcpStream) {
    sockopt::set_socket_linger(stream.as_fd(), Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// Returns the sum of a metric's samples that have all of these labels.
fn sum_metric(text: &str, name: &str, labels: &[&str]) -> u64 {
    let samples = text.lines().filter_map(|line| line.rsplit_once(' '));
    let samples_of_metric = samples.filter(|(sample, _)| sample.split('{').next() == Some(name));
    let values: Vec<u64> = samples_of_metric
        .filter(|(sample, _)| labels.iter().all(|label| sample.contains(label)))
        .map(|(_, value)| value.parse().unwrap())
        .collect();
    assert!(!values.is_empty(), "no {name} {labels:?} in:\n{text}");
    values.iter().sum()
}

/// Returns the response of the proxy in `pod` at /metrics.
fn fetch_metrics(pod: &Namespace) -> String {
    pod.run(|| http::get(("127.0.0.1", PROBE_PORT), "/metrics", REPLY_TIMEOUT))
        .expect("no response at /metrics")
}

/// A proxy in this process. A test can change settings that have no command-line argument.
struct EmbeddedProxy {
    proxy: userspace::Proxy,
}

impl EmbeddedProxy {
    fn new(pod: &Namespace, forwards: &[&str], configure: impl FnOnce(&mut Settings) + Send) -> Self {
        let forwards = forwards.iter().map(|text| text.parse().unwrap()).collect();
        let args = ProxyArgs { data_path: DataPath::Userspace, ..ProxyArgs::new(forwards) };
        let config = ForwardingConfig::new(args).unwrap();
        let settings = |tcp_ports, udp_ports| {
            let mut settings = Settings::for_this_host(tcp_ports, udp_ports);
            configure(&mut settings);
            settings
        };
        Self { proxy: pod.run(|| userspace::Proxy::start(&config, settings).unwrap()) }
    }

    /// Returns a handle to the readiness and metrics.
    fn status(&self) -> ProxyStatus {
        self.proxy.status()
    }

    /// Starts to drain the proxy. The returned thread ends when the proxy has ended.
    fn start_drain(mut self) -> JoinHandle<()> {
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(self.proxy.drain()).unwrap();
        })
    }

    /// Returns the sum of a metric's samples that have all of these labels.
    fn sum_metric(&self, name: &str, labels: &[&str]) -> u64 {
        sum_metric(&self.proxy.status().metrics(), name, labels)
    }

    /// Waits until the sum of a metric's samples is `value`.
    fn wait_for_metric(&self, name: &str, labels: &[&str], value: u64) {
        eventually(&format!("{name} {labels:?} is {value}"), || {
            (self.sum_metric(name, labels) == value).then_some(())
        });
    }
}

/// Waits until a drained proxy has ended.
fn wait_for_end(drain_thread: JoinHandle<()>) {
    eventually("the drained proxy ends", || drain_thread.is_finished().then_some(()));
    drain_thread.join().unwrap();
}

fn port(number: u16) -> NonZeroU16 {
    number.try_into().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
