//! The desired objects in the kernel. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use akrobateo_core::family::Family;
use ipnet::IpNet;

use crate::mac::MacAddress;

/// The properties that identify a program's objects in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The name of the device. Everything on this device belongs to the owner.
    pub device: String,
    /// The protocol number of the owner's routes and rules (`protocol` in ip-route(8) and ip-rule(8)).
    pub protocol: u8,
}

/// The desired objects of an owner. The default value is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkObjects {
    /// The tunnel device. Addresses, neighbours, forwarding entries and routes through the device exist only together
    /// with the device.
    pub device: Option<Device>,
    /// The device's addresses. Each address has the prefix length of a single host, and link scope.
    pub addresses: BTreeSet<IpAddr>,
    /// The node's address for each destination MAC address on the device (`bridge fdb`).
    pub forwarding_entries: BTreeMap<MacAddress, IpAddr>,
    /// The MAC address of each neighbour on the device.
    pub neighbours: BTreeMap<IpAddr, MacAddress>,
    /// Routes through the device, and routes through other devices.
    pub routes: BTreeSet<Route>,
    /// Rules that select a routing table, or the next rule.
    pub rules: BTreeSet<Rule>,
}

/// A VXLAN device between nodes.
///
/// The device does not learn addresses, and has no link-local IPv6 address. Forwarding is on. The reverse path filter
/// is loose (`rp_filter` 2), because the packets have source addresses of clients outside of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The VXLAN network identifier.
    pub vni: u32,
    /// The node's address, which is the source of the outer packets.
    pub local_address: IpAddr,
    /// The UDP port, which is the same on all nodes.
    pub port: u16,
    /// The device's MAC address.
    pub mac: MacAddress,
    /// The largest packet that the device accepts.
    pub mtu: u32,
}

/// A route with a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The routing table.
    pub table: u32,
    /// The destination.
    pub destination: IpNet,
    /// The next hop, of the destination's family. The next hop may be outside of the networks of the device's
    /// addresses.
    pub gateway: IpAddr,
    /// The device through which packets leave the node.
    pub device: RouteDevice,
}

/// The device of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteDevice {
    /// The owner's tunnel device.
    Tunnel,
    /// The device with this interface index, which is not the tunnel device.
    Other(u32),
}

/// A rule of the routing policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// The family of the packets.
    pub family: Family,
    /// The priority. The kernel examines rules with lower numbers first.
    pub priority: u32,
    /// The packets to which the rule applies.
    pub condition: RuleCondition,
    /// The action for packets that match.
    pub action: RuleAction,
}

/// The packets that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleCondition {
    /// All packets.
    All,
    /// Packets whose mark has these bits.
    HasMark(MaskedMark),
    /// Packets whose mark has other bits.
    LacksMark(MaskedMark),
}

/// The bits of a packet's mark that a rule compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MaskedMark {
    /// The expected values of the bits in `mask`.
    pub value: u32,
    /// The bits of the packet's mark that the rule compares. At least one bit is set.
    pub mask: u32,
}

/// The action of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleAction {
    /// Looks for a route in this routing table.
    Table(u32),
    /// Continues with the first rule that has this priority. The priority is a higher number than the priority of the
    /// rule itself.
    Goto(u32),
    /// Continues with the next rule.
    Continue,
}
