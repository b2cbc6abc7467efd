//! Merges repeated events of one object into a series, as client-go's recorder does. Pure.
//!
//! kube's recorder also merges events that differ in their notes, and drops all notes except the first.

use std::collections::HashMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::reason::Reason;

/// A series ends if its event does not occur again within this time, as in client-go.
const SERIES_TIMEOUT: SignedDuration = SignedDuration::from_mins(6);

/// The series of the last minutes.
#[derive(Debug, Default)]
pub(super) struct RecentEvents(HashMap<EventKey, RecordedSeries>);

/// Events with the same key are repetitions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct EventKey {
    /// The UID of the object.
    pub(super) object_uid: Option<String>,
    pub(super) reason: Reason,
    pub(super) note: String,
}

/// The Event object of a series, and the number of events in the series.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RecordedSeries {
    object_name: String,
    count: i32,
    last_event_at: Timestamp,
}

impl RecentEvents {
    /// Returns the name of the Event object and the new count of the series that this event continues; `None` if the
    /// event is new.
    pub(super) fn continue_series(&mut self, key: &EventKey, now: Timestamp) -> Option<(String, i32)> {
        self.0.retain(|_, series| series.last_event_at + SERIES_TIMEOUT > now);
        self.0.get(key).map(|series| (series.object_name.clone(), series.count.saturating_add(1)))
    }

    /// Records a successful write of the Event object.
    pub(super) fn record(&mut self, key: EventKey, object_name: String, count: i32, now: Timestamp) {
        self.0.insert(key, RecordedSeries { object_name, count, last_event_at: now });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixtures::at;

    fn event_key(uid: &str, reason: Reason, note: &str) -> EventKey {
        EventKey { object_uid: Some(uid.to_owned()), reason, note: note.to_owned() }
    }

    #[test]
    fn series_continues_only_with_an_equal_event_of_the_same_object() {
        let mut recent_events = RecentEvents::default();
        let first_key = event_key("a", Reason::PortInUse, "x");
        assert_eq!(recent_events.continue_series(&first_key, at(0)), None);
        recent_events.record(first_key.clone(), "event".to_owned(), 1, at(0));
        assert_eq!(recent_events.continue_series(&first_key, at(1)), Some(("event".to_owned(), 2)));
        for other in [
            event_key("b", Reason::PortInUse, "x"),
            event_key("a", Reason::PortConflict, "x"),
            event_key("a", Reason::PortInUse, "y"),
        ] {
            assert_eq!(recent_events.continue_series(&other, at(1)), None);
        }
    }

    #[test]
    fn series_ends_six_minutes_after_its_last_event() {
        let mut recent_events = RecentEvents::default();
        let event = event_key("a", Reason::PortInUse, "x");
        recent_events.record(event.clone(), "event".to_owned(), 1, at(0));
        recent_events.record(event.clone(), "event".to_owned(), 2, at(300));
        assert_eq!(recent_events.continue_series(&event, at(659)), Some(("event".to_owned(), 3)));
        assert_eq!(recent_events.continue_series(&event, at(660)), None);
        assert!(recent_events.0.is_empty());
    }
}
