//! TCP clients with timeouts. Does I/O, in the network namespace of the calling thread.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_reuseaddr, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

/// Connects to `remote`, from `local` if `local` is given. Port 0 of `local` means any port.
///
/// `timeout` limits the connection attempt, and later each read and each write.
pub fn connect(local: Option<SocketAddr>, remote: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let family = if remote.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // SO_SNDTIMEO also limits connect(2), and needs fewer system calls than TcpStream::connect_timeout.
    set_socket_timeout(&socket, Timeout::Send, Some(timeout))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(timeout))?;
    if let Some(local) = local {
        // An earlier connection in the state TIME_WAIT may still use the chosen port.
        if local.port() != 0 {
            set_socket_reuseaddr(&socket, true)?;
        }
        bind(&socket, &local)?;
    }
    rustix::net::connect(&socket, &remote).map_err(|errno| match errno {
        Errno::INPROGRESS | Errno::AGAIN => ErrorKind::TimedOut.into(),
        errno => io::Error::from(errno),
    })?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::{Namespace, isolated};

    const TIMEOUT: Duration = Duration::from_secs(5);

    #[test]
    fn client_connects_from_the_chosen_port() {
        isolated(|| {
            Namespace::new().run(|| {
                let listener = TcpListener::bind("127.0.0.1:80").unwrap();
                let local = "127.0.0.2:4000".parse().unwrap();
                let stream = connect(Some(local), listener.local_addr().unwrap(), TIMEOUT).unwrap();
                assert_eq!(stream.local_addr().unwrap(), local);
                assert_eq!(listener.accept().unwrap().1, local);
            });
        });
    }

    #[test]
    fn connection_attempt_ends_at_its_timeout() {
        isolated(|| {
            let namespace = Namespace::new();
            namespace.load_nft(
                "table inet drop_all { chain input { type filter hook input priority 0; policy drop; }; }\n",
            );
            let remote = "127.0.0.1:80".parse().unwrap();
            let error = namespace.run(|| connect(None, remote, Duration::from_millis(50)).unwrap_err());
            assert_eq!(error.kind(), ErrorKind::TimedOut);
        });
    }
}
