//! Makes the changes that were decided: the only place that writes to the cluster. Does I/O.

mod events;
mod proxy;
mod status;

use std::time::Duration;

use kube::Client;
use kube::api::PatchParams;
use tokio::time::timeout;

use crate::decide::{Change, Refusal};
use crate::key::ServiceKey;
use crate::observe::Observed;
use events::Events;

/// The longest that one call may take.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// Writes to the cluster.
pub(crate) struct Writer {
    client: Client,
    events: Events,
}

/// A write that failed, by step.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// The proxies were not made or changed.
    #[error("cannot apply the proxies' DaemonSet")]
    ApplyProxy(#[source] CallError),
    /// The proxies were not removed.
    #[error("cannot delete the proxies' DaemonSet")]
    DeleteProxy(#[source] CallError),
    /// The status was not written.
    #[error("cannot write the Service's status")]
    PublishAddresses(#[source] CallError),
    /// The event was not written.
    #[error("cannot write an event")]
    PublishEvent(#[source] CallError),
}

/// How a call to the API server failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The API server refused, or could not be reached.
    #[error(transparent)]
    Failed(#[from] kube::Error),
    /// No answer within [`CALL_DEADLINE`].
    #[error("no answer within {} s", CALL_DEADLINE.as_secs())]
    TimedOut,
}

impl Writer {
    pub(crate) fn new(client: Client) -> Self {
        Self { events: Events::new(client.clone()), client }
    }

    /// Makes one change.
    pub(crate) async fn make(&self, key: &ServiceKey, change: &Change) -> Result<(), ApplyError> {
        match change {
            Change::ApplyProxy(proxy) => {
                proxy::apply(&self.client, proxy).await.map_err(ApplyError::ApplyProxy)?;
                tracing::info!(service = %key, "applied the proxies");
            }
            Change::DeleteProxy { namespace, name, uid } => {
                proxy::delete(&self.client, namespace, name, uid).await.map_err(ApplyError::DeleteProxy)?;
                tracing::info!(service = %key, namespace, name, "deleted the proxies");
            }
            Change::PublishAddresses { uid, addresses } => {
                status::publish(&self.client, key, uid, addresses)
                    .await
                    .map_err(ApplyError::PublishAddresses)?;
                let addresses: Vec<_> =
                    addresses.iter().filter_map(|ingress| ingress.ip.as_deref()).collect();
                tracing::info!(service = %key, ?addresses, "published the addresses");
            }
        }
        Ok(())
    }

    /// Tells the Service's author what they have to mend; once, not at every turn.
    pub(crate) async fn refuse(&self, observed: &Observed, refusal: &Refusal) -> Result<(), ApplyError> {
        let Some(service) = observed.service.as_deref() else { return Ok(()) };
        let published = self.events.warn(service, refusal.reason(), &refusal.to_string()).await;
        published.map_err(ApplyError::PublishEvent)
    }

    /// Tells the Service's author what keeps failing, and is being retried.
    pub(crate) async fn report(&self, observed: &Observed, error: &ApplyError) -> Result<(), ApplyError> {
        let Some(service) = observed.service.as_deref() else { return Ok(()) };
        let note = events::with_causes(error);
        self.events.warn(service, "SyncLoadBalancerFailed", &note).await.map_err(ApplyError::PublishEvent)
    }
}

/// Gives a call its deadline.
async fn call<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
    timeout(CALL_DEADLINE, request).await.map_err(|_| CallError::TimedOut)?.map_err(CallError::Failed)
}

/// Server-side apply as Akrobateo: what it says is so, whoever wrote it before.
fn as_akrobateo() -> PatchParams {
    PatchParams::apply(contract::FIELD_MANAGER).force()
}

/// Takes the absence of the object, the desired end of many calls, for success.
fn unless_gone(result: Result<(), CallError>) -> Result<(), CallError> {
    match result {
        Err(CallError::Failed(kube::Error::Api(status))) if status.is_not_found() => Ok(()),
        other => other,
    }
}
