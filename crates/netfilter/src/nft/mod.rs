//! nftables: a table as a value, its encoding as netlink messages, and a client.

// The names are from the kernel's header linux/netfilter/nf_tables.h, which documents them.
#[allow(missing_docs)]
pub mod abi;
pub mod client;
pub mod decode;
pub mod encode;
mod expr;
pub mod model;

pub use encode::{Batch, Operation};
pub use model::Table;
