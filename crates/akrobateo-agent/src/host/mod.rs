//! The network of this node, as the node's kernel reports it. Only [`read`], [`HostWatch`] and [`ConntrackUse::read`]
//! do I/O.

mod client;
mod conntrack_use;
mod error;
mod interface;
mod message;
mod network;
mod watch;

use std::net::IpAddr;

pub use conntrack_use::ConntrackUse;
pub use error::HostError;
pub use interface::LOOPBACK_INDEX;
pub use network::HostNetwork;
pub use watch::HostWatch;

/// Reads the network of the node. The calling thread must be in the node's network namespace.
///
/// `node_addresses` are the addresses to which clients send packets, in the order of the Node's status.
pub fn read(node_addresses: &[IpAddr]) -> Result<HostNetwork, HostError> {
    HostNetwork::new(&client::list_interfaces()?, node_addresses)
}
