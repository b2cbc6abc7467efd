//! Connection tracking: its entries, its statistics, and a client that deletes entries.

mod abi;
mod client;
mod entry;
mod filter;
mod statistics;

pub use client::Conntrack;
pub use entry::{Entry, Flow};
pub use filter::{EntryFilter, MarkCondition};
pub use statistics::Statistics;
