//! A network interface and its addresses. Pure.

use std::net::IpAddr;

use links::MacAddress;

/// The interface index of the loopback interface, which is the same in all network namespaces.
pub const LOOPBACK_INDEX: u32 = 1;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    /// The interface index.
    pub(super) index: u32,
    /// The name.
    pub(super) name: String,
    /// True if the administrator has set the interface up. The interface may still lack a carrier.
    pub(super) is_up: bool,
    /// The MAC address; `None` if the interface does not have the link layer of Ethernet.
    pub(super) mac: Option<MacAddress>,
    /// The MTU.
    pub(super) mtu: u32,
    /// The interface's own addresses.
    pub(super) addresses: Vec<IpAddr>,
}
