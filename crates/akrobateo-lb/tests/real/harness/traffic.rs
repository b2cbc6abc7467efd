//! Clients, and backends whose replies contain the addresses of the connection. Does I/O.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use netns_testkit::Namespace;

use super::addr::with_port;

/// The timeout of a client that expects a reply. The timeout is longer than any reply takes, even on a busy machine.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// The time after which a client considers a reply missing.
pub const NO_REPLY_TIMEOUT: Duration = Duration::from_millis(400);

/// A line that a client sends and the backend echoes.
const ECHO_LINE: &str = "echo this\n";

/// A backend's reply: the addresses of the connection or datagram as the backend sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The source address.
    pub source_address: SocketAddr,
    /// The destination address.
    pub destination_address: SocketAddr,
}

impl Reply {
    fn to_line(&self) -> String {
        format!("{} {}\n", self.source_address, self.destination_address)
    }

    fn parse(line: &str) -> Self {
        let (source, destination) =
            line.trim_end().split_once(' ').unwrap_or_else(|| panic!("reply {line:?}"));
        Self { source_address: source.parse().unwrap(), destination_address: destination.parse().unwrap() }
    }
}

/// Serves TCP at `address`: sends a [`Reply`] on each connection, then echoes all bytes.
pub fn serve_tcp(backend: &Namespace, address: &str) {
    let listener = backend.run(|| TcpListener::bind(address).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || reply_and_echo(stream));
        }
    });
}

fn reply_and_echo(mut stream: TcpStream) -> io::Result<()> {
    let reply = Reply { source_address: stream.peer_addr()?, destination_address: stream.local_addr()? };
    stream.write_all(reply.to_line().as_bytes())?;
    let mut reader = stream.try_clone()?;
    io::copy(&mut reader, &mut stream)?;
    Ok(())
}

/// Serves UDP at `address`: sends a [`Reply`] for each datagram.
pub fn serve_udp(backend: &Namespace, address: &str) {
    let socket = backend.run(|| UdpSocket::bind(address).unwrap());
    let destination_address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((_, source_address)) = socket.recv_from(&mut buffer) {
            let _ = socket
                .send_to(Reply { source_address, destination_address }.to_line().as_bytes(), source_address);
        }
    });
}

/// A TCP connection to a backend of [`serve_tcp`]. The backend's reply has arrived.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
    pub reply: Reply,
}

impl Connection {
    /// Returns the client's address.
    pub fn local_addr(&self) -> SocketAddr {
        self.stream.get_ref().local_addr().unwrap()
    }

    /// Sets the timeout of reads.
    pub fn set_reply_timeout(&self, timeout: Duration) {
        self.stream.get_ref().set_read_timeout(Some(timeout)).unwrap();
    }

    /// Sends a line and waits until the line comes back.
    pub fn check_echo(&mut self) -> io::Result<()> {
        self.stream.get_mut().write_all(ECHO_LINE.as_bytes())?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        if line == ECHO_LINE { Ok(()) } else { Err(io::Error::other(format!("got {line:?}"))) }
    }
}

/// Connects from the client's address `source`, and waits for the backend's reply.
pub fn connect_tcp(
    client: &Namespace,
    source: &str,
    destination: &str,
    timeout: Duration,
) -> io::Result<Connection> {
    let mut stream = BufReader::new(open_tcp_stream(client, source, destination, timeout)?);
    let mut line = String::new();
    stream.read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    Ok(Connection { stream, reply: Reply::parse(&line) })
}

/// Connects from the client's address `source`.
pub fn open_tcp_stream(
    client: &Namespace,
    source: &str,
    destination: &str,
    timeout: Duration,
) -> io::Result<TcpStream> {
    let (source, destination) = (source.parse::<IpAddr>().unwrap(), destination.parse().unwrap());
    client.run(|| netns_testkit::tcp::connect(Some((source, 0).into()), destination, timeout))
}

/// A UDP client with its own port. All datagrams of the client belong to one flow.
#[derive(Debug)]
pub struct UdpClient(UdpSocket);

impl UdpClient {
    /// Creates a client that sends from the address `source` and a free port.
    pub fn new(client: &Namespace, source: &str, destination: &str) -> Self {
        Self::bind(client, &with_port(source, 0), destination)
    }

    /// Creates a client with the address and port `source`.
    pub fn bind(client: &Namespace, source: &str, destination: &str) -> Self {
        Self(client.run(|| {
            let socket = UdpSocket::bind(source).unwrap();
            socket.connect(destination).unwrap();
            socket
        }))
    }

    /// Sends one datagram.
    pub fn send(&self) {
        self.0.send(b"?").unwrap();
    }

    /// Sends one datagram and waits for the backend's reply.
    pub fn request(&self, timeout: Duration) -> io::Result<Reply> {
        self.0.set_read_timeout(Some(timeout))?;
        self.0.send(b"?")?;
        let mut buffer = [0; 2048];
        let length = self.0.recv(&mut buffer)?;
        Ok(Reply::parse(std::str::from_utf8(&buffer[..length]).unwrap()))
    }
}
