//! A backend whose answers contain the client's address that the backend sees. Does I/O.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use super::addresses::BACKEND_PORT;
use crate::Namespace;

/// The largest datagram that the backend receives.
const MAX_DATAGRAM_LENGTH: usize = 65_535;
/// The time after which a connection without requests ends.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// A running backend, which listens on TCP and UDP port [`BACKEND_PORT`] of both families. The backend stops when it
/// is dropped.
///
/// The backend answers each line and each datagram with its name and the client's address. The backend pads each answer
/// to the length of the request.
#[derive(Debug)]
pub struct Backend {
    /// The write end of a pipe. The thread ends when this end is closed.
    stop_writer: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Backend {
    /// Starts a backend in a namespace.
    pub fn start(namespace: &Namespace, name: &str) -> Self {
        let (stop_reader, stop_writer) = rustix::pipe::pipe().unwrap();
        let (listener, socket) = namespace.run(|| {
            let any_address = (Ipv6Addr::UNSPECIFIED, BACKEND_PORT);
            (TcpListener::bind(any_address).unwrap(), UdpSocket::bind(any_address).unwrap())
        });
        let name = name.to_owned();
        let thread = std::thread::spawn(move || serve(&listener, &socket, &stop_reader, &name));
        Self { stop_writer: Some(stop_writer), thread: Some(thread) }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop_writer = None;
        let is_joined = self.thread.take().is_none_or(|thread| thread.join().is_ok());
        assert!(is_joined || std::thread::panicking(), "the backend has failed");
    }
}

fn serve(listener: &TcpListener, socket: &UdpSocket, stop_reader: &OwnedFd, name: &str) {
    let mut datagram = vec![0; MAX_DATAGRAM_LENGTH];
    loop {
        let mut poll_fds = [
            PollFd::new(listener, PollFlags::IN),
            PollFd::new(socket, PollFlags::IN),
            PollFd::new(stop_reader, PollFlags::IN),
        ];
        poll(&mut poll_fds, None).unwrap();
        let [has_connection, has_datagram, is_stopped] = poll_fds.map(|source| !source.revents().is_empty());
        if is_stopped {
            return;
        }
        // An ICMP error for an earlier answer makes a call fail once. The next call succeeds.
        if has_connection && let Ok((stream, client)) = listener.accept() {
            let name = name.to_owned();
            std::thread::spawn(move || serve_connection(stream, &name, client));
        }
        if has_datagram && let Ok((length, client)) = socket.recv_from(&mut datagram) {
            let _ = socket.send_to(&build_answer(name, client, length), client);
        }
    }
}

/// Answers each line until the client closes the connection.
fn serve_connection(mut stream: TcpStream, name: &str, client: SocketAddr) {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(IDLE_TIMEOUT)).unwrap();
    let mut requests = BufReader::new(stream.try_clone().unwrap());
    let mut request = Vec::new();
    while let Ok(1..) = requests.read_until(b'\n', &mut request) {
        if stream.write_all(&build_answer(name, client, request.len())).is_err() {
            return;
        }
        request.clear();
    }
}

/// Returns a line of at least `length` bytes: the backend's name, the client's address, padding.
fn build_answer(name: &str, client: SocketAddr, length: usize) -> Vec<u8> {
    let client = SocketAddr::new(client.ip().to_canonical(), client.port());
    let mut answer = format!("{name} {client} ").into_bytes();
    answer.resize(answer.len().max(length.saturating_sub(1)), b'.');
    answer.push(b'\n');
    answer
}
