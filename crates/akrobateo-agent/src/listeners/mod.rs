//! The ports on which the processes and the kernel of this node listen. Only [`read`] does I/O.

mod client;
mod message;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use akrobateo_core::{Family, Frontend};

pub use client::ListenersError;

/// The listening sockets of a network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listeners(BTreeSet<(Frontend, IpAddr)>);

impl Listeners {
    /// Returns true if a socket receives the packets that clients send to `frontend` on one of `addresses`.
    ///
    /// A socket that receives these packets is bound to one of `addresses` or to the wildcard address.
    #[must_use]
    pub fn has_listener(&self, frontend: Frontend, addresses: &[IpAddr]) -> bool {
        let wildcard_address: IpAddr = match frontend.family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        addresses.iter().chain([&wildcard_address]).any(|address| self.0.contains(&(frontend, *address)))
    }
}

/// Reads the listening sockets of the calling thread's network namespace: TCP and SCTP listeners, and bound UDP sockets
/// that are not connected. Includes the sockets of the kernel, for example of VXLAN.
///
/// If sockets are closed during the read, the kernel may omit other sockets. The next read contains these sockets.
pub fn read() -> Result<Listeners, ListenersError> {
    client::list_listening_sockets().map(Listeners)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use akrobateo_core::Protocol;

    use super::*;

    fn frontend(family: Family, protocol: Protocol, port: u16) -> Frontend {
        Frontend { family, protocol, port: NonZeroU16::new(port).unwrap() }
    }

    #[test]
    fn listener_occupies_its_port_only_on_its_address() {
        let node_address: IpAddr = "192.0.2.1".parse().unwrap();
        let other_address: IpAddr = "192.0.2.2".parse().unwrap();
        let wildcard: IpAddr = "0.0.0.0".parse().unwrap();
        let tcp_port = |port| frontend(Family::V4, Protocol::Tcp, port);
        let listeners = Listeners(
            [(tcp_port(80), node_address), (tcp_port(81), other_address), (tcp_port(82), wildcard)].into(),
        );
        let has_listener = |frontend| listeners.has_listener(frontend, &[node_address]);
        assert_eq!([80, 81, 82, 83].map(|port| has_listener(tcp_port(port))), [true, false, true, false]);
        assert!(!has_listener(frontend(Family::V4, Protocol::Udp, 82)));
        assert!(!has_listener(frontend(Family::V6, Protocol::Tcp, 82)));
    }
}
