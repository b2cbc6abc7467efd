//! The sockets on which clients arrive. I/O only.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use akrobateo_core::Protocol;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

use socket2::SockRef;

use super::ports::Port;
use akrobateo_core::Family;

/// Connections that wait to be accepted, of each worker and port; the kernel caps it.
const BACKLOG: i32 = 4_096;
/// When a silent peer is asked whether it still exists, and how often until it does not.
const KEEP_ALIVE_AFTER: Duration = Duration::from_mins(1);
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMES: u32 = 4;

/// Opens a socket for one worker; those of the others share the port.
pub(super) fn bind_listener(port: &Port) -> Result<OwnedFd, Errno> {
    let (family, any): (_, IpAddr) = match port.family {
        Family::V4 => (AddressFamily::INET, Ipv4Addr::UNSPECIFIED.into()),
        Family::V6 => (AddressFamily::INET6, Ipv6Addr::UNSPECIFIED.into()),
    };
    let tcp = port.protocol == Protocol::Tcp;
    let kind = if tcp { SocketType::STREAM } else { SocketType::DGRAM };
    let socket = socket_with(family, kind, FLAGS, None)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    if port.family == Family::V6 {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if tcp {
        // Also where connections of an earlier process are still being closed.
        sockopt::set_socket_reuseaddr(&socket, true)?;
        // Accepted sockets inherit these.
        sockopt::set_tcp_nodelay(&socket, true)?;
        keep_alive(&socket)?;
    }
    bind(&socket, &SocketAddr::new(any, port.number.get()))?;
    if tcp {
        listen(&socket, BACKLOG)?;
    }
    Ok(socket)
}

/// Has the kernel refuse who begins to connect, and finish what has been begun: closing the listener right away would
/// reset clients who have been told that they are connected.
pub(super) fn refuse_new_syns(listener: &OwnedFd) -> io::Result<()> {
    // No client's first segment comes from there; those who sent theirs are known already. Allowed without any
    // capability from kernel 5.7 on.
    SockRef::from(listener).bind_device(Some(b"lo"))
}

/// Finds out when the peer of a silent connection is gone.
pub(super) fn keep_alive(socket: &OwnedFd) -> Result<(), Errno> {
    sockopt::set_tcp_keepidle(socket, KEEP_ALIVE_AFTER)?;
    sockopt::set_tcp_keepintvl(socket, KEEP_ALIVE_EVERY)?;
    sockopt::set_tcp_keepcnt(socket, KEEP_ALIVE_TIMES)?;
    sockopt::set_socket_keepalive(socket, true)
}

pub(super) const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// Of which family a socket must be to reach `address`.
pub(super) const fn family(address: SocketAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}
