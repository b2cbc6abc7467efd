//! A tunnel device with its addresses, neighbours, forwarding entries, routes and rules in the kernel.
//!
//! [`NetworkObjects`] are the desired objects. [`Client::observe`] reads the objects of an [`Owner`] from the kernel,
//! [`diff`] lists the necessary changes, and [`Client::apply`] makes these changes. [`Monitor`] reports when one of the
//! objects may have changed. The crate needs only the capability `NET_ADMIN` in the network namespace, and does not use
//! `/proc/sys`.

mod client;
mod codec;
mod description;
mod difference;
mod mac;
mod monitor;
mod objects;
mod observed;
mod socket;

pub use client::{Client, ClientError};
pub use difference::{Change, diff};
pub use mac::{MacAddress, ParseMacAddressError};
pub use monitor::Monitor;
pub use objects::{
    Device, MaskedMark, NetworkObjects, Owner, Route, RouteDevice, Rule, RuleAction, RuleCondition,
};
pub use observed::{ObservedDevice, ObservedObjects, ObservedRoute, ObservedRule, VxlanSettings};
pub use socket::SocketError;
