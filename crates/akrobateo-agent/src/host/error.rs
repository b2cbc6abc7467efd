//! The reasons why the network of the node cannot be read. Pure.

use std::io;
use std::net::IpAddr;

use netfilter::netlink::NetlinkError;

/// The reason why the network of the node cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The node has no address.
    #[error("the node has no address; expected at least one address in the Node's status.addresses")]
    NoNodeAddress,
    /// No interface has an address of the node.
    #[error(
        "no network interface of this node has any of the node's addresses ({}); expected an interface with at least \
         one of these addresses; check the kubelet's flag --node-ip, and that the agent's pod has hostNetwork: true",
        join(.0)
    )]
    NoInterface(Vec<IpAddr>),
    /// The interfaces cannot be read.
    #[error("cannot read the network interfaces of this node: {0}")]
    ReadFailed(NetlinkError),
    /// Changes cannot be watched.
    #[error("cannot watch the network interfaces of this node: {0}")]
    WatchFailed(NetlinkError),
    /// A file of conntrack under `/proc/sys` cannot be read.
    #[error("cannot read {path}: {error}; check that the kernel module nf_conntrack is loaded on the node")]
    ConntrackUnreadable {
        /// The path of the file.
        path: &'static str,
        /// The reason.
        error: io::Error,
    },
}

fn join(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
