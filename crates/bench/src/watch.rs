//! Notices when rules of nftables come into force. I/O only.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use crate::failure::{Failure, Tried};
use crate::namespace::Namespace;

/// `NFNLGRP_NFTABLES`, as a bit.
const GROUP: u32 = 1 << (7 - 1);

/// Hears what changes in a namespace from its making on.
#[derive(Debug)]
pub(crate) struct Watch(OwnedFd);

impl Watch {
    /// Begins to listen.
    pub(crate) fn new(namespace: &Namespace) -> Result<Self, Failure> {
        namespace.run(|| {
            let flags = SocketFlags::CLOEXEC;
            let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(NETFILTER));
            let socket = socket.tried("a netlink socket")?;
            bind(&socket, &SocketAddrNetlink::new(0, GROUP)).tried("a netlink socket")?;
            Ok(Self(socket))
        })
    }

    /// Waits until a transaction is complete: the kernel tells of it only then.
    pub(crate) fn changed(&self, patience: Duration) -> Result<(), Failure> {
        set_socket_timeout(&self.0, Timeout::Recv, Some(patience)).tried("a netlink socket")?;
        match recv(&self.0, &mut [0; 64], RecvFlags::empty()) {
            // More was told than fits into the socket's buffer.
            Ok(_) | Err(Errno::NOBUFS) => Ok(()),
            Err(Errno::AGAIN) => Err(Failure::Late("rules come into force".to_owned(), patience)),
            Err(error) => Err(error).tried("a netlink socket"),
        }
    }
}
