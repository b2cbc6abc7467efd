//! Netlink as such: attributes, messages and the socket; knows nothing of nftables or conntrack.

pub mod attr;
pub mod message;
pub mod socket;

pub use attr::{Attr, Attrs};
pub use message::{Message, Messages};
pub use socket::{NetlinkError, Protocol, Socket};
