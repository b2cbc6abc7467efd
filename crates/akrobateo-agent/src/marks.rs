//! The packet marks and conntrack zones of the agent. Pure.
//!
//! A packet's mark has three parts. All marks of the agent share 8 bits, 2 bits are the purpose, and 14 bits are the
//! number of a node. The agent neither sets nor reads the other bits. kube-proxy uses bits 14 and 15, and Calico clears
//! and sets bits from 16 to 20 of forwarded packets. A mark exists only between two hooks of the same node. Packets
//! that leave a node have no mark.

/// The number of a node. All nodes use the same number for this node.
pub type NodeNumber = u16;

/// The highest number of a node.
pub const MAX_NODE_NUMBER: NodeNumber = 0x3fff;
/// The bit with which kube-proxy's rules accept a forwarded packet, even if the policy of the chain FORWARD is DROP. A
/// rule of kube-proxy masquerades packets with this bit, but the agent's rules choose the source address before that
/// rule.
pub const FORWARD_ACCEPTED_BIT: u32 = 0x4000;
/// The bit in the conntrack mark of a flow whose destination the agent has translated.
pub const TRANSLATED_FLOW_BIT: u32 = 0x2000_0000;
/// The bit in the conntrack mark of a masqueraded flow. The flow stays masqueraded even if a path could now keep the
/// client's address.
pub const MASQUERADED_FLOW_BIT: u32 = 0x4000_0000;
/// The bit in the conntrack mark of a flow to a Service with session affinity.
pub const AFFINITY_FLOW_BIT: u32 = 0x1000_0000;
/// The bit in the conntrack mark of a flow that has come through a peer. The entry also has the peer's zone, but the
/// kernel reads the mark of an entry faster than the zone.
pub const PEER_FLOW_BIT: u32 = 0x0800_0000;
/// The mask of two groups of bits: the bits that all marks of the agent share, and the bits for the purpose.
pub const PURPOSE_MASK: u32 = 0xffc0_0000;
/// The mask of the bits that all marks of the agent share.
pub const OWN_MARK_MASK: u32 = 0xff00_0000;
/// The mask of the bits that identify a path and a peer. Other programs may change the other bits.
pub const PEER_MARK_MASK: u32 = PURPOSE_MASK | MAX_NODE_NUMBER as u32;

/// The mask of the bits that all conntrack zones of the agent have in common.
pub const CONNTRACK_ZONE_MASK: u16 = 0xc000;

const CONNTRACK_ZONE_OF_NODE_0: u16 = 0x4000;
const TUNNEL_PURPOSE_BITS: u32 = 0x0040_0000;
const DIRECT_PURPOSE_BITS: u32 = 0x0080_0000;
const PROBE_PURPOSE_BITS: u32 = 0x00c0_0000;

/// The marks of one agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// The bits of [`OWN_MARK_MASK`] that are set in the agent's marks. Each node may have a different value.
    pub own_bits: u32,
}

/// Returns the conntrack zone of flows that come through a node. With node number 0, returns the bits that all zones of
/// the agent have in common. Only the original direction of a flow has this zone.
#[must_use]
pub const fn conntrack_zone(node: NodeNumber) -> u16 {
    CONNTRACK_ZONE_OF_NODE_0 | node
}

/// Returns the node of a conntrack zone; `None` if the zone belongs to another program.
#[must_use]
pub fn node_of_conntrack_zone(zone: u16) -> Option<NodeNumber> {
    zone.checked_sub(CONNTRACK_ZONE_OF_NODE_0).filter(|node| (1..=MAX_NODE_NUMBER).contains(node))
}

impl Default for Marks {
    fn default() -> Self {
        Self::from_highest_byte(0x6b)
    }
}

impl Marks {
    /// Returns the marks with this highest byte. The byte must not be 0, because 0 is the byte of packets without a
    /// mark.
    #[must_use]
    pub const fn from_highest_byte(byte: u8) -> Self {
        Self { own_bits: (byte as u32) << 24 }
    }

    /// Returns the mark of packets that go through the tunnel to a node. With node number 0, returns the bits that the
    /// marks of all nodes have in common.
    #[must_use]
    pub const fn tunnel_mark(self, node: NodeNumber) -> u32 {
        self.own_bits | TUNNEL_PURPOSE_BITS | FORWARD_ACCEPTED_BIT | node as u32
    }

    /// Returns the mark of packets whose destination MAC address the egress hook replaces by the MAC address of a node.
    #[must_use]
    pub const fn direct_mark(self, node: NodeNumber) -> u32 {
        self.own_bits | DIRECT_PURPOSE_BITS | node as u32
    }

    /// Returns the mark of probes that take the cluster's own route to a pod.
    #[must_use]
    pub const fn probe_mark(self) -> u32 {
        self.own_bits | PROBE_PURPOSE_BITS
    }
}
