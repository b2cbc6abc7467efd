//! Connection tracking: its entries, its statistics, and a client that deletes stale entries.

mod client;
mod entry;
mod statistics;

pub use client::Conntrack;
pub use entry::Flow;
pub use statistics::Statistics;
