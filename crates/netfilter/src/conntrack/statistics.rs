//! What the kernel counts about connection tracking in this network namespace. Pure.

use crate::netlink::Attr;

/// enum `ctattr_stats_cpu` (`linux/netfilter/nfnetlink_conntrack.h`).
const INSERT_FAILED: u16 = 9;
const DROP: u16 = 10;
const EARLY_DROP: u16 = 11;
/// enum `ctattr_stats_global`.
const ENTRIES: u16 = 1;
const MAX_ENTRIES: u16 = 2;

/// The state of connection tracking; counts since the network namespace was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Flows that are tracked.
    pub entries: u32,
    /// Flows that may be tracked, in this namespace or all together; `None` before Linux 4.18.
    pub max: Option<u32>,
    /// New flows that could not be entered, since another one has the same addresses and ports.
    pub insert_failed: u64,
    /// Packets dropped because their flow could not be tracked: no room, or not entered.
    pub drop: u64,
    /// Flows that had to make room for new ones.
    pub early_drop: u64,
}

impl Statistics {
    /// Packets dropped for lack of room: those that are not counted as a flow that could not be entered.
    #[must_use]
    pub fn full(&self) -> u64 {
        self.drop.saturating_sub(self.insert_failed)
    }

    /// What happened since `before`; the state as it is now.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            insert_failed: self.insert_failed.saturating_sub(before.insert_failed),
            drop: self.drop.saturating_sub(before.drop),
            early_drop: self.early_drop.saturating_sub(before.early_drop),
            ..*self
        }
    }

    /// Adds what one processor has counted.
    pub(super) fn add_cpu(&mut self, attrs: &[u8]) {
        let count = |kind| u64::from(Attr::find_be32(attrs, kind).unwrap_or(0));
        self.insert_failed += count(INSERT_FAILED);
        self.drop += count(DROP);
        self.early_drop += count(EARLY_DROP);
    }

    /// Takes in what is known of the table as a whole.
    pub(super) fn set_global(&mut self, attrs: &[u8]) {
        self.entries = Attr::find_be32(attrs, ENTRIES).unwrap_or(0);
        self.max = Attr::find_be32(attrs, MAX_ENTRIES);
    }
}
