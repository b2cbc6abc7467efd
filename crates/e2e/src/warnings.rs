//! What a Service's author is told. Does I/O.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{Failure, Namespace, ServiceBuilder, ensure, eventually};

impl Namespace {
    /// Waits for a Warning about a Service with this reason and all of these words, and for the condition that says
    /// the same.
    pub async fn warned(
        &self,
        service: &ServiceBuilder,
        reason: &str,
        words: &[&str],
    ) -> Result<(), Failure> {
        eventually("a Warning says what is wrong", async || {
            let events = self.events(service).await?;
            let told = events.iter().any(|event| {
                let note = event.note.as_deref().unwrap_or_default();
                event.type_.as_deref() == Some("Warning")
                    && event.reason.as_deref() == Some(reason)
                    && words.iter().all(|word| note.contains(word))
            });
            ensure(told, || format!("{:?}", events.iter().map(|event| &event.note).collect::<Vec<_>>()))?;
            let condition = exposed_condition(&self.service(service).await?).cloned();
            let says =
                condition.iter().any(|condition| words.iter().all(|word| condition.message.contains(word)));
            ensure(says, || format!("{condition:?}"))
        })
        .await
    }
}

/// Whether a Service has addresses, and if not, why.
pub(crate) fn exposed_condition(service: &Service) -> Option<&Condition> {
    let conditions = service.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().find(|condition| condition.type_ == "akrobateo.io/Exposed")
}
