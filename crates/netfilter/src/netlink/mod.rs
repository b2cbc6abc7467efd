//! Netlink in general: attributes, messages and sockets. Does not depend on nftables or conntrack.

pub mod attr;
pub mod message;
pub mod socket;

pub use attr::{Attr, Attrs};
pub use message::{Message, Messages};
pub use socket::{NetlinkError, Protocol, Socket};
