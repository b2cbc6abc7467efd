//! Asks echo servers. Does I/O.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use contract::Protocol;
use e2e::{Answer, Reply, Target};
use futures::future::join_all;
use tokio::net::{TcpStream, UdpSocket};

/// Longer than any answer.
const MAX_ANSWER: usize = 512;

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

/// Sends the lines of the standard input, and prints what returns, beginning with the server's answer.
pub(crate) fn session(server: SocketAddr, timeout: Duration) -> io::Result<()> {
    let stream = std::net::TcpStream::connect_timeout(&server, timeout)?;
    let (mut lines, mut sender) = (BufReader::new(stream.try_clone()?), stream);
    print_line(&mut lines)?;
    for line in io::stdin().lines() {
        sender.write_all(format!("{}\n", line?).as_bytes())?;
        print_line(&mut lines)?;
    }
    Ok(())
}

fn print_line(lines: &mut impl BufRead) -> io::Result<()> {
    let mut line = String::new();
    if lines.read_line(&mut line)? == 0 {
        return Err(io::Error::other("the server has closed the connection"));
    }
    print!("{line}");
    io::stdout().flush()
}

async fn ask_tcp(server: SocketAddr) -> io::Result<String> {
    let stream = TcpStream::connect(server).await?;
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
    let any = match server {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    Ok(socket)
}
