//! The statistics of connection tracking in a network namespace. Pure.

use crate::netlink::Attr;

/// `CTA_STATS_INSERT_FAILED` (`linux/netfilter/nfnetlink_conntrack.h`).
const INSERT_FAILED: u16 = 9;
/// `CTA_STATS_DROP`.
const DROP: u16 = 10;
/// `CTA_STATS_EARLY_DROP`.
const EARLY_DROP: u16 = 11;
/// `CTA_STATS_GLOBAL_ENTRIES`.
const ENTRIES: u16 = 1;
/// `CTA_STATS_GLOBAL_MAX_ENTRIES`.
const MAX_ENTRIES: u16 = 2;

/// The state of the conntrack table. The counters start when the network namespace is created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// The number of entries.
    pub entries: u32,
    /// The maximum number of entries, in this namespace or in all namespaces together. `None` before Linux 4.18.
    pub max_entries: Option<u32>,
    /// The number of new flows that were dropped because an existing entry has the same addresses and ports.
    pub insert_failed: u64,
    /// The number of packets that were dropped because the table was full or because the insertion failed
    /// (`insert_failed`).
    pub drop: u64,
    /// The number of entries that were evicted to make room for new entries.
    pub early_drop: u64,
}

impl Statistics {
    /// Returns the number of packets that were dropped because the table was full.
    #[must_use]
    pub fn table_full_drops(&self) -> u64 {
        self.drop.saturating_sub(self.insert_failed)
    }

    /// Returns the current state. Each counter of the result is the increase since `previous`.
    #[must_use]
    pub fn increase_since(&self, previous: &Self) -> Self {
        Self {
            insert_failed: self.insert_failed.saturating_sub(previous.insert_failed),
            drop: self.drop.saturating_sub(previous.drop),
            early_drop: self.early_drop.saturating_sub(previous.early_drop),
            ..*self
        }
    }

    /// Adds the counters of one CPU.
    pub(super) fn add_cpu_counters(&mut self, attrs: &[u8]) {
        let count = |kind| u64::from(Attr::find_be32(attrs, kind).unwrap_or(0));
        self.insert_failed += count(INSERT_FAILED);
        self.drop += count(DROP);
        self.early_drop += count(EARLY_DROP);
    }

    /// Sets the numbers that the kernel does not count per CPU.
    pub(super) fn set_global_values(&mut self, attrs: &[u8]) {
        self.entries = Attr::find_be32(attrs, ENTRIES).unwrap_or(0);
        self.max_entries = Attr::find_be32(attrs, MAX_ENTRIES);
    }
}
