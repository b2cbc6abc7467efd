//! Creates and configures the sockets of the userspace path. I/O only.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use akrobateo_core::{Family, Protocol};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, listen, socket_with, sockopt};
use socket2::SockRef;

use super::port::Port;

/// Flags of all sockets.
pub(super) const SOCKET_FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);
/// Maximum number of connections that wait to be accepted, per worker and port. The kernel limits this number to
/// net.core.somaxconn.
const BACKLOG: i32 = 4_096;
/// Silence of a connection before the first keep-alive probe (`TCP_KEEPIDLE`).
const KEEPALIVE_IDLE: Duration = Duration::from_mins(1);
/// Time between two keep-alive probes (`TCP_KEEPINTVL`).
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// Number of unanswered keep-alive probes after which the kernel ends the connection (`TCP_KEEPCNT`).
const KEEPALIVE_PROBES: u32 = 4;

/// A socket that receives the clients of one port.
#[derive(Debug)]
pub(super) struct BoundSocket {
    /// Index into [`super::shared_state::SharedState::ports`].
    pub(super) port_index: usize,
    pub(super) socket: OwnedFd,
}

/// Binds a socket to the port for one worker. The sockets of all workers share the port.
pub(super) fn bind_port(port: &Port) -> Result<OwnedFd, Errno> {
    let (family, unspecified): (_, IpAddr) = match port.family {
        Family::V4 => (AddressFamily::INET, Ipv4Addr::UNSPECIFIED.into()),
        Family::V6 => (AddressFamily::INET6, Ipv6Addr::UNSPECIFIED.into()),
    };
    let is_tcp = port.protocol == Protocol::Tcp;
    let socket_type = if is_tcp { SocketType::STREAM } else { SocketType::DGRAM };
    let socket = socket_with(family, socket_type, SOCKET_FLAGS, None)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    if port.family == Family::V6 {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if is_tcp {
        // Connections of an earlier process may still be in TIME_WAIT.
        sockopt::set_socket_reuseaddr(&socket, true)?;
        // Accepted sockets inherit these options.
        sockopt::set_tcp_nodelay(&socket, true)?;
        enable_keepalive(&socket)?;
    }
    bind(&socket, &SocketAddr::new(unspecified, port.number.get()))?;
    if is_tcp {
        listen(&socket, BACKLOG)?;
    }
    Ok(socket)
}

/// Returns true if the kernel has IPv6.
pub(super) fn has_ipv6() -> bool {
    let socket = socket_with(AddressFamily::INET6, SocketType::STREAM, SOCKET_FLAGS, None);
    socket.err() != Some(Errno::AFNOSUPPORT)
}

/// Starts to connect to a TCP target. The socket becomes writable when the target has answered.
pub(super) fn connect_tcp(target: SocketAddr) -> Result<OwnedFd, Errno> {
    let socket = socket_with(address_family(target), SocketType::STREAM, SOCKET_FLAGS, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    match connect(&socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// Creates a socket that exchanges datagrams only with the UDP target.
pub(super) fn connect_udp(target: SocketAddr) -> Result<OwnedFd, Errno> {
    let socket = socket_with(address_family(target), SocketType::DGRAM, SOCKET_FLAGS, None)?;
    connect(&socket, &target)?;
    Ok(socket)
}

/// Makes the kernel refuse new SYNs and still finish the handshakes that have begun.
///
/// Closing the listener at once would reset each client that has completed its handshake but is not accepted yet.
pub(super) fn refuse_new_syns(listener: &OwnedFd) -> io::Result<()> {
    // Binds the listener to the loopback interface, where the SYNs of clients never arrive. The kernel does not apply
    // the binding to handshakes that have begun. Linux 5.7 and later allow SO_BINDTODEVICE without a capability.
    SockRef::from(listener).bind_device(Some(b"lo"))
}

/// Makes the kernel send keep-alive probes, which detect that the other host is gone.
pub(super) fn enable_keepalive(socket: &OwnedFd) -> Result<(), Errno> {
    sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(socket, KEEPALIVE_PROBES)?;
    sockopt::set_socket_keepalive(socket, true)
}

/// Makes the kernel send a reset to the peer when the socket is closed.
pub(super) fn reset_on_close(socket: &OwnedFd) {
    // If the call fails, the peer receives an ordinary end of the stream instead of a reset.
    let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

const fn address_family(address: SocketAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}
