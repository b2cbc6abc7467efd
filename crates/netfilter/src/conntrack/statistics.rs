//! The statistics of connection tracking in a network namespace. Pure.

use crate::netlink::Attr;

// The attributes of the statistics (`linux/netfilter/nfnetlink_conntrack.h`).
const CTA_STATS_INSERT_FAILED: u16 = 9;
const CTA_STATS_DROP: u16 = 10;
const CTA_STATS_EARLY_DROP: u16 = 11;
const CTA_STATS_GLOBAL_ENTRIES: u16 = 1;
const CTA_STATS_GLOBAL_MAX_ENTRIES: u16 = 2;

/// The state of the conntrack table. The counters start when the network namespace is created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// The number of entries.
    pub entries: u32,
    /// The maximum number of entries, in this namespace or in all namespaces together. `None` before Linux 4.18.
    pub max_entries: Option<u32>,
    /// The number of new flows that were dropped because an existing entry has the same addresses and ports.
    pub failed_insertions: u64,
    /// The number of packets that were dropped because the table was full or because the insertion failed
    /// (`failed_insertions`).
    pub drops: u64,
    /// The number of entries that were evicted to make room for new entries.
    pub evictions: u64,
}

impl Statistics {
    /// Returns the number of packets that were dropped because the table was full.
    #[must_use]
    pub fn table_full_drops(&self) -> u64 {
        self.drops.saturating_sub(self.failed_insertions)
    }

    /// Returns the current state. Each counter of the result is the increase since `previous`.
    #[must_use]
    pub fn increase_since(&self, previous: &Self) -> Self {
        Self {
            failed_insertions: self.failed_insertions.saturating_sub(previous.failed_insertions),
            drops: self.drops.saturating_sub(previous.drops),
            evictions: self.evictions.saturating_sub(previous.evictions),
            ..*self
        }
    }

    /// Adds the counters of one CPU.
    pub(super) fn add_cpu_counters(&mut self, attrs: &[u8]) {
        let count = |kind| u64::from(Attr::find_be32(attrs, kind).unwrap_or(0));
        self.failed_insertions += count(CTA_STATS_INSERT_FAILED);
        self.drops += count(CTA_STATS_DROP);
        self.evictions += count(CTA_STATS_EARLY_DROP);
    }

    /// Sets the numbers that the kernel does not count per CPU.
    pub(super) fn set_global_values(&mut self, attrs: &[u8]) {
        self.entries = Attr::find_be32(attrs, CTA_STATS_GLOBAL_ENTRIES).unwrap_or(0);
        self.max_entries = Attr::find_be32(attrs, CTA_STATS_GLOBAL_MAX_ENTRIES);
    }
}
