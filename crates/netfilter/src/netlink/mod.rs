//! Netlink in general: attributes, messages and sockets. The module is independent of nftables and conntrack.

pub mod attr;
pub mod message;
pub mod socket;

pub use attr::{Attr, Attrs};
pub use message::{Message, Messages};
pub use socket::{NetlinkError, Protocol, Socket};
