//! The agent's state for its HTTP server. Does no I/O.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use admin_server::program::ProgramState;

use super::metrics::Metrics;

/// The part of the agent's state that determines the responses.
pub(super) struct Health {
    /// True after the first rules were applied.
    pub(super) is_ready: AtomicBool,
    pub(super) metrics: Metrics,
}

impl ProgramState for Health {
    fn not_ready_reason(&self) -> Option<&'static str> {
        (!self.is_ready.load(Ordering::Relaxed)).then_some("waiting for the first rules")
    }

    fn metrics_text(&self) -> Result<String, fmt::Error> {
        self.metrics.text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_is_ready_after_the_first_rules() {
        let health = Health { is_ready: AtomicBool::new(false), metrics: Metrics::new(None) };
        assert!(health.not_ready_reason().is_some());
        health.is_ready.store(true, Ordering::Relaxed);
        assert_eq!(health.not_ready_reason(), None);
    }
}
