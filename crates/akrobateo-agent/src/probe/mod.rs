//! The probe: finds for each peer and family the path on which packets reach the peer's pods with the client's address.
//!
//! # Frames
//! A probe is a UDP datagram that takes the path of a client's packet. No raw socket is necessary. The sender's NAT
//! gives the probe a source address outside of the cluster ([`foreign_address`]). The destination is an address in the
//! range of the peer's pods, with port [`PROBE_PORT`]. The datagram fills the MTU, and has the flag "don't fragment".
//! If the peer's rules recognize the sender's MAC address, the peer's NAT delivers the probe to the peer's agent. The
//! answer takes the path of a pod's reply: from the pod's address to the foreign address, in a frame to the sender's
//! MAC address.
//!
//! - *Direct*: the request takes the cluster's own route to the pod. The answer has the mark [`Marks::direct_mark`],
//!   and the egress hook of the uplink replaces the destination MAC address of the answer.
//! - *Tunnel*: the request and the answer have the mark [`Marks::tunnel_mark`], and go through the tunnel's device.
//!
//! An answer proves that the network carries packets with a foreign source address to the peer, and packets with a
//! pod's source address back. An answer also proves that MAC addresses arrive unchanged, and that packets with the full
//! MTU arrive. Each of these properties of the network prevents the answer: filters by MAC or IP address, gateways that
//! replace MAC addresses, a smaller MTU, or a filter in one direction. A path is usable if the probes of both nodes are
//! answered. Each message contains the results of its sender.
//!
//! # Rules
//! The probe needs these additional rules in the node's table (here for IPv4):
//! ```text
//! chain nat_pre   # first rule
//!   ct original zone != 0 ip saddr 198.18.107.114 udp dport 8479 dnat ip to NODE
//! chain nat_post  # first rule
//!   meta mark and 0xff000000 == 0x6b000000 ip saddr NODE udp dport 8479 snat ip to 198.18.107.114
//! chain steer_out # first rule: the probe's answers keep the mark of their socket
//!   meta mark and 0xff000000 == 0x6b000000 accept
//! ```
//! Firewalls of the nodes must accept UDP port [`PROBE_PORT`] from other nodes, in addition to the port of the tunnel.
//! The nodes need a route to the foreign address, for example a default route. Without this route, the path *direct*
//! does not work.
//!
//! # Times
//! A new path works after two answers. A working path is probed every [`PROBE_INTERVAL`]. The path is lost after three
//! missing answers in a row, which takes at most 3.5 seconds. A lost path is used again when all answers have arrived
//! for 5 seconds. Each later loss doubles this time, up to 5 minutes.
//!
//! [`Marks::direct_mark`]: crate::marks::Marks::direct_mark
//! [`Marks::tunnel_mark`]: crate::marks::Marks::tunnel_mark

mod message;
mod peer_path;
mod prober;
mod service;
mod sockets;
mod target;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use akrobateo_core::family::Family;

pub use peer_path::{ANSWER_TIMEOUT, PROBE_INTERVAL, PeerPath};
pub use prober::{Prober, Transmission};
pub use service::{ProbeNode, ProbeService};
pub use target::{ForwardingMode, MasqueradeReason, Target, TargetId};

/// The UDP port of the probe.
pub const PROBE_PORT: u16 = message::PROBE_PORT;

/// Returns the source address of probes. The address is from the ranges for benchmarks, which networks do not route
/// (RFC 2544 and RFC 5180).
#[must_use]
pub const fn foreign_address(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(198, 18, 107, 114)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0x6b, 0x72)),
    }
}
