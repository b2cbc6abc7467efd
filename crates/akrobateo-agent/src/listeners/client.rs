//! Lists the listening sockets over netlink. Does I/O.

use std::collections::BTreeSet;
use std::net::IpAddr;

use akrobateo_core::{Family, Frontend, Protocol};
use netfilter::netlink::{self, NetlinkError, Socket};
use rustix::io::Errno;

use super::message;

/// The reason why the listening sockets cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ListenersError {
    /// The kernel cannot list the sockets of a protocol.
    #[error(
        "the kernel cannot list the {family} sockets of {protocol}; expected a kernel with socket diagnostics \
         (CONFIG_INET_DIAG); load the kernel module {protocol}_diag on the node"
    )]
    Unsupported {
        /// The protocol.
        protocol: Protocol,
        /// The family.
        family: Family,
    },
    /// The request failed.
    #[error("cannot list the listening sockets of this node: {0}")]
    Netlink(#[from] NetlinkError),
}

/// Lists the listening sockets of the calling thread's network namespace, with the address of each socket.
pub(super) fn list_listening_sockets() -> Result<BTreeSet<(Frontend, IpAddr)>, ListenersError> {
    let socket = Socket::open(netlink::Protocol::SocketDiagnostics)?;
    let mut listeners = BTreeSet::new();
    for protocol in Protocol::ALL {
        for family in Family::ALL {
            let request = message::build_listener_request(protocol, family);
            match socket.dump(&request, |answer| message::parse_listeners(answer, protocol)) {
                Ok(answers) => listeners.extend(answers.into_iter().flatten()),
                // The kernel's SCTP module is not loaded, and this request does not load the module. Without the
                // module, no SCTP sockets exist.
                Err(NetlinkError::Rejected { errno: Errno::NOENT, .. }) if protocol == Protocol::Sctp => {}
                Err(NetlinkError::Rejected { errno: Errno::NOENT, .. }) => {
                    return Err(ListenersError::Unsupported { protocol, family });
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(listeners)
}
