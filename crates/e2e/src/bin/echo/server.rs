//! Answers on TCP and UDP, over IPv4 and IPv6. Does I/O.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use akrobateo_core::Protocol;
use e2e::Answer;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{LocalSet, spawn_local, yield_now};

const MAX_DATAGRAM: usize = 65_536;

/// Who this server is.
struct Identity {
    host: String,
    node: String,
}

impl Identity {
    fn of_this_machine() -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "-".to_owned());
        Self {
            host: host.trim().to_owned(),
            node: std::env::var("NODE_NAME").unwrap_or_else(|_| "-".to_owned()),
        }
    }

    fn answer(&self, protocol: Protocol, port: u16, client: SocketAddr) -> String {
        // On a socket for both families an IPv4 client looks like ::ffff:192.0.2.1.
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        let (host, node) = (self.host.clone(), self.node.clone());
        format!("{}\n", Answer { host, node, protocol, port, client })
    }
}

/// Serves on all `ports` until SIGTERM.
pub(crate) async fn serve(ports: impl Iterator<Item = u16>) -> io::Result<()> {
    let tasks = LocalSet::new();
    let identity = Rc::new(Identity::of_this_machine());
    for port in ports {
        let (tcp, udp) = bind(port).await?;
        tasks.spawn_local(serve_tcp(tcp, port, identity.clone()));
        tasks.spawn_local(serve_udp(udp, port, identity.clone()));
    }
    let mut terminate = signal(SignalKind::terminate())?;
    tasks.run_until(terminate.recv()).await;
    Ok(())
}

/// For both families; for IPv4 where the machine has no other.
async fn bind(port: u16) -> io::Result<(TcpListener, UdpSocket)> {
    let any = [(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()];
    let named = |error| io::Error::other(format!("cannot serve on port {port}: {error}"));
    let tcp = TcpListener::bind::<&[SocketAddr]>(&any).await.map_err(named)?;
    Ok((tcp, UdpSocket::bind::<&[SocketAddr]>(&any).await.map_err(named)?))
}

async fn serve_tcp(listener: TcpListener, port: u16, identity: Rc<Identity>) {
    loop {
        // A connection that went away before it was accepted concerns nobody.
        let Ok((stream, client)) = listener.accept().await else { continue };
        let answer = identity.answer(Protocol::Tcp, port, client);
        // So does one that breaks.
        spawn_local(async move { drop(converse(&stream, &answer).await) });
    }
}

/// Answers at once, and then repeats what it hears.
async fn converse(stream: &TcpStream, answer: &str) -> io::Result<()> {
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

/// Answers each datagram, by at least as many bytes as it has.
async fn serve_udp(socket: UdpSocket, port: u16, identity: Rc<Identity>) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        match socket.recv_from(&mut buffer).await {
            // What cannot be sent is lost, as datagrams are.
            Ok((length, client)) => {
                let answer = identity.answer(Protocol::Udp, port, client);
                drop(socket.send_to(format!("{answer:length$}").as_bytes(), client).await);
            }
            // An earlier answer was refused: nothing to do, but to let others have their turn.
            Err(_) => yield_now().await,
        }
    }
}
