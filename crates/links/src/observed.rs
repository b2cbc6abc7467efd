//! The objects of an owner as the kernel lists them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::rule::RuleMessage;

use crate::mac::MacAddress;
use crate::objects::{Route, Rule};

/// All objects of an owner in the kernel. The default value is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedObjects {
    /// The device with the owner's name.
    pub device: Option<ObservedDevice>,
    /// The device's addresses with their prefix lengths.
    pub addresses: BTreeSet<(IpAddr, u8)>,
    /// The node's address for each MAC address on the device. `None` if the entry has settings other than the address
    /// of a node.
    pub forwarding_entries: BTreeMap<MacAddress, Option<IpAddr>>,
    /// The device's permanent neighbours.
    pub neighbours: BTreeMap<IpAddr, MacAddress>,
    /// All routes with the owner's protocol number.
    pub routes: Vec<ObservedRoute>,
    /// All rules with the owner's protocol number.
    pub rules: Vec<ObservedRule>,
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedDevice {
    /// The interface index of the device.
    pub index: u32,
    /// The settings that cannot change after the creation of the device. `None` if [`VxlanSettings`] cannot describe
    /// the device, for example because it is not a VXLAN device.
    pub vxlan: Option<VxlanSettings>,
    /// The device's MAC address, if the device has an Ethernet address.
    pub mac: Option<MacAddress>,
    /// The largest packet that the device accepts.
    pub mtu: u32,
    /// True if the device is up.
    pub is_up: bool,
    /// The value of `rp_filter`.
    pub reverse_path_filter: i32,
    /// True if the device forwards IPv4 packets.
    pub is_forwarding: bool,
    /// True if the kernel generates a link-local IPv6 address for the device.
    pub generates_link_local_address: bool,
}

/// The settings of a VXLAN device with a source address and without learning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VxlanSettings {
    /// The VXLAN network identifier.
    pub vni: u32,
    /// The address from which the device sends.
    pub local_address: IpAddr,
    /// The UDP port of the other end.
    pub port: u16,
}

/// A route in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedRoute {
    /// The decoded route; `None` if [`Route`] cannot describe all properties of the kernel's route.
    pub route: Option<Route>,
    /// The kernel's message about the route. The same message deletes the route.
    pub message: RouteMessage,
}

/// A rule in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedRule {
    /// The decoded rule; `None` if [`Rule`] cannot describe all properties of the kernel's rule.
    pub rule: Option<Rule>,
    /// The kernel's message about the rule. The same message deletes the rule.
    pub message: RuleMessage,
}
