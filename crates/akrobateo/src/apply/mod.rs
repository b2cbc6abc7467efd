//! Executes actions: the only place that writes Services, workloads and events. Does I/O.

mod events;
mod node_events;
mod pod;
mod recent_events;
mod status;
mod workload;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use akrobateo_services::key::ServiceKey;
use api_client::CallError;
use api_client::error_chain;
use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, PatchParams};
use kube::{Client, ResourceExt};

use self::recent_events::RecentEvents;
use crate::decide::Action;
use crate::host_name::host_name;
use crate::metrics::Metrics;
use crate::reason::Reason;

/// Writes to the cluster, and reports failures as events of the Services.
pub(crate) struct Writer {
    client: Client,
    /// The name of this operator: the field manager of its writes, and the source of its events.
    operator_instance: String,
    metrics: Arc<Metrics>,
    /// The name of this replica in its events.
    reporting_instance: String,
    recent_events: Mutex<RecentEvents>,
    /// The last reported failure of each Service, so that a retry does not report the same failure again.
    reported_failures: Mutex<HashMap<ServiceKey, ReportedFailure>>,
}

/// A failure that was reported as an event.
#[derive(PartialEq)]
struct ReportedFailure {
    /// The UID of the Service. A new Service with the same name gets its own report.
    service_uid: String,
    note: String,
}

/// A failed write, with one variant for each step.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// The workload was not created or changed.
    #[error("cannot apply the workload of the proxies")]
    ApplyWorkload(#[source] CallError),
    /// The workload was not deleted.
    #[error("cannot delete the workload of the proxies")]
    DeleteWorkload(#[source] CallError),
    /// The pod was not deleted.
    #[error("cannot delete a proxy pod")]
    DeletePod(#[source] CallError),
    /// The status was not written.
    #[error("cannot write the status of the Service")]
    PublishStatus(#[source] CallError),
    /// The event was not written.
    #[error("cannot write an event of the Service")]
    PublishEvent(#[source] CallError),
}

impl ApplyError {
    /// Returns the name of the step in the labels of metrics.
    pub(crate) const fn step(&self) -> &'static str {
        match self {
            Self::ApplyWorkload(_) => "apply_workload",
            Self::DeleteWorkload(_) => "delete_workload",
            Self::DeletePod(_) => "delete_pod",
            Self::PublishStatus(_) => "publish_status",
            Self::PublishEvent(_) => "publish_event",
        }
    }

    /// Returns true if another client changed or replaced the object before this write.
    pub(crate) fn is_conflict(&self) -> bool {
        match self {
            Self::ApplyWorkload(error)
            | Self::DeleteWorkload(error)
            | Self::DeletePod(error)
            | Self::PublishStatus(error)
            | Self::PublishEvent(error) => error.is_conflict(),
        }
    }
}

impl Writer {
    /// Returns a writer without reported failures.
    pub(crate) fn new(client: Client, operator_instance: &str, metrics: Arc<Metrics>) -> Self {
        let host_name = host_name();
        let reporting_instance = if host_name.is_empty() { operator_instance.to_owned() } else { host_name };
        Self {
            client,
            operator_instance: operator_instance.to_owned(),
            metrics,
            reporting_instance,
            recent_events: Mutex::default(),
            reported_failures: Mutex::default(),
        }
    }

    /// Executes one action, and returns the resourceVersion of the object after the write. Events refer to `service`;
    /// if `service` is `None`, the writer does not emit events.
    pub(crate) async fn execute(
        &self,
        key: &ServiceKey,
        service: Option<&Service>,
        action: &Action,
    ) -> Result<Option<String>, ApplyError> {
        let mut resource_version = None;
        match action {
            Action::Apply(workload) => {
                resource_version = self.apply_workload(workload).await.map_err(ApplyError::ApplyWorkload)?;
                tracing::info!(service = %key, "applied the workload of the proxies");
            }
            Action::Delete(workload) => {
                let result = self.delete_workload(workload, DeleteParams::background()).await;
                result.map_err(ApplyError::DeleteWorkload)?;
                let metadata = workload.metadata();
                tracing::info!(service = %key, namespace = ?metadata.namespace, name = ?metadata.name, "deleted the workload of the proxies");
            }
            Action::DeleteKeepingPods(workload) => {
                let result = self.delete_workload(workload, DeleteParams::orphan()).await;
                result.map_err(ApplyError::DeleteWorkload)?;
                tracing::warn!(service = %key, "recreating the workload: another field manager added fields to it");
            }
            Action::DeletePod(pod) => {
                self.delete_pod(pod).await.map_err(ApplyError::DeletePod)?;
                tracing::info!(service = %key, pod = pod.name, node = pod.node, "deleted an outdated or misplaced proxy pod");
            }
            Action::PatchStatus { uid, addresses, condition } => {
                let result = self.patch_status(key, uid, addresses, condition.as_ref()).await;
                resource_version = result.map_err(ApplyError::PublishStatus)?;
                let addresses: Vec<_> =
                    addresses.iter().filter_map(|ingress| ingress.ip.as_deref()).collect();
                let reason = condition.as_ref().map(|condition| condition.reason.as_str());
                tracing::info!(service = %key, ?addresses, reason, "wrote the status of the Service");
            }
            Action::EmitEvent { reason, note } => {
                if let Some(service) = service {
                    let result = self.emit_service_event(service, *reason, note).await;
                    result.map_err(ApplyError::PublishEvent)?;
                }
            }
        }
        Ok(resource_version)
    }

    /// Emits an event about a failure. Emits nothing if the last reported failure of the Service has the same text.
    pub(crate) async fn report_failure(
        &self,
        key: &ServiceKey,
        service: &Service,
        error: &ApplyError,
    ) -> Result<(), ApplyError> {
        let note = error_chain(error);
        let report = ReportedFailure { service_uid: service.uid().unwrap_or_default(), note: note.clone() };
        if self.reported_failures().get(key) == Some(&report) {
            return Ok(());
        }
        self.reported_failures().insert(key.clone(), report);
        let result = self.emit_service_event(service, Reason::SyncLoadBalancerFailed, &note).await;
        result.map_err(ApplyError::PublishEvent)
    }

    /// Forgets the reported failure of a Service that was reconciled or deleted.
    pub(crate) fn clear_failure(&self, key: &ServiceKey) {
        self.reported_failures().remove(key);
    }

    /// Forgets all reported failures, so that each remaining failure is reported again.
    pub(crate) fn clear_failures(&self) {
        self.reported_failures().clear();
    }

    /// Returns the parameters of server-side apply. The operator takes over fields that other field managers own.
    fn apply_params(&self) -> PatchParams {
        PatchParams::apply(&self.operator_instance).force()
    }

    fn reported_failures(&self) -> MutexGuard<'_, HashMap<ServiceKey, ReportedFailure>> {
        self.reported_failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Converts "not found" into success, because a missing object needs no write.
fn ignore_not_found<T: Default>(result: Result<T, CallError>) -> Result<T, CallError> {
    match result {
        Err(error) if error.is_not_found() => Ok(T::default()),
        result => result,
    }
}
