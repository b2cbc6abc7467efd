//! One client's connections. I/O only, in the calling thread's network namespace.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_reuseaddr, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

use crate::protocol::{ANSWER, Order, seen};

/// Connects; waits no longer than `patience`, now and when reading and writing.
pub(crate) fn dial(to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    dial_from(0, to, patience)
}

/// Connects from a port of one's own choice, or from any if that is 0.
fn dial_from(port: u16, to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // It holds for connecting as well, without the calls that std's connect_timeout makes.
    set_socket_timeout(&socket, Timeout::Send, Some(patience))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(patience))?;
    if port != 0 {
        set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
    }
    connect(&socket, &to).map_err(|error| match error {
        Errno::INPROGRESS | Errno::AGAIN => ErrorKind::TimedOut.into(),
        other => io::Error::from(other),
    })?;
    Ok(socket.into())
}

/// Asks on an open connection; gives the client's address as the backend sees it.
pub(crate) fn ask(stream: &mut TcpStream, order: Order) -> io::Result<IpAddr> {
    stream.write_all(&order.request())?;
    let mut answer = [0; ANSWER];
    stream.read_exact(&mut answer)?;
    seen(&answer).ok_or_else(|| ErrorKind::InvalidData.into())
}

/// A whole connection: one request, its answer, and the backend's end of it.
pub(crate) fn once(to: SocketAddr, patience: Duration) -> io::Result<IpAddr> {
    once_from(0, to, patience)
}

/// A whole connection from a port of one's own choice.
pub(crate) fn once_from(port: u16, to: SocketAddr, patience: Duration) -> io::Result<IpAddr> {
    let mut stream = dial_from(port, to, patience)?;
    let seen = ask(&mut stream, Order::Last)?;
    match stream.read(&mut [0])? {
        0 => Ok(seen),
        _ => Err(ErrorKind::InvalidData.into()),
    }
}
