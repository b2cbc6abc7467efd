//! The probe: finds for each peer node and family how packets reach the peer's pods with the client's address.
//!
//! # Frames
//! A probe is a UDP datagram that takes the way of a client's packet. It needs no raw socket. The sender's NAT gives it a
//! source address outside of the cluster ([`foreign_address`]); its destination is an address of a pod of the peer, with
//! port [`PORT`]. It fills the MTU, and has the flag "don't fragment". The peer's NAT delivers it to the peer's agent,
//! if conntrack has recognized the frame's MAC address as that of a peer. The answer takes the way of a pod's reply: it
//! comes from the pod's address, and goes to the foreign address in a frame to the sender's MAC address.
//!
//! - *Direct*: the request takes the cluster's own route to the pod. The answer has the mark [`Marks::direct`], and the
//!   egress hook of the uplink replaces its destination MAC address.
//! - *Tunnel*: both have the mark [`Marks::tunnel`], and go through the tunnel's device.
//!
//! So an answer proves: the network carries a foreign source address to the peer, and a pod's source address back, in
//! frames whose MAC addresses arrive as sent, with the full MTU. Ports that filter by MAC or IP address, gateways that
//! replace MAC addresses, smaller MTUs and filters in one direction prevent the answer. A way counts as usable if the
//! probes of both nodes are answered; each message tells the other node the sender's results.
//!
//! # Rules
//! The probe needs these rules in the node's table (for IPv4; IPv6 alike), in addition to those of the data path:
//! ```text
//! chain nat_pre   # first rule
//!   ct original zone != 0 ip saddr 198.18.107.114 udp dport 8479 dnat ip to NODE
//! chain nat_post  # first rule
//!   meta mark and 0xfff00000 == 0x6b700000 ip saddr NODE udp dport 8479 snat ip to 198.18.107.114
//! chain steer_out # first rule: the probe's answers keep the mark of their socket
//!   meta mark and 0xfff00000 == 0x6b700000 accept
//! ```
//! Firewalls of the nodes must accept UDP port [`PORT`] from other nodes, in addition to the port of the tunnel. The nodes
//! need a route to the foreign address, for example a default route. Otherwise *direct* does not work.
//!
//! # Times
//! A new way counts as working after two answers. A working way is probed every [`PROBE_INTERVAL`]; it counts as lost after
//! three missed answers in a row, which takes at most 3.5 seconds. A lost way must work without a miss for 5 seconds until
//! it is used again, and twice as long after each further loss, up to 5 minutes.
//!
//! [`Marks::direct`]: crate::marks::Marks::direct
//! [`Marks::tunnel`]: crate::marks::Marks::tunnel

mod message;
mod prober;
mod service;
mod sockets;
mod target;
#[cfg(test)]
mod tests;
mod way;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use akrobateo_core::family::Family;

pub use prober::{Prober, Transmission};
pub use service::{Node, ProbeService};
pub use target::{ForwardingMode, MasqueradeReason, Target, TargetId};
pub use way::{ANSWER_TIMEOUT, PROBE_INTERVAL, Way};

/// The UDP port of the probe.
pub const PORT: u16 = message::PORT;

/// Returns the source address of probes. It belongs to the networks for benchmarks, which no network routes (RFC 2544 and
/// RFC 5180).
#[must_use]
pub const fn foreign_address(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(198, 18, 107, 114)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0x6b, 0x72)),
    }
}
