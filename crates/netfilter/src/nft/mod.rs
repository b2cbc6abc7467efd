//! nftables: tables as values, transactions that change them, their encoding as netlink messages, and a client.
//!
//! [`model`] describes tables. [`diff`](diff()) returns the [`Transaction`] that changes the kernel's table into the
//! desired table. [`client::Nftables`] reads tables and executes transactions. [`watch::Watch`] reports changes of a
//! table by other programs.

pub mod abi;
pub mod client;
mod comment;
pub mod decode;
mod diff;
mod element;
mod encode;
mod error;
mod expr;
mod installed;
pub mod model;
mod set_definition;
mod stages;
mod transaction;
pub mod watch;

pub use diff::diff;
pub use encode::Batch;
pub use error::NftError;
pub use installed::{ForeignObject, InstalledTable};
pub use model::Table;
pub use stages::Stages;
pub use transaction::{Action, Step, Transaction};
