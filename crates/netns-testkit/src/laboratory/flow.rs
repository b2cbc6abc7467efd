//! A client of the laboratory's backends: a connection or a UDP flow. Does I/O, in the namespace of the calling thread.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use akrobateo_core::protocol::Protocol;
use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

use crate::tcp;

/// The largest length of an answer, in bytes.
const MAX_ANSWER_LENGTH: usize = 65_535;

/// The parsed answer of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The backend's name, for example `n2p1` for the first pod of node 2.
    pub backend: String,
    /// The client's address and port that the backend saw.
    pub client: SocketAddr,
}

/// An open connection or UDP flow.
#[derive(Debug)]
pub enum Flow {
    /// A TCP connection.
    Tcp(TcpStream),
    /// A connected UDP socket.
    Udp(UdpSocket),
}

impl Flow {
    /// Opens a flow to `remote`, from `local` if `local` is given. `timeout` is the limit for the opening of
    /// the flow, and for the wait for each answer.
    pub fn open(
        protocol: Protocol,
        local: Option<SocketAddr>,
        remote: SocketAddr,
        timeout: Duration,
    ) -> io::Result<Self> {
        match protocol {
            Protocol::Tcp => {
                let stream = tcp::connect(local, remote, timeout)?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
            Protocol::Udp => {
                let socket = open_udp_socket(local, remote)?;
                socket.connect(remote)?;
                socket.set_read_timeout(Some(timeout))?;
                Ok(Self::Udp(socket))
            }
            Protocol::Sctp => Err(ErrorKind::Unsupported.into()),
        }
    }

    /// Returns the client's own address.
    pub fn local_address(&self) -> SocketAddr {
        match self {
            Self::Tcp(stream) => stream.local_addr(),
            Self::Udp(socket) => socket.local_addr(),
        }
        .unwrap()
    }

    /// Sends a request of `length` bytes, at least 1, and returns the answer. The answer must have at least `length`
    /// bytes.
    pub fn ask(&mut self, length: usize) -> io::Result<Answer> {
        let mut request = vec![b'.'; length - 1];
        request.push(b'\n');
        match self {
            Self::Tcp(stream) => {
                stream.write_all(&request)?;
                parse_answer(&read_line(stream)?, length)
            }
            Self::Udp(socket) => {
                socket.send(&request)?;
                let mut answer = vec![0; MAX_ANSWER_LENGTH];
                let answer_length = socket.recv(&mut answer).map_err(map_timeout)?;
                parse_answer(&answer[..answer_length], length)
            }
        }
    }
}

/// Opens a UDP socket. Several sockets can have the same address `local` if they connect to different addresses.
fn open_udp_socket(local: Option<SocketAddr>, remote: SocketAddr) -> io::Result<UdpSocket> {
    let Some(local) = local else {
        return UdpSocket::bind(SocketAddr::new(unspecified_address(remote.ip()), 0));
    };
    let family = if remote.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &local)?;
    Ok(socket.into())
}

/// Opens a flow to `remote`, sends one request, and closes the flow.
pub fn ask(protocol: Protocol, remote: SocketAddr, timeout: Duration) -> io::Result<Answer> {
    Flow::open(protocol, None, remote, timeout)?.ask(1)
}

fn unspecified_address(remote: IpAddr) -> IpAddr {
    if remote.is_ipv4() {
        std::net::Ipv4Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    }
}

fn read_line(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut buffer = vec![0; MAX_ANSWER_LENGTH];
    while line.last() != Some(&b'\n') {
        match stream.read(&mut buffer).map_err(map_timeout)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            length => line.extend_from_slice(&buffer[..length]),
        }
    }
    Ok(line)
}

/// Replaces the error `WouldBlock`, with which the kernel reports the timeout of `SO_RCVTIMEO`, by `TimedOut`.
fn map_timeout(error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::WouldBlock { ErrorKind::TimedOut.into() } else { error }
}

fn parse_answer(bytes: &[u8], min_length: usize) -> io::Result<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let mut words = text.split(' ');
    let (backend, client) = (words.next(), words.next().and_then(|word| word.parse().ok()));
    match (backend, client) {
        (Some(backend), Some(client)) if bytes.len() >= min_length => {
            Ok(Answer { backend: backend.to_owned(), client })
        }
        _ => Err(io::Error::new(ErrorKind::InvalidData, text.into_owned())),
    }
}
