//! What the kernel path is made of, and what it tells of itself.

use std::cell::Cell;

use super::metrics;
use crate::ip_forwarding;
use crate::probe::Status;
use crate::table_manager::TableManager;

/// Rules in the kernel, and how often they had to be put back.
#[derive(Debug)]
pub(super) struct KernelPath {
    pub(super) keeper: TableManager,
    pub(super) restored: Cell<u64>,
    /// Why packets were lost a moment ago, if they were.
    pub(super) conntrack_warning: Cell<Option<&'static str>>,
}

impl KernelPath {
    pub(super) fn new(keeper: TableManager) -> Self {
        Self { keeper, restored: Cell::new(0), conntrack_warning: Cell::new(None) }
    }
}

impl Status for KernelPath {
    fn ready(&self) -> Result<(), String> {
        ip_forwarding::check(self.keeper.plan()).map_err(|error| error.to_string())?;
        match self.keeper.in_sync() {
            Ok(true) => Ok(()),
            Ok(false) => Err("the rules are not in the kernel".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn warning(&self) -> Option<String> {
        self.conntrack_warning.get().map(str::to_owned)
    }

    fn metrics(&self) -> String {
        let traffic = self.keeper.traffic().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the ports' counters");
            Vec::new()
        });
        // Where the kernel has none, the log has told.
        let statistics = self.keeper.flows().statistics().ok();
        metrics::text(&traffic, statistics.as_ref(), self.restored.get())
    }
}
