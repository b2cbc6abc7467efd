//! The loads: what a client does with a path for as long as it is told to. I/O only.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::backend::BULK;
use crate::client::{ask, dial, once_from};
use crate::measure::Measure;
use crate::network::at;
use crate::pin::Pinned;
use crate::protocol::Order;

/// How long a client waits for anything.
const PATIENCE: Duration = Duration::from_millis(2500);
/// A connection that takes longer was held up: TCP sends a lost SYN again after a second.
const LATE: Duration = Duration::from_millis(900);
/// A datagram that isn't answered within this is lost.
const LOST: Duration = Duration::from_millis(20);
/// Datagrams of a client on their way.
const WINDOW: u32 = 32;
/// Length of a datagram.
const DATAGRAM: usize = 64;
/// Latencies kept per client.
const LATENCIES: usize = 200_000;
/// Ports of short connections on the client's side; the kernel gives others to other connections.
const FIRST_SOURCE_PORT: usize = 10_000;
const SOURCE_PORTS: usize = 40_000;
/// A stride through the ports that visits all of them, and leaps.
const STRIDE: usize = 619;

/// What clients have achieved, and whether they go on.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    stop: AtomicBool,
    recording: AtomicBool,
    done: AtomicU64,
    failed: AtomicU64,
    late: AtomicU64,
    latencies: Mutex<Vec<Duration>>,
}

impl Progress {
    /// Units done so far: connections, bytes that arrived at the client, datagrams both ways, requests.
    pub(crate) fn done(&self) -> u64 {
        self.done.load(Relaxed)
    }

    /// Connections or datagrams that failed so far.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// Connections that took as long as if a packet had been lost, served or not.
    pub(crate) fn late(&self) -> u64 {
        self.late.load(Relaxed)
    }

    /// From now on, or no longer, latencies are kept.
    pub(crate) fn record(&self, recording: bool) {
        self.recording.store(recording, Relaxed);
    }

    /// Ends the load.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// The latencies kept.
    pub(crate) fn latencies(self) -> Vec<Duration> {
        self.latencies.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Relaxed)
    }
}

/// Clients at a time.
pub(crate) const fn clients(measure: Measure) -> usize {
    match measure {
        Measure::Connections => 8,
        Measure::Up | Measure::Down | Measure::Requests => 4,
        Measure::Datagrams => 2,
    }
}

/// Where client `number` of `clients` connects: spread over all ports, for a port's place in a list of rules counts.
pub(crate) fn target(to: (std::net::Ipv4Addr, u16), ports: u16, number: usize, clients: usize) -> SocketAddr {
    let place = (2 * number + 1) * usize::from(ports) / (2 * clients);
    SocketAddr::from((to.0, to.1 + u16::try_from(place).unwrap_or(0)))
}

/// Loads the path as client `number`, until told to stop.
pub(crate) fn run(measure: Measure, ip: std::net::Ipv4Addr, ports: u16, number: usize, progress: &Progress) {
    let first = if ip == at::BACKEND { at::BACKEND_PORT } else { at::FIRST_PORT };
    let to = target((ip, first), ports, number, clients(measure));
    let ended = match measure {
        Measure::Connections => {
            connections(SocketAddr::from((ip, first)), ports, number, progress);
            Ok(())
        }
        Measure::Up => up(to, progress),
        Measure::Down => down(to, progress),
        Measure::Datagrams => datagrams(to, progress),
        Measure::Requests => Pinned::by_number(number).and_then(|_pinned| requests(to, progress)),
    };
    if ended.is_err() {
        progress.failed.fetch_add(1, Relaxed);
    }
}

fn connections(first: SocketAddr, ports: u16, number: usize, progress: &Progress) {
    let mut turn = number;
    while progress.goes_on() {
        let port = turn * STRIDE % usize::from(ports);
        let to = SocketAddr::new(first.ip(), first.port() + u16::try_from(port).unwrap_or(0));
        let start = Instant::now();
        let counter = if once_from(source_port(number, turn), to, PATIENCE).is_ok() {
            &progress.done
        } else {
            &progress.failed
        };
        counter.fetch_add(1, Relaxed);
        if start.elapsed() > LATE {
            progress.late.fetch_add(1, Relaxed);
        }
        turn += clients(Measure::Connections);
    }
}

/// The client's port of a short connection. The same port to different ports of the Service, which all end at one of the
/// backend's, would have to be changed by the node, and wait for the end of the earlier connection there.
fn source_port(number: usize, turn: usize) -> u16 {
    let each = SOURCE_PORTS / clients(Measure::Connections);
    u16::try_from(FIRST_SOURCE_PORT + number * each + turn / clients(Measure::Connections) % each)
        .unwrap_or(0)
}

fn up(to: SocketAddr, progress: &Progress) -> io::Result<()> {
    let mut stream = dial(to, PATIENCE)?;
    stream.write_all(&Order::Up.request())?;
    let buffer = vec![0; BULK];
    while progress.goes_on() {
        stream.write_all(&buffer)?;
    }
    Ok(())
}

fn down(to: SocketAddr, progress: &Progress) -> io::Result<()> {
    let mut stream = dial(to, PATIENCE)?;
    stream.write_all(&Order::Down.request())?;
    let mut buffer = vec![0; BULK];
    while progress.goes_on() {
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => progress.done.fetch_add(length as u64, Relaxed),
        };
    }
    Ok(())
}

/// Keeps a window of datagrams on their way, and counts what arrives on both sides.
fn datagrams(to: SocketAddr, progress: &Progress) -> io::Result<()> {
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(LOST))?;
    let mut buffer = [0; DATAGRAM];
    let mut under_way = 0;
    while progress.goes_on() {
        while under_way < WINDOW {
            socket.send(&[0; DATAGRAM])?;
            under_way += 1;
        }
        // Half a window at a time, so that both sides have something to do.
        while under_way > WINDOW / 2 {
            match socket.recv(&mut buffer) {
                Ok(_) => {
                    progress.done.fetch_add(2, Relaxed);
                    under_way -= 1;
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    progress.failed.fetch_add(u64::from(under_way), Relaxed);
                    under_way = 0;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn requests(to: SocketAddr, progress: &Progress) -> io::Result<()> {
    let mut stream = dial(to, PATIENCE)?;
    stream.set_nodelay(true)?;
    let mut latencies = Vec::with_capacity(LATENCIES);
    while progress.goes_on() {
        let start = Instant::now();
        ask(&mut stream, Order::Answer)?;
        progress.done.fetch_add(1, Relaxed);
        if progress.recording.load(Relaxed) && latencies.len() < LATENCIES {
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
        let to = |ports, number| target((at::NODE, 20_000), ports, number, 4).port();
        assert_eq!([0, 1, 2, 3].map(|number| to(1, number)), [20_000; 4]);
        assert_eq!([0, 1, 2, 3].map(|number| to(1000, number)), [20_125, 20_375, 20_625, 20_875]);
    }

    #[test]
    fn short_connections_come_from_ports_that_come_again_after_all_others() {
        let mut ports: Vec<_> = (0..SOURCE_PORTS).map(|turn| source_port(turn % 8, turn)).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), SOURCE_PORTS);
        assert_eq!((ports[0], ports[SOURCE_PORTS - 1]), (10_000, 49_999));
    }

    #[test]
    fn short_connections_visit_every_port() {
        let mut visited: Vec<_> = (0..1000).map(|turn| turn * STRIDE % 1000).collect();
        visited.sort_unstable();
        visited.dedup();
        assert_eq!(visited.len(), 1000);
    }
}
