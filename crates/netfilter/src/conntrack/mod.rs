//! Connection tracking: its statistics, and the deletion of stale entries.

mod client;
mod entry;
mod statistics;

pub use client::Flows;
pub use entry::Flow;
pub use statistics::Statistics;
