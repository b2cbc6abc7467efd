//! Emits events of Services. `kubectl describe service` shows these events. Does I/O.

use k8s_openapi::api::core::v1::Service;
use kube::Resource;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use super::Writer;
use crate::call::{CallError, call};
use crate::reason::Reason;

/// The longest note that the API server accepts, in bytes (events.k8s.io/v1).
const MAX_NOTE_BYTES: usize = 1024;

impl Writer {
    /// Emits an event of a Service.
    pub(super) async fn emit(&self, service: &Service, reason: Reason, note: &str) -> Result<(), CallError> {
        let event = Event {
            type_: if reason.is_warning() { EventType::Warning } else { EventType::Normal },
            reason: reason.as_str().to_owned(),
            note: Some(truncate_note(note).to_owned()),
            action: "SyncLoadBalancer".to_owned(),
            secondary: None,
        };
        // A recorder merges events that differ only in their notes, and keeps only the first note. So the operator uses
        // a new recorder for each event.
        let recorder = Recorder::new(self.client.clone(), Reporter::from(self.instance.as_str()));
        let reference = service.object_ref(&());
        call(&self.metrics, "publish_event", recorder.publish(&event, &reference)).await
    }
}

/// Shortens a note to the longest that the API server accepts.
pub(super) fn truncate_note(note: &str) -> &str {
    let end = (0..=MAX_NOTE_BYTES.min(note.len())).rev().find(|&end| note.is_char_boundary(end));
    note.get(..end.unwrap_or(0)).unwrap_or(note)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_note_is_truncated_between_characters() {
        assert_eq!(truncate_note("short"), "short");
        let long_note = "ä".repeat(MAX_NOTE_BYTES);
        assert_eq!(truncate_note(&long_note).len(), MAX_NOTE_BYTES);
        let prefixed_note = format!("x{long_note}");
        assert_eq!(truncate_note(&prefixed_note).len(), MAX_NOTE_BYTES - 1);
    }
}
