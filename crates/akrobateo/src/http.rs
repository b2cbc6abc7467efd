//! The operator's state for its HTTP server. Does no I/O.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use admin_server::program::ProgramState;

use crate::metrics::Metrics;

/// The part of the operator's state that determines the responses.
pub(crate) struct OperatorState {
    /// True when the caches are synced.
    pub(crate) is_ready: AtomicBool,
    pub(crate) metrics: Arc<Metrics>,
}

impl ProgramState for OperatorState {
    fn not_ready_reason(&self) -> Option<&'static str> {
        (!self.is_ready.load(Ordering::Relaxed)).then_some("waiting for the caches to sync")
    }

    fn metrics_text(&self) -> Result<String, fmt::Error> {
        self.metrics.text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operator_serves_metrics_before_the_cache_sync_and_is_ready_after_it() {
        let operator_state = OperatorState { is_ready: AtomicBool::new(false), metrics: Metrics::new() };
        assert!(operator_state.not_ready_reason().is_some());
        assert!(operator_state.metrics_text().unwrap().ends_with("# EOF\n"));
        operator_state.is_ready.store(true, Ordering::Relaxed);
        assert_eq!(operator_state.not_ready_reason(), None);
    }
}
