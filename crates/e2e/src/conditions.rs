//! The condition and the Warning events of a Service. Does I/O.

use akrobateo_core::DEFAULT_INSTANCE;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::failure::{Failure, ensure};
use crate::namespace::Namespace;
use crate::polling::eventually;
use crate::service::ServiceBuilder;

impl Namespace {
    /// Waits until a Warning event with this reason has all these words. The Service's condition must have these words
    /// too.
    pub async fn wait_warning(
        &self,
        service: &ServiceBuilder,
        reason: &str,
        expected_words: &[&str],
    ) -> Result<(), Failure> {
        eventually(
            &format!("a Warning {reason} and the condition have the words {expected_words:?}"),
            async || {
                let events = self.list_events(service).await?;
                let warning_is_emitted = events.iter().any(|event| {
                    let note = event.note.as_deref().unwrap_or_default();
                    event.type_.as_deref() == Some("Warning")
                        && event.reason.as_deref() == Some(reason)
                        && expected_words.iter().all(|word| note.contains(word))
                });
                ensure(warning_is_emitted, || {
                    let notes: Vec<_> = events.iter().map(|event| (&event.reason, &event.note)).collect();
                    format!("the events are {notes:?}")
                })?;
                let condition = exposed_condition(&self.get_service(service).await?).cloned();
                let condition_has_words = condition
                    .iter()
                    .any(|condition| expected_words.iter().all(|word| condition.message.contains(word)));
                ensure(condition_has_words, || format!("the condition is {condition:?}"))
            },
        )
        .await
    }
}

impl Namespace {
    /// Waits until the Service's condition has this reason, and its message has all these words.
    pub async fn wait_condition(
        &self,
        service: &ServiceBuilder,
        reason: &str,
        expected_words: &[&str],
    ) -> Result<(), Failure> {
        eventually(&format!("the condition {reason} has the words {expected_words:?}"), async || {
            let condition = exposed_condition(&self.get_service(service).await?).cloned();
            let is_expected = condition.iter().any(|condition| {
                condition.reason == reason
                    && expected_words.iter().all(|word| condition.message.contains(word))
            });
            ensure(is_expected, || format!("the condition is {condition:?}"))
        })
        .await
    }
}

impl Namespace {
    /// Returns the Service's condition. The Service must have one.
    pub async fn get_condition(&self, service: &ServiceBuilder) -> Result<Condition, Failure> {
        let condition = exposed_condition(&self.get_service(service).await?).cloned();
        condition.ok_or_else(|| {
            Failure::UnexpectedState(format!("Service {} has no condition yet", service.name()))
        })
    }

    /// Checks that no event of the operator about a Service is a Warning.
    pub async fn ensure_no_warnings(&self, service: &ServiceBuilder) -> Result<(), Failure> {
        let events = self.list_events(service).await?;
        // Other programs also report Warnings, for example the API server when it repairs the allocation of nodePorts.
        let warnings = events.iter().filter(|event| {
            event.type_.as_deref() == Some("Warning")
                && event.reporting_controller.as_deref() == Some(DEFAULT_INSTANCE)
        });
        let warnings: Vec<_> = warnings.map(|event| (&event.reason, &event.note)).collect();
        ensure(warnings.is_empty(), || format!("Service {} has the Warnings {warnings:?}", service.name()))
    }
}

/// Returns the condition `akrobateo.io/Exposed` of a Service.
#[must_use]
pub fn exposed_condition(service: &Service) -> Option<&Condition> {
    let conditions = service.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().find(|condition| condition.type_ == "akrobateo.io/Exposed")
}
