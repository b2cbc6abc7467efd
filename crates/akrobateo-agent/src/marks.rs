//! The packet marks and conntrack zones of the agent. Pure.
//!
//! A mark has three parts: 12 bits that are common to all marks of the agent, 4 bits for the purpose, and 16 bits for the
//! number of a node. A mark exists only between two hooks of the same node. No packet leaves a node with a mark.

/// The number of a node. Both ends of a connection between two nodes use the same numbers.
pub type NodeNumber = u16;

/// The bits of a mark that tell its purpose.
pub const PURPOSE_MASK: u32 = 0xffff_0000;
/// The bits that are common to all marks of the agent.
pub const OWN_MASK: u32 = 0xfff0_0000;

const TUNNEL: u32 = 0x0002_0000;
const DIRECT: u32 = 0x0003_0000;
const PROBE: u32 = 0x0004_0000;

/// The marks of one agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// The value of the bits in [`OWN_MASK`]. All nodes may have different values.
    pub base: u32,
}

impl Default for Marks {
    fn default() -> Self {
        Self { base: 0x6b70_0000 }
    }
}

impl Marks {
    /// Returns the mark of packets that go through the tunnel to a node. Number 0 stands for all nodes.
    #[must_use]
    pub const fn tunnel(self, node: NodeNumber) -> u32 {
        self.base | TUNNEL | node as u32
    }

    /// Returns the mark of packets whose destination MAC address the egress hook replaces by that of a node.
    #[must_use]
    pub const fn direct(self, node: NodeNumber) -> u32 {
        self.base | DIRECT | node as u32
    }

    /// Returns the mark of probes that take the cluster's own way.
    #[must_use]
    pub const fn probe(self) -> u32 {
        self.base | PROBE
    }
}
