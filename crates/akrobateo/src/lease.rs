//! Leader election: of several replicas, the one that holds the Lease writes. Does I/O.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::{Instant, sleep};

use crate::call::{CallError, call};
use crate::metrics::Metrics;

/// The Lease's name, in the operator's namespace.
const NAME: &str = "akrobateo";
/// How long the others wait after the leader's last renewal.
const DURATION: Duration = Duration::from_secs(15);
/// How long the leader goes on without a renewal: less, so that there are never two.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Between attempts, to renew as to acquire.
const RETRY: Duration = Duration::from_secs(2);

/// One replica's part in the election.
pub(crate) struct Election {
    api: Api<Lease>,
    identity: String,
    metrics: Arc<Metrics>,
}

/// A Lease as seen when its holder last changed it, by this replica's clock: clocks of others are not trusted.
struct ObservedRecord {
    version: Option<String>,
    at: Instant,
}

/// How an attempt to become the leader ended.
enum Attempt {
    Taken,
    /// Another replica is the leader.
    HeldBy(String),
    /// Another replica was quicker.
    Conflict,
}

impl Election {
    pub(crate) fn new(client: Client, namespace: &str, identity: String, metrics: Arc<Metrics>) -> Self {
        Self { api: Api::namespaced(client, namespace), identity, metrics }
    }

    /// Waits until this replica is the leader.
    pub(crate) async fn acquire(&self) {
        let mut seen = ObservedRecord { version: None, at: Instant::now() };
        let mut waiting_for = None;
        loop {
            match self.try_acquire(&mut seen).await {
                Ok(Attempt::Taken) => return,
                Ok(Attempt::HeldBy(holder)) if waiting_for.as_ref() != Some(&holder) => {
                    tracing::info!(leader = holder, "another replica is the leader; waiting");
                    waiting_for = Some(holder);
                }
                Ok(Attempt::HeldBy(_) | Attempt::Conflict) => (),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot read or take the Lease");
                }
            }
            sleep(RETRY).await;
        }
    }

    /// Stays the leader; returns when it is so no longer.
    pub(crate) async fn keep(&self) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < RENEW_DEADLINE {
            sleep(RETRY).await;
            match tokio::time::timeout(RENEW_DEADLINE.saturating_sub(renewed.elapsed()), self.renew()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) | Err(_) => return,
                Ok(Err(error)) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot renew the Lease");
                }
            }
        }
    }

    /// Gives the Lease up, so that another replica need not wait for its end.
    pub(crate) async fn release(&self) -> Result<(), CallError> {
        let Some(mut lease) = self.read().await?.filter(|lease| self.holds(lease)) else { return Ok(()) };
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
        }
        self.replace(&lease).await.map(drop)
    }

    async fn try_acquire(&self, seen: &mut ObservedRecord) -> Result<Attempt, CallError> {
        let attempt = |taken| if taken { Attempt::Taken } else { Attempt::Conflict };
        let Some(lease) = self.read().await? else { return self.create().await.map(attempt) };
        if seen.version != lease.metadata.resource_version {
            *seen = ObservedRecord { version: lease.metadata.resource_version.clone(), at: Instant::now() };
        }
        match holder(&lease) {
            Some(other) if other != self.identity && seen.at.elapsed() <= DURATION => {
                Ok(Attempt::HeldBy(other.to_owned()))
            }
            _ => self.replace(&self.taken(&lease)).await.map(attempt),
        }
    }

    async fn renew(&self) -> Result<bool, CallError> {
        match self.read().await? {
            Some(lease) if self.holds(&lease) => self.replace(&Self::renewed(&lease)).await,
            _ => Ok(false),
        }
    }

    fn holds(&self, lease: &Lease) -> bool {
        holder(lease) == Some(&self.identity)
    }

    async fn read(&self) -> Result<Option<Lease>, CallError> {
        call(&self.metrics, "read_lease", self.api.get_opt(NAME)).await
    }

    async fn create(&self) -> Result<bool, CallError> {
        let mut lease = self.taken(&Lease::default());
        lease.metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
        let created =
            call(&self.metrics, "create_lease", self.api.create(&PostParams::default(), &lease)).await;
        false_on_conflict(created)
    }

    /// Guarded by the resourceVersion: of two that take the Lease at once, one fails.
    async fn replace(&self, lease: &Lease) -> Result<bool, CallError> {
        let params = PostParams::default();
        false_on_conflict(call(&self.metrics, "write_lease", self.api.replace(NAME, &params, lease)).await)
    }

    fn renewed(lease: &Lease) -> Lease {
        let mut lease = lease.clone();
        let spec = lease.spec.get_or_insert_default();
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        lease
    }

    fn taken(&self, lease: &Lease) -> Lease {
        let mut lease = Self::renewed(lease);
        let before = lease.spec.take().unwrap_or_default();
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: before.renew_time.clone(),
            lease_transitions: Some(before.lease_transitions.unwrap_or_default().saturating_add(1)),
            ..before
        });
        lease
    }
}

/// Who holds a Lease, unless it was given up.
fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

fn false_on_conflict(written: Result<Lease, CallError>) -> Result<bool, CallError> {
    match written {
        Ok(_) => Ok(true),
        Err(error) if error.is_conflict() => Ok(false),
        Err(error) => Err(error),
    }
}
