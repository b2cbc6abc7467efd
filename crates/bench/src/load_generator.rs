//! The load generator: the clients of each kind of load. Does I/O.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use netns_testkit::tcp::connect;

use crate::backend::BULK_CHUNK_LENGTH;
use crate::client::{request, request_once_from};
use crate::cpu_pin::CpuPin;
use crate::load::Load;
use crate::protocol::Operation;

/// The timeout of a client, for its connection and for each reply.
const TIMEOUT: Duration = Duration::from_millis(2500);
/// A connection is slow if its request takes longer than this time. A slow connection has probably lost a packet,
/// because TCP sends a lost SYN again after one second.
const SLOW_CONNECTION_THRESHOLD: Duration = Duration::from_millis(900);
/// A datagram is considered lost if no reply arrives within this time.
const UDP_TIMEOUT: Duration = Duration::from_millis(20);
/// The maximum number of datagrams in flight per client.
const MAX_DATAGRAMS_IN_FLIGHT: u32 = 32;
/// The length of a datagram in bytes.
const DATAGRAM_LENGTH: usize = 64;
/// The maximum number of latencies that a client records.
const MAX_RECORDED_LATENCIES: usize = 200_000;
/// The first source port for short connections. Other connections get source ports above this range.
const FIRST_SOURCE_PORT: usize = 10_000;
/// The number of source ports for short connections.
const SOURCE_PORT_COUNT: usize = 40_000;
/// The distance between the Service ports of two consecutive connections. This distance has no common divisor with
/// 1,000, so the connections use all 1,000 ports.
const SERVICE_PORT_STEP: usize = 619;

/// Counters that the clients of a load share.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    is_stopped: AtomicBool,
    is_recording: AtomicBool,
    completed_count: AtomicU64,
    failure_count: AtomicU64,
    slow_connections: AtomicU64,
    latencies: Mutex<Vec<Duration>>,
}

impl Progress {
    /// Returns the number of completed connections, downloaded bytes, datagrams in both directions, or requests,
    /// depending on the load.
    pub(crate) fn completed_count(&self) -> u64 {
        self.completed_count.load(Relaxed)
    }

    /// Returns the number of failed connections until now. For UDP, returns the number of lost datagrams.
    pub(crate) fn failure_count(&self) -> u64 {
        self.failure_count.load(Relaxed)
    }

    /// Returns the number of connections that took longer than [`SLOW_CONNECTION_THRESHOLD`], including failed
    /// connections.
    pub(crate) fn slow_connections(&self) -> u64 {
        self.slow_connections.load(Relaxed)
    }

    /// Starts or stops the recording of latencies.
    pub(crate) fn set_recording(&self, is_recording: bool) {
        self.is_recording.store(is_recording, Relaxed);
    }

    /// Stops the clients.
    pub(crate) fn stop(&self) {
        self.is_stopped.store(true, Relaxed);
    }

    /// Returns the recorded latencies.
    pub(crate) fn into_latencies(self) -> Vec<Duration> {
        self.latencies.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_running(&self) -> bool {
        !self.is_stopped.load(Relaxed)
    }
}

/// An address, and the range of ports to which clients connect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frontends {
    /// The address with the first port.
    pub(crate) first: SocketAddr,
    /// The number of consecutive ports.
    pub(crate) ports: u16,
}

impl Frontends {
    fn get(self, index: usize) -> SocketAddr {
        SocketAddr::new(self.first.ip(), self.first.port() + u16::try_from(index).unwrap_or(0))
    }

    /// Returns the address and port for the client with this number.
    ///
    /// The clients are spread over all ports, because klipper-lb compares each packet with one rule after the other.
    /// The comparison takes longer if the matching rule is later in the list.
    fn select_for_client(self, number: usize, clients: usize) -> SocketAddr {
        self.get((2 * number + 1) * usize::from(self.ports) / (2 * clients))
    }
}

/// Runs the client with this number until `progress` stops it.
pub(crate) fn run_client(load: Load, frontends: Frontends, number: usize, progress: &Progress) {
    let remote_address = frontends.select_for_client(number, load.clients());
    let result = match load {
        Load::Connections => {
            open_connections(frontends, number, progress);
            Ok(())
        }
        Load::Upload => upload(remote_address, progress),
        Load::Download => download(remote_address, progress),
        Load::Udp => exchange_datagrams(remote_address, progress),
        Load::Requests => {
            CpuPin::from_thread_number(number).and_then(|_cpu_pin| send_requests(remote_address, progress))
        }
        Load::SingleConnection => open_single_connections(frontends, progress),
        Load::SingleDatagram => exchange_single_datagrams(remote_address, progress),
    };
    if result.is_err() {
        progress.failure_count.fetch_add(1, Relaxed);
    }
}

/// Opens one connection after another. The connections of all clients are distributed over the Service ports.
fn open_connections(frontends: Frontends, number: usize, progress: &Progress) {
    let mut connection = number;
    while progress.is_running() {
        let remote_address = frontends.get(connection * SERVICE_PORT_STEP % usize::from(frontends.ports));
        let start = Instant::now();
        let counter =
            if request_once_from(Some(source_port(number, connection)), remote_address, TIMEOUT).is_ok() {
                &progress.completed_count
            } else {
                &progress.failure_count
            };
        counter.fetch_add(1, Relaxed);
        if start.elapsed() > SLOW_CONNECTION_THRESHOLD {
            progress.slow_connections.fetch_add(1, Relaxed);
        }
        connection += Load::Connections.clients();
    }
}

/// Returns the source port of a short connection.
///
/// All Service ports lead to one backend port. If two connections to different Service ports had the same source port,
/// the node would have to translate the source port of the second connection.
fn source_port(number: usize, connection: usize) -> u16 {
    let clients = Load::Connections.clients();
    let ports_per_client = SOURCE_PORT_COUNT / clients;
    let port = FIRST_SOURCE_PORT + number * ports_per_client + connection / clients % ports_per_client;
    u16::try_from(port).unwrap_or(0)
}

/// Opens one connection after another, and records the time of each.
fn open_single_connections(frontends: Frontends, progress: &Progress) -> io::Result<()> {
    // Consecutive samples use different ports, because conntrack keeps closed connections for a second.
    static CONNECTION_COUNT: AtomicUsize = AtomicUsize::new(0);
    let mut recorder = Recorder::new(progress);
    while progress.is_running() {
        let connection = CONNECTION_COUNT.fetch_add(1, Relaxed);
        let port = u16::try_from(FIRST_SOURCE_PORT + connection % SOURCE_PORT_COUNT).ok();
        let remote_address = frontends.get(connection * SERVICE_PORT_STEP % usize::from(frontends.ports));
        recorder.record(|| request_once_from(port, remote_address, TIMEOUT).map(drop))?;
    }
    recorder.finish();
    Ok(())
}

/// Sends one datagram after another, and records the time until its reply. Lost datagrams are not in the recorded
/// times.
fn exchange_single_datagrams(remote_address: SocketAddr, progress: &Progress) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(remote_address)?;
    socket.set_read_timeout(Some(UDP_TIMEOUT))?;
    let mut buffer = [0; DATAGRAM_LENGTH];
    let mut recorder = Recorder::new(progress);
    while progress.is_running() {
        let exchange = || socket.send(&[0; DATAGRAM_LENGTH]).and_then(|_| socket.recv(&mut buffer)).map(drop);
        match recorder.record(exchange) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                progress.failure_count.fetch_add(1, Relaxed);
            }
            result => result?,
        }
    }
    recorder.finish();
    Ok(())
}

/// Records the latencies of one client's exchanges.
struct Recorder<'a> {
    progress: &'a Progress,
    latencies: Vec<Duration>,
}

impl<'a> Recorder<'a> {
    fn new(progress: &'a Progress) -> Self {
        Self { progress, latencies: Vec::with_capacity(MAX_RECORDED_LATENCIES) }
    }

    fn record(&mut self, exchange: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let start = Instant::now();
        exchange()?;
        self.progress.completed_count.fetch_add(1, Relaxed);
        if self.progress.is_recording.load(Relaxed) && self.latencies.len() < MAX_RECORDED_LATENCIES {
            self.latencies.push(start.elapsed());
        }
        Ok(())
    }

    fn finish(mut self) {
        self.progress.latencies.lock().unwrap_or_else(PoisonError::into_inner).append(&mut self.latencies);
    }
}

fn upload(remote_address: SocketAddr, progress: &Progress) -> io::Result<()> {
    let mut stream = connect(None, remote_address, TIMEOUT)?;
    stream.write_all(&Operation::Upload.encode_request())?;
    let buffer = vec![0; BULK_CHUNK_LENGTH];
    while progress.is_running() {
        stream.write_all(&buffer)?;
    }
    Ok(())
}

fn download(remote_address: SocketAddr, progress: &Progress) -> io::Result<()> {
    let mut stream = connect(None, remote_address, TIMEOUT)?;
    stream.write_all(&Operation::Download.encode_request())?;
    let mut buffer = vec![0; BULK_CHUNK_LENGTH];
    while progress.is_running() {
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => progress.completed_count.fetch_add(length as u64, Relaxed),
        };
    }
    Ok(())
}

/// Keeps up to [`MAX_DATAGRAMS_IN_FLIGHT`] datagrams in flight, and counts each datagram and each reply.
fn exchange_datagrams(remote_address: SocketAddr, progress: &Progress) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(remote_address)?;
    socket.set_read_timeout(Some(UDP_TIMEOUT))?;
    let mut buffer = [0; DATAGRAM_LENGTH];
    let mut datagrams_in_flight = 0;
    while progress.is_running() {
        while datagrams_in_flight < MAX_DATAGRAMS_IN_FLIGHT {
            socket.send(&[0; DATAGRAM_LENGTH])?;
            datagrams_in_flight += 1;
        }
        // Waits for only half of the replies, so that the client and the backend are always busy.
        while datagrams_in_flight > MAX_DATAGRAMS_IN_FLIGHT / 2 {
            match socket.recv(&mut buffer) {
                Ok(_) => {
                    progress.completed_count.fetch_add(2, Relaxed);
                    datagrams_in_flight -= 1;
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    progress.failure_count.fetch_add(u64::from(datagrams_in_flight), Relaxed);
                    datagrams_in_flight = 0;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn send_requests(remote_address: SocketAddr, progress: &Progress) -> io::Result<()> {
    let mut stream = connect(None, remote_address, TIMEOUT)?;
    stream.set_nodelay(true)?;
    let mut recorder = Recorder::new(progress);
    while progress.is_running() {
        recorder.record(|| request(&mut stream, Operation::Reply).map(drop))?;
    }
    recorder.finish();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_spread_over_the_ports() {
        let ports_of_clients = |ports| {
            let frontends = Frontends { first: "192.0.2.1:20000".parse().unwrap(), ports };
            [0, 1, 2, 3].map(|number| frontends.select_for_client(number, 4).port())
        };
        assert_eq!(ports_of_clients(1), [20_000; 4]);
        assert_eq!(ports_of_clients(1000), [20_125, 20_375, 20_625, 20_875]);
    }

    #[test]
    fn source_ports_of_short_connections_repeat_only_after_all_are_used() {
        let mut ports: Vec<_> =
            (0..SOURCE_PORT_COUNT).map(|connection| source_port(connection % 8, connection)).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), SOURCE_PORT_COUNT);
        assert_eq!((ports[0], ports[SOURCE_PORT_COUNT - 1]), (10_000, 49_999));
    }

    #[test]
    fn short_connections_use_every_port() {
        let mut ports: Vec<_> = (0..1000).map(|connection| connection * SERVICE_PORT_STEP % 1000).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 1000);
    }
}
