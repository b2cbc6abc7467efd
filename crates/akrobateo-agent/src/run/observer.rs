//! Passes the events of the data path's thread to the agent. Does no I/O.

use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use crate::agent::{Modes, Observer};
use crate::data_path::DataPathError;

/// An event of the data path.
#[derive(Debug)]
pub(super) enum DataPathEvent {
    /// The forwarding mode of each peer, after a report of the probe.
    Modes(Modes),
    /// The end of an attempt to apply the configuration with this ID, and the duration of the attempt.
    Applied(u64, Result<(), ChangeFailure>, Duration),
}

/// The reason why the rules could not be changed.
#[derive(Debug)]
pub(super) struct ChangeFailure {
    /// The step that failed, as a label of metrics.
    pub(super) step: &'static str,
    /// The error with its causes.
    pub(super) message: String,
}

/// Sends the events to a channel.
pub(super) struct EventSender(pub(super) UnboundedSender<DataPathEvent>);

impl Observer for EventSender {
    // A send fails only while the agent stops.
    fn on_modes(&mut self, modes: &Modes) {
        let _ = self.0.send(DataPathEvent::Modes(modes.clone()));
    }

    fn on_applied(&mut self, id: u64, result: Result<(), &DataPathError>, duration: Duration) {
        if let Err(error) = result {
            tracing::warn!(error = error as &dyn std::error::Error, "cannot change the rules; trying again");
        }
        let build_failure = |error: &DataPathError| ChangeFailure {
            step: error.step(),
            message: api_client::error_chain(error),
        };
        let _ = self.0.send(DataPathEvent::Applied(id, result.map_err(build_failure), duration));
    }
}
