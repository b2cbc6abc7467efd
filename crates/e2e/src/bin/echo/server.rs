//! The server: answers on TCP and UDP, over IPv4 and IPv6. Does I/O.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use akrobateo_core::Protocol;
use e2e::Answer;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{LocalSet, spawn_local, yield_now};

const MAX_DATAGRAM_LENGTH: usize = 65_536;

/// The names that identify this server in its answers.
struct ServerNames {
    host: String,
    node: String,
}

impl ServerNames {
    fn read_from_environment() -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "-".to_owned());
        Self {
            host: host.trim().to_owned(),
            node: std::env::var("NODE_NAME").unwrap_or_else(|_| "-".to_owned()),
        }
    }

    fn format_answer(&self, protocol: Protocol, port: u16, client: SocketAddr) -> String {
        // A dual-stack socket reports an IPv4 client as ::ffff:192.0.2.1.
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        let (host, node) = (self.host.clone(), self.node.clone());
        format!("{}\n", Answer { host, node, protocol, port, client_address: client })
    }
}

/// Serves TCP and UDP on all `ports` of every address until SIGTERM.
pub(crate) async fn serve(ports: impl Iterator<Item = u16>) -> io::Result<()> {
    // Listens on IPv6 and IPv4, or only on IPv4 if the machine has no IPv6.
    let addresses = |port| vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()];
    serve_on_addresses(ports.map(addresses)).await
}

/// Serves TCP and UDP until SIGTERM. Each item of `addresses_by_port` has the candidate addresses of one port.
pub(crate) async fn serve_on_addresses(
    addresses_by_port: impl Iterator<Item = Vec<SocketAddr>>,
) -> io::Result<()> {
    let tasks = LocalSet::new();
    let names = Rc::new(ServerNames::read_from_environment());
    for candidates in addresses_by_port {
        let (tcp, udp) = bind_first_available(&candidates).await?;
        let port = tcp.local_addr()?.port();
        tasks.spawn_local(serve_tcp(tcp, port, names.clone()));
        tasks.spawn_local(serve_udp(udp, port, names.clone()));
    }
    let mut terminate_signal = signal(SignalKind::terminate())?;
    tasks.run_until(terminate_signal.recv()).await;
    Ok(())
}

/// Binds a TCP socket and a UDP socket to the first candidate address that the machine has.
async fn bind_first_available(candidates: &[SocketAddr]) -> io::Result<(TcpListener, UdpSocket)> {
    let bind_error = |error| io::Error::other(format!("cannot serve on {candidates:?}: {error}"));
    let tcp = TcpListener::bind(candidates).await.map_err(bind_error)?;
    Ok((tcp, UdpSocket::bind(candidates).await.map_err(bind_error)?))
}

async fn serve_tcp(listener: TcpListener, port: u16, names: Rc<ServerNames>) {
    loop {
        // The error concerns only one connection: the client closed this connection before the server accepted it.
        let Ok((stream, client)) = listener.accept().await else { continue };
        let answer = names.format_answer(Protocol::Tcp, port, client);
        // An error ends only this connection, so the server ignores the error.
        spawn_local(async move { drop(serve_connection(&stream, &answer).await) });
    }
}

/// Sends the answer at once, and then returns everything that the client sends.
async fn serve_connection(stream: &TcpStream, answer: &str) -> io::Result<()> {
    send_all(stream, answer.as_bytes()).await?;
    let mut buffer = [0; 4096];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => send_all(stream, buffer.get(..length).unwrap_or_default()).await?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
            Err(error) => return Err(error),
        }
    }
}

async fn send_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Answers each datagram. The answer is at least as long as the datagram.
async fn serve_udp(socket: UdpSocket, port: u16, names: Rc<ServerNames>) {
    let mut buffer = vec![0; MAX_DATAGRAM_LENGTH];
    loop {
        match socket.recv_from(&mut buffer).await {
            // Send errors are ignored, because UDP may lose datagrams anyway.
            Ok((length, client)) => {
                let answer = names.format_answer(Protocol::Udp, port, client);
                drop(socket.send_to(format!("{answer:length$}").as_bytes(), client).await);
            }
            // The kernel reports here that an earlier answer was refused (ICMP port unreachable).
            Err(_) => yield_now().await,
        }
    }
}
