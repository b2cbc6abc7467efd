//! Clients and backends: who is asked, who answers, and from which address.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};

use super::Namespace;
use super::network::with_port;

/// How long a client waits for what should come.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long a client waits for what should not come.
pub const IMPATIENCE: Duration = Duration::from_millis(400);

/// What a backend says of a connection or a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Where it came from, as the backend sees it.
    pub peer: SocketAddr,
    /// Where it arrived.
    pub local: SocketAddr,
}

impl Answer {
    fn line(peer: SocketAddr, local: SocketAddr) -> String {
        format!("{peer} {local}\n")
    }

    fn parse(line: &str) -> Self {
        let (peer, local) = line.trim_end().split_once(' ').unwrap_or_else(|| panic!("answer {line:?}"));
        Self { peer: peer.parse().unwrap(), local: local.parse().unwrap() }
    }
}

/// Serves TCP at `address`: says who is there, then returns whatever it gets.
pub fn serve_tcp(backend: &Namespace, address: &str) {
    let listener = backend.run(|| TcpListener::bind(address).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || echo(stream));
        }
    });
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(Answer::line(stream.peer_addr()?, stream.local_addr()?).as_bytes())?;
    let mut reader = stream.try_clone()?;
    io::copy(&mut reader, &mut stream)?;
    Ok(())
}

/// Serves UDP at `address`: answers each datagram by who is there.
pub fn serve_udp(backend: &Namespace, address: &str) {
    let socket = backend.run(|| UdpSocket::bind(address).unwrap());
    let local = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(Answer::line(peer, local).as_bytes(), peer);
        }
    });
}

/// A TCP connection to a backend, which has said who is there.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
    pub answer: Answer,
}

impl Connection {
    /// The client's end.
    pub fn local(&self) -> SocketAddr {
        self.stream.get_ref().local_addr().unwrap()
    }

    /// Changes how long it waits for what comes back.
    pub fn set_patience(&self, patience: Duration) {
        self.stream.get_ref().set_read_timeout(Some(patience)).unwrap();
    }

    /// Sends some bytes and waits until they come back.
    pub fn echoes(&mut self) -> io::Result<()> {
        self.stream.get_mut().write_all(b"are you there?\n")?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        if line == "are you there?\n" { Ok(()) } else { Err(io::Error::other(format!("got {line:?}"))) }
    }
}

/// Connects from the address `from` of `client`, and waits until the backend says who is there.
pub fn tcp(client: &Namespace, from: &str, to: &str, patience: Duration) -> io::Result<Connection> {
    let mut stream = BufReader::new(tcp_stream(client, from, to, patience)?);
    let mut line = String::new();
    stream.read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    Ok(Connection { stream, answer: Answer::parse(&line) })
}

/// Connects from the address `from` of `client`.
pub fn tcp_stream(client: &Namespace, from: &str, to: &str, patience: Duration) -> io::Result<TcpStream> {
    let (from, to) = (from.parse::<IpAddr>().unwrap(), to.parse::<SocketAddr>().unwrap());
    let stream = client.run(|| -> io::Result<TcpStream> {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket(family, SocketType::STREAM, None)?;
        // Limits connect(2) too.
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(patience))?;
        bind(&socket, &SocketAddr::new(from, 0))?;
        connect(&socket, &to).map_err(|errno| match errno {
            Errno::INPROGRESS => io::ErrorKind::TimedOut.into(),
            _ => io::Error::from(errno),
        })?;
        Ok(socket.into())
    })?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    Ok(stream)
}

/// A UDP client with a port of its own, so that all that it sends is one flow.
#[derive(Debug)]
pub struct Datagrams(UdpSocket);

impl Datagrams {
    pub fn new(client: &Namespace, from: &str, to: &str) -> Self {
        Self::bound(client, &with_port(from, 0), to)
    }

    /// From a port of the caller's choice.
    pub fn bound(client: &Namespace, from: &str, to: &str) -> Self {
        Self(client.run(|| {
            let socket = UdpSocket::bind(from).unwrap();
            socket.connect(to).unwrap();
            socket
        }))
    }

    /// Sends one datagram.
    pub fn send(&self) {
        self.0.send(b"?").unwrap();
    }

    /// Sends one datagram and waits for the answer to it.
    pub fn ask(&self, patience: Duration) -> io::Result<Answer> {
        self.0.set_read_timeout(Some(patience))?;
        self.0.send(b"?")?;
        let mut buffer = [0; 2048];
        let len = self.0.recv(&mut buffer)?;
        Ok(Answer::parse(std::str::from_utf8(&buffer[..len]).unwrap()))
    }
}

/// The status of an HTTP answer, in this thread's namespace; `None` if nobody answers.
pub fn http_status(ip: &str, port: u16, path: &str, patience: Duration) -> Option<u16> {
    http_get(ip, port, path, patience)?.split(' ').nth(1)?.parse().ok()
}

/// An HTTP answer with its header, in this thread's namespace; `None` if nobody answers.
pub fn http_get(ip: &str, port: u16, path: &str, patience: Duration) -> Option<String> {
    let mut stream = TcpStream::connect((ip.parse::<IpAddr>().unwrap(), port)).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: probe\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
