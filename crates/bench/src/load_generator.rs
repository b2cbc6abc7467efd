//! The load generator: the clients of each kind of load. Does I/O.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use netns_testkit::tcp::connect;

use crate::backend::BULK_CHUNK;
use crate::client::{request, request_once_from};
use crate::cpu_pin::CpuPin;
use crate::load::Load;
use crate::protocol::Operation;

/// The timeout of a client, for its connection and for each reply.
const TIMEOUT: Duration = Duration::from_millis(2500);
/// A slower connection has lost a packet: TCP sends a lost SYN again after one second.
const SLOW_CONNECTION: Duration = Duration::from_millis(900);
/// A datagram without a reply after this time is lost.
const UDP_TIMEOUT: Duration = Duration::from_millis(20);
/// The number of datagrams of a client that wait for their reply.
const UDP_WINDOW: u32 = 32;
/// The length of a datagram in bytes.
const DATAGRAM_LENGTH: usize = 64;
/// The number of latencies that a client keeps.
const MAX_LATENCIES: usize = 200_000;
/// The client's first port for short connections. The kernel gives higher ports to other connections.
const FIRST_SOURCE_PORT: usize = 10_000;
/// The number of client ports for short connections.
const SOURCE_PORTS: usize = 40_000;
/// The step from one Service port to the next. It has no common divisor with 1,000, so all ports are used.
const PORT_STRIDE: usize = 619;

/// Counters that the clients of a load share.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    stopped: AtomicBool,
    recording: AtomicBool,
    units: AtomicU64,
    failed: AtomicU64,
    slow: AtomicU64,
    latencies: Mutex<Vec<Duration>>,
}

impl Progress {
    /// Returns the units up to now: connections, downloaded bytes, datagrams in both directions, or requests.
    pub(crate) fn units(&self) -> u64 {
        self.units.load(Relaxed)
    }

    /// Returns the number of failed connections or lost datagrams up to now.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// Returns the number of connections, failed or not, that were as slow as after a lost packet.
    pub(crate) fn slow(&self) -> u64 {
        self.slow.load(Relaxed)
    }

    /// Starts or stops the recording of latencies.
    pub(crate) fn set_recording(&self, recording: bool) {
        self.recording.store(recording, Relaxed);
    }

    /// Stops the clients.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Relaxed);
    }

    /// Returns the recorded latencies.
    pub(crate) fn into_latencies(self) -> Vec<Duration> {
        self.latencies.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_running(&self) -> bool {
        !self.stopped.load(Relaxed)
    }
}

/// The ports that clients connect to, on one address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frontends {
    /// The address with the first port.
    pub(crate) first: SocketAddr,
    /// The number of consecutive ports.
    pub(crate) ports: u16,
}

impl Frontends {
    fn nth(self, index: usize) -> SocketAddr {
        SocketAddr::new(self.first.ip(), self.first.port() + u16::try_from(index).unwrap_or(0))
    }

    /// Returns the port of client `number` of `clients`.
    ///
    /// Clients are spread over all ports, because a later rule in a list of rules is slower.
    fn for_client(self, number: usize, clients: usize) -> SocketAddr {
        self.nth((2 * number + 1) * usize::from(self.ports) / (2 * clients))
    }
}

/// Runs client `number` of a load until `progress` stops it.
pub(crate) fn run_client(load: Load, frontends: Frontends, number: usize, progress: &Progress) {
    let remote = frontends.for_client(number, load.clients());
    let result = match load {
        Load::Connections => {
            open_connections(frontends, number, progress);
            Ok(())
        }
        Load::Upload => upload(remote, progress),
        Load::Download => download(remote, progress),
        Load::Udp => exchange_datagrams(remote, progress),
        Load::Requests => {
            CpuPin::by_thread_number(number).and_then(|_cpu_pin| send_requests(remote, progress))
        }
    };
    if result.is_err() {
        progress.failed.fetch_add(1, Relaxed);
    }
}

/// Opens one connection after another. The clients of the load share the ports.
fn open_connections(frontends: Frontends, number: usize, progress: &Progress) {
    let mut connection = number;
    while progress.is_running() {
        let remote = frontends.nth(connection * PORT_STRIDE % usize::from(frontends.ports));
        let start = Instant::now();
        let counter = if request_once_from(Some(source_port(number, connection)), remote, TIMEOUT).is_ok() {
            &progress.units
        } else {
            &progress.failed
        };
        counter.fetch_add(1, Relaxed);
        if start.elapsed() > SLOW_CONNECTION {
            progress.slow.fetch_add(1, Relaxed);
        }
        connection += Load::Connections.clients();
    }
}

/// Returns the client's port of a short connection.
///
/// All Service ports lead to one backend port. If a client used one of its ports for two Service ports, the node would
/// have to translate the second one, and wait until the first connection has ended.
fn source_port(number: usize, connection: usize) -> u16 {
    let clients = Load::Connections.clients();
    let ports_per_client = SOURCE_PORTS / clients;
    let port = FIRST_SOURCE_PORT + number * ports_per_client + connection / clients % ports_per_client;
    u16::try_from(port).unwrap_or(0)
}

fn upload(remote: SocketAddr, progress: &Progress) -> io::Result<()> {
    let mut stream = connect(None, remote, TIMEOUT)?;
    stream.write_all(&Operation::Upload.to_request())?;
    let buffer = vec![0; BULK_CHUNK];
    while progress.is_running() {
        stream.write_all(&buffer)?;
    }
    Ok(())
}

fn download(remote: SocketAddr, progress: &Progress) -> io::Result<()> {
    let mut stream = connect(None, remote, TIMEOUT)?;
    stream.write_all(&Operation::Download.to_request())?;
    let mut buffer = vec![0; BULK_CHUNK];
    while progress.is_running() {
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => progress.units.fetch_add(length as u64, Relaxed),
        };
    }
    Ok(())
}

/// Keeps a window of datagrams in flight, and counts each datagram and its reply.
fn exchange_datagrams(remote: SocketAddr, progress: &Progress) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(remote)?;
    socket.set_read_timeout(Some(UDP_TIMEOUT))?;
    let mut buffer = [0; DATAGRAM_LENGTH];
    let mut in_flight = 0;
    while progress.is_running() {
        while in_flight < UDP_WINDOW {
            socket.send(&[0; DATAGRAM_LENGTH])?;
            in_flight += 1;
        }
        // Waits for half a window only, so that both sides stay busy.
        while in_flight > UDP_WINDOW / 2 {
            match socket.recv(&mut buffer) {
                Ok(_) => {
                    progress.units.fetch_add(2, Relaxed);
                    in_flight -= 1;
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    progress.failed.fetch_add(u64::from(in_flight), Relaxed);
                    in_flight = 0;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn send_requests(remote: SocketAddr, progress: &Progress) -> io::Result<()> {
    let mut stream = connect(None, remote, TIMEOUT)?;
    stream.set_nodelay(true)?;
    let mut latencies = Vec::with_capacity(MAX_LATENCIES);
    while progress.is_running() {
        let start = Instant::now();
        request(&mut stream, Operation::Reply)?;
        progress.units.fetch_add(1, Relaxed);
        if progress.recording.load(Relaxed) && latencies.len() < MAX_LATENCIES {
            latencies.push(start.elapsed());
        }
    }
    progress.latencies.lock().unwrap_or_else(PoisonError::into_inner).append(&mut latencies);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_spread_over_the_ports() {
        let ports_of_clients = |ports| {
            let frontends = Frontends { first: "192.0.2.1:20000".parse().unwrap(), ports };
            [0, 1, 2, 3].map(|number| frontends.for_client(number, 4).port())
        };
        assert_eq!(ports_of_clients(1), [20_000; 4]);
        assert_eq!(ports_of_clients(1000), [20_125, 20_375, 20_625, 20_875]);
    }

    #[test]
    fn source_ports_of_short_connections_repeat_only_after_all_are_used() {
        let mut ports: Vec<_> =
            (0..SOURCE_PORTS).map(|connection| source_port(connection % 8, connection)).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), SOURCE_PORTS);
        assert_eq!((ports[0], ports[SOURCE_PORTS - 1]), (10_000, 49_999));
    }

    #[test]
    fn short_connections_use_every_port() {
        let mut ports: Vec<_> = (0..1000).map(|connection| connection * PORT_STRIDE % 1000).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 1000);
    }
}
