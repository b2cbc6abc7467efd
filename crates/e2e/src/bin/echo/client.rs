//! The client: sends requests to echo servers. Does I/O.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use akrobateo_core::Protocol;
use e2e::{Answer, Reply, Target};
use futures::future::join_all;
use tokio::net::UdpSocket;

/// The maximum number of bytes that the client reads of an answer. Every answer of the echo server is shorter.
const MAX_ANSWER_LENGTH: usize = 512;
const MAX_DATAGRAM_LENGTH: usize = 65_536;
/// The time between two datagrams. This time is short, so datagrams arrive in every phase of a proxy's start.
const SEND_INTERVAL: Duration = Duration::from_millis(20);

/// Sends one request with one datagram or one connection, and does not retry.
pub(crate) async fn send_request(target: Target, timeout: Duration) -> Result<Answer, String> {
    let address = SocketAddr::new(target.host, target.port);
    let is_connected = Cell::new(false);
    let answer = async {
        match target.protocol {
            Protocol::Udp => send_udp_request(address).await,
            _ => send_tcp_request(address, &is_connected).await,
        }
    };
    let answer = tokio::time::timeout(timeout, answer).await;
    let timeout_message = |_| {
        // The kernel of the server accepts connections even if the server gets no processor time.
        let state = if is_connected.get() { ", but the connection is established" } else { "" };
        format!("no answer within {timeout:?}{state}")
    };
    let line = answer.map_err(timeout_message)?.map_err(|error| error.to_string())?;
    line.parse().map_err(|error: e2e::ParseAnswerError| error.to_string())
}

/// Sends a request to each target, and prints each [`Reply`] in order. Sends all requests at the same time. Returns
/// true if all targets answered.
pub(crate) async fn send_batch(targets: &[Target], timeout: Duration) -> bool {
    let replies = join_all(targets.iter().map(|&target| async move {
        Reply {
            target,
            client_address: find_local_address(target).await.ok(),
            result: send_request(target, timeout).await,
        }
    }));
    let replies = replies.await;
    for reply in &replies {
        println!("{reply}");
    }
    replies.iter().all(|reply| reply.result.is_ok())
}

/// Opens `connection_count` connections, waits until the server has answered on every connection, and prints one
/// answer. After this answer, sends each line of the standard input over every connection, and prints the line when
/// every connection has returned it.
pub(crate) fn run_session(server: SocketAddr, connection_count: usize, timeout: Duration) -> io::Result<()> {
    let mut connections = Vec::with_capacity(connection_count);
    for _ in 0..connection_count {
        let stream = TcpStream::connect_timeout(&server, timeout)?;
        connections.push(BufReader::new(stream));
    }
    let mut answer = String::new();
    for connection in &mut connections {
        answer = read_next_line(connection)?;
    }
    print_and_flush(&answer)?;
    for line in io::stdin().lines() {
        let line = format!("{}\n", line?);
        for connection in &mut connections {
            connection.get_mut().write_all(line.as_bytes())?;
        }
        for connection in &mut connections {
            let returned_line = read_next_line(connection)?;
            if returned_line != line {
                return Err(io::Error::other(format!(
                    "a connection returned {returned_line:?}, expected {line:?}"
                )));
            }
        }
        print_and_flush(&line)?;
    }
    Ok(())
}

fn read_next_line(connection: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if connection.read_line(&mut line)? == 0 {
        return Err(io::Error::other("the server closed the connection"));
    }
    Ok(line)
}

fn print_and_flush(line: &str) -> io::Result<()> {
    print!("{line}");
    io::stdout().flush()
}

/// Sends datagrams of `datagram_length` bytes from one socket until an answer with at least `datagram_length` bytes
/// arrives. All datagrams belong to the same conntrack flow, because they have the same source port.
pub(crate) async fn send_until_answered(
    server: SocketAddr,
    datagram_length: usize,
    timeout: Duration,
) -> io::Result<String> {
    let socket = connect_udp(server).await?;
    let (request, mut answer) = (vec![b'?'; datagram_length], vec![0; MAX_DATAGRAM_LENGTH]);
    let started_at = Instant::now();
    let mut last_error = None;
    while started_at.elapsed() < timeout {
        // Sending fails while the port is closed (ECONNREFUSED); the loop tries again.
        last_error = socket.send(&request).await.err().or(last_error);
        match tokio::time::timeout(SEND_INTERVAL, socket.recv(&mut answer)).await {
            Ok(Ok(received_length)) if received_length >= datagram_length => {
                let line = answer.get(..received_length).unwrap_or_default();
                return Ok(String::from_utf8_lossy(line).trim_end().to_owned());
            }
            Ok(Ok(received_length)) => {
                last_error = Some(io::Error::other(format!(
                    "the answer has {received_length} bytes, expected {datagram_length}"
                )));
            }
            Ok(Err(error)) => last_error = Some(error),
            Err(_) => (),
        }
    }
    Err(last_error.unwrap_or_else(|| io::Error::other(format!("no answer within {timeout:?}"))))
}

/// Sends one datagram from each source port above 1023. Each datagram starts a conntrack flow.
pub(crate) fn flood_udp(server: SocketAddr) -> io::Result<()> {
    let mut sent_count = 0_u32;
    for port in 1024..=u16::MAX {
        // Errors are expected: another socket may have the port, or an earlier datagram was refused.
        let Ok(socket) = std::net::UdpSocket::bind((unspecified_address(server), port)) else { continue };
        sent_count += u32::from(socket.send_to(b"flood\n", server).is_ok());
    }
    println!("sent {sent_count} datagrams");
    if sent_count == 0 { Err(io::Error::other("no datagram could be sent")) } else { Ok(()) }
}

async fn send_tcp_request(server: SocketAddr, is_connected: &Cell<bool>) -> io::Result<String> {
    let stream = tokio::net::TcpStream::connect(server).await?;
    is_connected.set(true);
    let (mut answer, mut buffer) = (Vec::new(), [0; MAX_ANSWER_LENGTH]);
    while !answer.ends_with(b"\n") && answer.len() < MAX_ANSWER_LENGTH {
        stream.readable().await?;
        match stream.try_read(&mut buffer) {
            Ok(0) => return Err(io::Error::other("the server closed the connection without an answer")),
            Ok(length) => answer.extend_from_slice(buffer.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

async fn send_udp_request(server: SocketAddr) -> io::Result<String> {
    let socket = connect_udp(server).await?;
    socket.send(b"request\n").await?;
    let mut answer = [0; MAX_ANSWER_LENGTH];
    let length = socket.recv(&mut answer).await?;
    Ok(String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).into_owned())
}

/// Returns the local address that packets to the target have as their source. The kernel does not send a packet when a
/// UDP socket is connected.
async fn find_local_address(target: Target) -> io::Result<IpAddr> {
    connect_udp(SocketAddr::new(target.host, target.port)).await?.local_addr().map(|address| address.ip())
}

async fn connect_udp(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((unspecified_address(server), 0)).await?;
    socket.connect(server).await?;
    Ok(socket)
}

/// Returns the unspecified address of the server's address family.
fn unspecified_address(server: SocketAddr) -> IpAddr {
    if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}
