//! The requests that one client sends. The functions do I/O in the network namespace of the calling thread.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use netns_testkit::tcp::connect;

use crate::protocol::{Operation, REPLY_LENGTH, parse_reply};

/// Sends a request on an open connection, and returns the client's address as the backend sees it.
pub(crate) fn request(stream: &mut TcpStream, operation: Operation) -> io::Result<IpAddr> {
    stream.write_all(&operation.encode_request())?;
    let mut reply = [0; REPLY_LENGTH];
    stream.read_exact(&mut reply)?;
    parse_reply(&reply).ok_or_else(|| ErrorKind::InvalidData.into())
}

/// Opens a connection, sends one request, reads the reply, and waits until the backend closes the connection.
pub(crate) fn request_once(remote_address: SocketAddr, timeout: Duration) -> io::Result<IpAddr> {
    request_once_from(None, remote_address, timeout)
}

/// Sends a request like [`request_once`]. If `port` is not `None`, the connection uses this source port.
pub(crate) fn request_once_from(
    port: Option<u16>,
    remote_address: SocketAddr,
    timeout: Duration,
) -> io::Result<IpAddr> {
    let local_address = port.map(|port| (Ipv4Addr::UNSPECIFIED, port).into());
    let mut stream = connect(local_address, remote_address, timeout)?;
    let client = request(&mut stream, Operation::ReplyAndClose)?;
    match stream.read(&mut [0])? {
        0 => Ok(client),
        _ => Err(ErrorKind::InvalidData.into()),
    }
}
