//! Events on Services: what their authors see in `kubectl describe`. Does I/O.

use std::error::Error;
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::Service;
use kube::Resource;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use super::Writer;
use crate::call::{CallError, call};
use crate::reason::Reason;

/// Longest note that the API server accepts, in bytes (events.k8s.io/v1).
const MAX_NOTE: usize = 1024;

impl Writer {
    /// Publishes an event about a Service.
    pub(super) async fn announce(
        &self,
        service: &Service,
        reason: Reason,
        note: &str,
    ) -> Result<(), CallError> {
        let event = Event {
            type_: if reason.is_warning() { EventType::Warning } else { EventType::Normal },
            reason: reason.as_str().to_owned(),
            note: Some(cut(note).to_owned()),
            action: "SyncLoadBalancer".to_owned(),
            secondary: None,
        };
        // A recorder would merge events that differ in their notes, and show the first note for ever: a new one each
        // time does not remember.
        let recorder = Recorder::new(self.client.clone(), Reporter::from(akrobateo_core::FIELD_MANAGER));
        let reference = service.object_ref(&());
        call(&self.metrics, "publish_event", recorder.publish(&event, &reference)).await
    }
}

fn cut(note: &str) -> &str {
    let end = (0..=MAX_NOTE.min(note.len())).rev().find(|&end| note.is_char_boundary(end));
    note.get(..end.unwrap_or(0)).unwrap_or(note)
}

/// An error with everything that led to it, in one line.
pub(super) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_note_is_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = "ä".repeat(MAX_NOTE);
        assert_eq!(cut(&long).len(), MAX_NOTE);
        let odd = format!("x{long}");
        assert_eq!(cut(&odd).len(), MAX_NOTE - 1);
    }
}
