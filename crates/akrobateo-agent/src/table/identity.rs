//! The names of the tables. Pure.

use netfilter::nft::model::{TableFamily, TableId};

/// The name of the tables.
pub const NAME: &str = "akrobateo";

/// Returns the identity of the table of family inet.
#[must_use]
pub fn inet_id() -> TableId {
    TableId::new(TableFamily::Inet, NAME)
}

/// Returns the identity of the table of family netdev.
#[must_use]
pub fn netdev_id() -> TableId {
    TableId::new(TableFamily::Netdev, NAME)
}
