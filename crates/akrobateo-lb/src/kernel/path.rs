//! The state of the kernel data path. The tasks of the data path share this state, and probes and metrics report
//! this state. Does I/O.

use std::cell::Cell;

use super::conntrack_loss::ConntrackLoss;
use super::metrics;
use crate::ip_forwarding;
use crate::probe::DataPathStatus;
use crate::table_manager::TableManager;

/// The state of the kernel data path.
#[derive(Debug)]
pub(super) struct KernelPath {
    pub(super) table_manager: TableManager,
    /// The number of times that the rules were restored.
    pub(super) rule_restoration_count: Cell<u64>,
    /// The reason why conntrack dropped packets since the last check; `None` if all packets passed.
    pub(super) conntrack_loss: Cell<Option<ConntrackLoss>>,
}

impl KernelPath {
    pub(super) fn new(table_manager: TableManager) -> Self {
        Self { table_manager, rule_restoration_count: Cell::new(0), conntrack_loss: Cell::new(None) }
    }
}

impl DataPathStatus for KernelPath {
    fn check_readiness(&self) -> Result<(), String> {
        ip_forwarding::check_enabled(self.table_manager.config()).map_err(|error| error.to_string())?;
        match self.table_manager.is_in_sync() {
            Ok(true) => Ok(()),
            Ok(false) => Err("the rules in the kernel were changed; the proxy will restore them".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn warning(&self) -> Option<String> {
        let ipv6 = ip_forwarding::find_ipv6_problem(self.table_manager.config());
        let loss = self.conntrack_loss.get().map(|loss| loss.as_str().to_owned());
        let warnings: Vec<_> = ipv6.into_iter().chain(loss).collect();
        (!warnings.is_empty()).then(|| warnings.join("; "))
    }

    fn metrics(&self) -> String {
        let traffic = self.table_manager.read_traffic().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the ports' counters; their metrics are missing");
            Vec::new()
        });
        // An error is ignored, because `report_conntrack_losses` logs it.
        let statistics = self.table_manager.conntrack().statistics().ok();
        metrics::format_metrics(&traffic, statistics.as_ref(), self.rule_restoration_count.get())
    }
}
