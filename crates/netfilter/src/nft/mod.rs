//! nftables: a table as a value, its bytes in both directions, and the kernel's side of it.

// Named after the kernel's, whose documentation is nf_tables.h.
#[allow(missing_docs)]
pub mod abi;
pub mod client;
pub mod decode;
pub mod encode;
mod expr;
pub mod model;

pub use encode::{Batch, Step};
pub use model::Table;
