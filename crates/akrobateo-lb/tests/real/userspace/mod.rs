//! The userspace path, with real sockets.

mod drain;
mod exhaustion;
mod headers;
mod preflight;
mod scale;
mod source_ranges;
mod streams;
mod targets;
mod udp;

use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU16;
use std::os::fd::AsFd;
use std::time::Duration;

use akrobateo_core::{DataPath, ProxyArgs};
use akrobateo_lb::forwarding_config::ForwardingConfig;
use akrobateo_lb::probe::DataPathStatus;
use akrobateo_lb::userspace::{self, Settings};
use rustix::net::sockopt;

use crate::harness::addr::{self, with_port};
use crate::harness::http;
use crate::harness::proxy::{PROBE_PORT, split_args};
use crate::harness::traffic::REPLY_TIMEOUT;
use crate::harness::{DEADLINE, Namespace, Network, Proxy, eventually};

/// No capability at all.
const NOTHING: &str = "-all";

/// Forwards TCP port 80 in both families to port 80 of the backends.
const FORWARDS: &str = "--data-path=userspace --forward=tcp/80=10.96.3.7:80 --forward=tcp/80=[fd00:96::7]:80";

/// Starts a proxy without any capability, and waits until it is ready.
fn ready(pod: &Namespace, line: &str) -> Proxy {
    Proxy::start_ready_with(pod, &split_args(line), NOTHING)
}

/// A listening backend per family, on port 80.
fn backends(network: &Network) -> [TcpListener; 2] {
    addr::BACKEND.map(|ip| network.backend.run(|| TcpListener::bind(with_port(ip, 80)).unwrap()))
}

/// Connects from the client to port 80 of the pod.
fn connect(network: &Network, family: usize) -> TcpStream {
    let to: SocketAddr = with_port(addr::POD[family], 80).parse().unwrap();
    patient(network.client.run(|| TcpStream::connect_timeout(&to, REPLY_TIMEOUT).unwrap()))
}

/// Connects from the client to port 80 of the pod, and is reset: at once, or as soon as it reads.
fn is_reset(network: &Network, family: usize) {
    let to: SocketAddr = with_port(addr::POD[family], 80).parse().unwrap();
    let connected = network.client.run(|| TcpStream::connect_timeout(&to, REPLY_TIMEOUT));
    let error = connected.and_then(|stream| rest(&patient(stream))).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

/// Waits for a connection to come in.
fn accept(listener: &TcpListener) -> TcpStream {
    sockopt::set_socket_timeout(listener, sockopt::Timeout::Recv, Some(DEADLINE)).unwrap();
    patient(listener.accept().expect("a connection comes in").0)
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(REPLY_TIMEOUT)).unwrap();
    stream.set_write_timeout(Some(REPLY_TIMEOUT)).unwrap();
    stream
}

/// A connection through the proxy, both of its ends.
fn pair(network: &Network, backends: &[TcpListener; 2], family: usize) -> (TcpStream, TcpStream) {
    let client = connect(network, family);
    (client, accept(&backends[family]))
}

/// All that comes until the end.
fn rest(mut stream: &TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map(|_| bytes)
}

/// Has the peer of `stream` see a reset.
fn break_off(stream: TcpStream) {
    sockopt::set_socket_linger(stream.as_fd(), Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// The value of a metric, summed over its samples with all of these labels.
fn metric(text: &str, name: &str, labels: &[&str]) -> u64 {
    let samples = text.lines().filter_map(|line| line.rsplit_once(' '));
    let of_name = samples.filter(|(sample, _)| sample.split('{').next() == Some(name));
    let values: Vec<u64> = of_name
        .filter(|(sample, _)| labels.iter().all(|label| sample.contains(label)))
        .map(|(_, value)| value.parse().unwrap())
        .collect();
    assert!(!values.is_empty(), "no {name} {labels:?} in:\n{text}");
    values.iter().sum()
}

/// What the proxy in `pod` answers at /metrics.
fn metrics(pod: &Namespace) -> String {
    pod.run(|| http::get(("127.0.0.1", PROBE_PORT), "/metrics", REPLY_TIMEOUT)).expect("/metrics is answered")
}

/// A proxy within this process, for settings that nobody can choose from outside.
struct Inside {
    proxy: userspace::Proxy,
}

impl Inside {
    fn new(pod: &Namespace, forwards: &[&str], change: impl FnOnce(&mut Settings) + Send) -> Self {
        let forwards = forwards.iter().map(|text| text.parse().unwrap()).collect();
        let args = ProxyArgs { data_path: DataPath::Userspace, ..ProxyArgs::new(forwards) };
        let plan = ForwardingConfig::new(args).unwrap();
        let settings = |tcp, udp| {
            let mut settings = Settings::for_this_host(tcp, udp);
            change(&mut settings);
            settings
        };
        Self { proxy: pod.run(|| userspace::Proxy::start(&plan, settings).unwrap()) }
    }

    fn metric(&self, name: &str, labels: &[&str]) -> u64 {
        metric(&self.proxy.status().metrics(), name, labels)
    }

    /// Waits until a metric has a value.
    fn reaches(&self, name: &str, labels: &[&str], value: u64) {
        let last = std::cell::Cell::new(0);
        eventually(&format!("{name} {labels:?} is {value}"), || {
            last.set(self.metric(name, labels));
            (last.get() == value).then_some(())
        });
    }
}

fn port(number: u16) -> NonZeroU16 {
    number.try_into().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
