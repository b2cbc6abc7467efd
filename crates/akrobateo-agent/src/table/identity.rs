//! The names of the tables. Pure.

use netfilter::nft::model::{TableFamily, TableId};

/// The name of the tables.
pub const TABLE_NAME: &str = "akrobateo";
/// The name of the tables that handle packets while the tables with the name [`TABLE_NAME`] are replaced.
pub const INTERIM_TABLE_NAME: &str = "akrobateo-interim";

/// Returns the identities of the tables of families inet and netdev with this name.
#[must_use]
pub fn table_ids(name: &'static str) -> [TableId; 2] {
    [TableFamily::Inet, TableFamily::Netdev].map(|family| TableId::new(family, name))
}

/// Returns the identity of the table of family inet.
#[must_use]
pub fn inet_table_id() -> TableId {
    TableId::new(TableFamily::Inet, TABLE_NAME)
}

/// Returns the identity of the table of family netdev.
#[must_use]
pub fn netdev_table_id() -> TableId {
    TableId::new(TableFamily::Netdev, TABLE_NAME)
}
