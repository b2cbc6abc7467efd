//! A frontend: the address family, protocol and port to which clients connect. Pure.

use std::fmt;
use std::num::NonZeroU16;

use crate::family::Family;
use crate::host_port::HostPort;
use crate::protocol::Protocol;

/// The address family, protocol and port to which clients connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// The address family of the clients.
    pub family: Family,
    /// The layer-4 protocol.
    pub protocol: Protocol,
    /// The port to which clients connect.
    pub port: NonZeroU16,
}

impl Frontend {
    /// Returns the port without the family.
    #[must_use]
    pub const fn host_port(self) -> HostPort {
        HostPort { protocol: self.protocol, port: self.port.get() }
    }
}

impl fmt::Display for Frontend {
    /// Writes the frontend, for example `tcp/80 over IPv4`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, protocol, port } = self;
        write!(f, "{protocol}/{port} over {family}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frontend_displays_protocol_port_and_family() {
        let port = NonZeroU16::new(53).unwrap();
        let frontend = Frontend { family: Family::V6, protocol: Protocol::Udp, port };
        assert_eq!(frontend.to_string(), "udp/53 over IPv6");
    }
}
