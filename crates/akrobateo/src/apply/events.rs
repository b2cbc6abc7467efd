//! Emits events of Services. `kubectl describe service` shows these events. Does I/O.

use std::sync::{MutexGuard, PoisonError};

use api_client::{CallError, call};
use k8s_openapi::api::core::v1::{ObjectReference, Service};
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt};

use super::Writer;
use super::recent_events::{EventKey, RecentEvents};
use crate::reason::Reason;

/// The longest note that the API server accepts, in bytes (events.k8s.io/v1).
const MAX_NOTE_BYTES: usize = 1024;

impl Writer {
    /// Emits an event of a Service. If an equal event was emitted a short time ago, only increases the count in the
    /// existing Event object.
    pub(super) async fn emit_service_event(
        &self,
        service: &Service,
        reason: Reason,
        note: &str,
    ) -> Result<(), CallError> {
        let now = Timestamp::now();
        let namespace = service.namespace().unwrap_or_default();
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let key = EventKey { object_uid: service.uid(), reason, note: truncate_note(note).to_owned() };
        let continued_series = self.recent_events().continue_series(&key, now);
        if let Some((name, count)) = continued_series {
            let series = EventSeries { count, last_observed_time: MicroTime(now) };
            let patch = Patch::Merge(serde_json::json!({ "series": series }));
            let params = PatchParams::default();
            match call(&self.metrics.api, "publish_event", api.patch(&name, &params, &patch)).await {
                Ok(_) => {
                    self.recent_events().record(key, name, count, now);
                    return Ok(());
                }
                // The API server deletes old events, so a new Event object is necessary.
                Err(error) if error.is_not_found() => (),
                Err(error) => return Err(error),
            }
        }
        let name = format!("{}.{:x}", service.name_any(), now.as_nanosecond());
        let metadata =
            ObjectMeta { name: Some(name.clone()), namespace: Some(namespace), ..ObjectMeta::default() };
        let event = Event {
            metadata,
            action: Some("SyncLoadBalancer".to_owned()),
            ..self.build_event(reason, note, service.object_ref(&()), now)
        };
        call(&self.metrics.api, "publish_event", api.create(&PostParams::default(), &event)).await?;
        self.recent_events().record(key, name, 1, now);
        Ok(())
    }

    /// Returns an event without a name.
    pub(super) fn build_event(
        &self,
        reason: Reason,
        note: &str,
        regarding: ObjectReference,
        now: Timestamp,
    ) -> Event {
        let event_type = if reason.is_warning() { "Warning" } else { "Normal" };
        Event {
            type_: Some(event_type.to_owned()),
            reason: Some(reason.as_str().to_owned()),
            note: Some(truncate_note(note).to_owned()),
            event_time: Some(MicroTime(now)),
            reporting_controller: Some(self.operator_instance.clone()),
            reporting_instance: Some(self.reporting_instance.clone()),
            regarding: Some(regarding),
            ..Event::default()
        }
    }

    fn recent_events(&self) -> MutexGuard<'_, RecentEvents> {
        self.recent_events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shortens a note to the maximum length that the API server accepts.
fn truncate_note(note: &str) -> &str {
    let end = (0..=MAX_NOTE_BYTES.min(note.len())).rev().find(|&end| note.is_char_boundary(end));
    note.get(..end.unwrap_or(0)).unwrap_or(note)
}

#[cfg(test)]
mod tests {
    use api_client::scripted_api::{ReceivedRequest, scripted_api};
    use http::Method;

    use super::*;
    use crate::decide::fixtures::{INSTANCE, service};
    use crate::metrics::Metrics;

    #[test]
    fn long_note_is_truncated_between_characters() {
        assert_eq!(truncate_note("short"), "short");
        let long_note = "ä".repeat(MAX_NOTE_BYTES);
        assert_eq!(truncate_note(&long_note).len(), MAX_NOTE_BYTES);
        let prefixed_note = format!("x{long_note}");
        assert_eq!(truncate_note(&prefixed_note).len(), MAX_NOTE_BYTES - 1);
    }

    fn event_name(request: &ReceivedRequest) -> String {
        request.body["metadata"]["name"].as_str().unwrap().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn repeated_event_increases_the_count_of_one_object() {
        let (client, mut api) = scripted_api();
        let writer = Writer::new(client, INSTANCE, Metrics::new());
        let service = service("web").build();
        let emit = async |note| writer.emit_service_event(&service, Reason::PortInUse, note).await.unwrap();
        let ((), first_name) = tokio::join!(emit("x"), async {
            let request = api.next_request().await;
            assert_eq!(request.method, Method::POST);
            assert_eq!(request.body["type"], "Warning");
            assert_eq!(request.body["regarding"]["uid"], "uid-of-web");
            let name = event_name(&request);
            request.accept();
            name
        });
        for count in [2, 3] {
            let ((), ()) = tokio::join!(emit("x"), async {
                let request = api.next_request().await;
                assert_eq!((&request.method, request.path.ends_with(&first_name)), (&Method::PATCH, true));
                assert_eq!(request.body["series"]["count"], count);
                request.accept();
            });
        }
        let ((), ()) = tokio::join!(emit("y"), async {
            let request = api.next_request().await;
            assert_ne!(event_name(&request), first_name);
            request.accept();
        });
        // The API server has deleted the event.
        let ((), ()) = tokio::join!(emit("x"), async {
            api.next_request().await.answer_error(404, "NotFound");
            let request = api.next_request().await;
            assert_eq!(request.method, Method::POST);
            assert_ne!(event_name(&request), first_name);
            request.accept();
        });
    }
}
