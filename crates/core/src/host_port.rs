//! A port of a node. Pure.

use std::fmt;

use crate::protocol::Protocol;

/// A port of a node: the hostPort of a pod or the nodePort of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// The protocol. A TCP port and a UDP port with the same number are two ports.
    pub protocol: Protocol,
    /// The port number.
    pub port: u16,
}

impl fmt::Display for HostPort {
    /// Writes the port as Kubernetes' tools do: `80/TCP`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol.api_name())
    }
}
