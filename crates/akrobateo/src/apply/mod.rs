//! Makes the changes that were decided: the only place that writes to the cluster. Does I/O.

mod events;
mod status;
mod workload;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, PatchParams};
use kube::{Client, ResourceExt};

use crate::call::CallError;
use crate::decide::Action;
use crate::key::ServiceKey;
use crate::metrics::Metrics;
use crate::reason::Reason;

/// Writes to the cluster.
pub(crate) struct Writer {
    client: Client,
    metrics: Arc<Metrics>,
    /// The failure last reported on each Service, so that a retry does not repeat it.
    reported: Mutex<HashMap<String, String>>,
}

/// A write that failed, by step.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// The proxies were not made or changed.
    #[error("cannot apply the proxies' workload")]
    ApplyWorkload(#[source] CallError),
    /// The proxies were not removed.
    #[error("cannot delete the proxies' workload")]
    DeleteWorkload(#[source] CallError),
    /// The status was not written.
    #[error("cannot write the Service's status")]
    PublishStatus(#[source] CallError),
    /// The event was not written.
    #[error("cannot write an event")]
    PublishEvent(#[source] CallError),
}

impl ApplyError {
    /// The step, as a metric's label.
    pub(crate) const fn step(&self) -> &'static str {
        match self {
            Self::ApplyWorkload(_) => "apply_workload",
            Self::DeleteWorkload(_) => "delete_workload",
            Self::PublishStatus(_) => "publish_status",
            Self::PublishEvent(_) => "publish_event",
        }
    }

    /// Whether somebody else has changed the object, or replaced it, in the meantime.
    pub(crate) fn is_conflict(&self) -> bool {
        match self {
            Self::ApplyWorkload(error)
            | Self::DeleteWorkload(error)
            | Self::PublishStatus(error)
            | Self::PublishEvent(error) => error.is_conflict(),
        }
    }
}

impl Writer {
    pub(crate) fn new(client: Client, metrics: Arc<Metrics>) -> Self {
        Self { client, metrics, reported: Mutex::default() }
    }

    /// Makes one change.
    pub(crate) async fn make(
        &self,
        key: &ServiceKey,
        service: Option<&Service>,
        change: &Action,
    ) -> Result<(), ApplyError> {
        match change {
            Action::Apply(workload) => {
                self.apply(workload).await.map_err(ApplyError::ApplyWorkload)?;
                tracing::info!(service = %key, "applied the proxies");
            }
            Action::Delete(workload) => {
                let deleted = self.delete(workload, DeleteParams::background()).await;
                deleted.map_err(ApplyError::DeleteWorkload)?;
                let metadata = workload.metadata();
                tracing::info!(service = %key, namespace = ?metadata.namespace, name = ?metadata.name, "deleted proxies");
            }
            Action::Recreate(workload) => {
                let deleted = self.delete(workload, DeleteParams::orphan()).await;
                deleted.map_err(ApplyError::DeleteWorkload)?;
                tracing::warn!(service = %key, "somebody has added to the proxies' workload: it is made anew");
            }
            Action::PatchStatus { uid, addresses, condition } => {
                let published = self.publish(key, uid, addresses, condition.as_ref()).await;
                published.map_err(ApplyError::PublishStatus)?;
                let addresses: Vec<_> =
                    addresses.iter().filter_map(|ingress| ingress.ip.as_deref()).collect();
                let why = condition.as_ref().map(|condition| condition.reason.as_str());
                tracing::info!(service = %key, ?addresses, why, "published the status");
            }
            Action::EmitEvent { reason, note } => {
                if let Some(service) = service {
                    let announced = self.announce(service, *reason, note).await;
                    announced.map_err(ApplyError::PublishEvent)?;
                }
            }
        }
        Ok(())
    }

    /// Tells the Service's author what keeps failing, and is being retried; once.
    pub(crate) async fn report(&self, service: &Service, error: &ApplyError) -> Result<(), ApplyError> {
        let (about, note) = (service.uid().unwrap_or_default(), events::with_causes(error));
        let before = self.reported.lock().unwrap_or_else(PoisonError::into_inner).insert(about, note.clone());
        if before.as_ref() == Some(&note) {
            return Ok(());
        }
        let announced = self.announce(service, Reason::SyncLoadBalancerFailed, &note).await;
        announced.map_err(ApplyError::PublishEvent)
    }

    /// Forgets what was reported, once it is clear_failure or the Service is gone.
    pub(crate) fn clear_failure(&self, service: &Service) {
        let about = service.uid().unwrap_or_default();
        self.reported.lock().unwrap_or_else(PoisonError::into_inner).remove(&about);
    }
}

/// Server-side apply as Akrobateo: what it says is so, whoever wrote it before.
fn apply_params() -> PatchParams {
    PatchParams::apply(akrobateo_core::FIELD_MANAGER).force()
}

/// Takes the absence of the object, the desired end of many calls, for success.
fn ignore_not_found(result: Result<(), CallError>) -> Result<(), CallError> {
    match result {
        Err(error) if error.is_gone() => Ok(()),
        other => other,
    }
}
