//! Asks echo servers. Does I/O.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use akrobateo_core::Protocol;
use e2e::{Answer, Reply, Target};
use futures::future::join_all;
use tokio::net::UdpSocket;

/// Longer than any answer.
const MAX_ANSWER: usize = 512;
const MAX_DATAGRAM: usize = 65_536;
/// Between two datagrams; short, so that some come at every moment of a proxy's start.
const INSISTENCE: Duration = Duration::from_millis(20);

/// Asks once; one datagram or one connection, and no second try.
pub(crate) async fn ask(target: Target, timeout: Duration) -> Result<Answer, String> {
    let address = SocketAddr::new(target.host, target.port);
    let answer = async {
        match target.protocol {
            Protocol::Udp => ask_udp(address).await,
            _ => ask_tcp(address).await,
        }
    };
    let answer = tokio::time::timeout(timeout, answer).await;
    let line =
        answer.map_err(|_| format!("no answer within {timeout:?}"))?.map_err(|error| error.to_string())?;
    line.parse().map_err(|error: e2e::ParseAnswerError| error.to_string())
}

/// Asks all at the same time, and prints a [`Reply`] for each, in order. Whether all have answered.
pub(crate) async fn batch(targets: &[Target], timeout: Duration) -> bool {
    let replies = join_all(targets.iter().map(|&target| async move {
        Reply { target, from: own_address(target).await.ok(), outcome: ask(target, timeout).await }
    }));
    let replies = replies.await;
    for reply in &replies {
        println!("{reply}");
    }
    replies.iter().all(|reply| reply.outcome.is_ok())
}

/// Sends the lines of the standard input over each of so many connections, and prints what returns over all of them,
/// beginning with a server's answer.
pub(crate) fn session(server: SocketAddr, count: usize, timeout: Duration) -> io::Result<()> {
    let mut connections = Vec::with_capacity(count);
    for _ in 0..count {
        let stream = TcpStream::connect_timeout(&server, timeout)?;
        connections.push(BufReader::new(stream));
    }
    let mut answer = String::new();
    for connection in &mut connections {
        answer = next_line(connection)?;
    }
    print_now(&answer)?;
    for line in io::stdin().lines() {
        let line = format!("{}\n", line?);
        for connection in &mut connections {
            connection.get_mut().write_all(line.as_bytes())?;
        }
        for connection in &mut connections {
            let returned = next_line(connection)?;
            if returned != line {
                return Err(io::Error::other(format!("{returned:?} came back in place of {line:?}")));
            }
        }
        print_now(&line)?;
    }
    Ok(())
}

fn next_line(connection: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if connection.read_line(&mut line)? == 0 {
        return Err(io::Error::other("the server has closed the connection"));
    }
    Ok(line)
}

fn print_now(line: &str) -> io::Result<()> {
    print!("{line}");
    io::stdout().flush()
}

/// Sends datagrams of this length from one socket, so of one flow, until one is answered by as many bytes.
pub(crate) async fn insist(server: SocketAddr, length: usize, timeout: Duration) -> io::Result<String> {
    let socket = udp_to(server).await?;
    let (request, mut answer) = (vec![b'?'; length], vec![0; MAX_DATAGRAM]);
    let begin = Instant::now();
    let mut last = None;
    while begin.elapsed() < timeout {
        // Refused, while nobody is there to answer: no reason to give up.
        last = socket.send(&request).await.err().or(last);
        match tokio::time::timeout(INSISTENCE, socket.recv(&mut answer)).await {
            Ok(Ok(received)) if received >= length => {
                let line = answer.get(..received).unwrap_or_default();
                return Ok(String::from_utf8_lossy(line).trim_end().to_owned());
            }
            Ok(Ok(received)) => last = Some(io::Error::other(format!("answered by {received} bytes"))),
            Ok(Err(error)) => last = Some(error),
            Err(_) => (),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::other(format!("no answer within {timeout:?}"))))
}

/// Begins as many flows of datagrams as one address can.
pub(crate) fn flood(server: SocketAddr) -> io::Result<()> {
    let mut sent = 0_u32;
    for port in 1024..=u16::MAX {
        // Somebody may have this port, or refuse what came before.
        let Ok(socket) = std::net::UdpSocket::bind((any(server), port)) else { continue };
        sent += u32::from(socket.send_to(b"one of many\n", server).is_ok());
    }
    println!("{sent} sent");
    if sent == 0 { Err(io::Error::other("not one datagram could be sent")) } else { Ok(()) }
}

async fn ask_tcp(server: SocketAddr) -> io::Result<String> {
    let stream = tokio::net::TcpStream::connect(server).await?;
    let (mut answer, mut buffer) = (Vec::new(), [0; MAX_ANSWER]);
    while !answer.ends_with(b"\n") && answer.len() < MAX_ANSWER {
        stream.readable().await?;
        match stream.try_read(&mut buffer) {
            Ok(0) => return Err(io::Error::other("the connection was closed before an answer came")),
            Ok(length) => answer.extend_from_slice(buffer.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

async fn ask_udp(server: SocketAddr) -> io::Result<String> {
    let socket = udp_to(server).await?;
    socket.send(b"who asks?\n").await?;
    let mut answer = [0; MAX_ANSWER];
    let length = socket.recv(&mut answer).await?;
    Ok(String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).into_owned())
}

/// The address that this machine uses towards a target; nothing is sent to find out.
async fn own_address(target: Target) -> io::Result<IpAddr> {
    udp_to(SocketAddr::new(target.host, target.port)).await?.local_addr().map(|address| address.ip())
}

async fn udp_to(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((any(server), 0)).await?;
    socket.connect(server).await?;
    Ok(socket)
}

/// The address of any interface, in a server's family.
fn any(server: SocketAddr) -> IpAddr {
    if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}
