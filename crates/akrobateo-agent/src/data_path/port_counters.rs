//! Reads the counters of the Service ports. Does I/O.

use netfilter::nft::client::Nftables;
use netfilter::nft::model::Set;

use super::error::DataPathError;
use crate::table::{PortCount, inet_table_id, parse_port_count, port_counter_set};

/// Reads the counters of the Service ports in one network namespace.
#[derive(Debug)]
pub struct PortCounters {
    nftables: Nftables,
    set: Set,
}

impl PortCounters {
    /// Opens a reader in the network namespace of the calling thread.
    pub fn open() -> Result<Self, DataPathError> {
        Ok(Self { nftables: Nftables::open()?, set: port_counter_set(&[]) })
    }

    /// Returns the counts of all ports. The list is empty if the table does not exist.
    ///
    /// The kernel answers immediately. If the set changes during the read, the read starts again, at most ten times.
    pub fn read(&self) -> Result<Vec<PortCount>, DataPathError> {
        let elements = self.nftables.read_elements(&inet_table_id(), &self.set)?.unwrap_or_default();
        Ok(elements.iter().filter_map(parse_port_count).collect())
    }
}
