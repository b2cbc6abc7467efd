//! Leader election: only the replica that holds the Lease writes. Does I/O.

mod record;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use api_client::{CallError, call};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};

use self::record::{
    ElectionStep, ObservedRecord, holder, next_step, proxy_namespace, with_holder, with_proxy_namespace,
    without_holder,
};
use crate::decide::ProxyConfig;
use crate::metrics::Metrics;

/// The longest time for which the leader works without a renewal. The deadline is shorter than the Lease's duration, so
/// that two replicas are never leaders at the same time.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// The time between two attempts to acquire or to renew.
const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// Acquires, renews and releases the Lease for one replica.
pub(crate) struct LeaderElector {
    api: Api<Lease>,
    /// The name of the Lease, which is the name of the operator instance.
    lease_name: String,
    identity: String,
    /// The namespace of the proxies (`--lb-namespace`), which the Lease records.
    proxy_namespace: String,
    metrics: Arc<Metrics>,
}

impl LeaderElector {
    /// Returns an elector for a Lease in `namespace`. Each replica must have its own `identity`.
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        proxy_config: &ProxyConfig,
        identity: String,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            lease_name: proxy_config.instance.clone(),
            identity,
            proxy_namespace: proxy_config.proxy_namespace.to_string(),
            metrics,
        }
    }

    /// Waits until this replica is the leader. Returns the start time of the request that acquired the Lease.
    pub(crate) async fn acquire(&self) -> Instant {
        let mut record = ObservedRecord::default();
        let mut reported_leader = None;
        loop {
            let attempted_at = Instant::now();
            match self.try_acquire(&mut record).await {
                Ok(ElectionStep::Wait(leader)) if reported_leader.as_ref() != Some(&leader) => {
                    tracing::info!(leader, "another replica is the leader; waiting");
                    reported_leader = Some(leader);
                }
                Ok(ElectionStep::Wait(_)) => (),
                Ok(ElectionStep::Create | ElectionStep::Acquire) => return attempted_at,
                // Another replica has written the Lease first. The next attempt reads this Lease.
                Err(error) if error.is_conflict() => (),
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot read or write the Lease; trying again"
                    );
                }
            }
            sleep(RETRY_PERIOD).await;
        }
    }

    /// Renews the Lease until this replica is no longer the leader. `renewed_at` is the time when this replica acquired
    /// the Lease.
    ///
    /// The deadline starts at the start of a request, because the API server may write the Lease long before the answer
    /// arrives. The other replicas measure the Lease's duration from this write.
    pub(crate) async fn hold(&self, mut renewed_at: Instant) {
        while renewed_at.elapsed() < RENEW_DEADLINE {
            sleep(RETRY_PERIOD).await;
            let attempted_at = Instant::now();
            match timeout(RENEW_DEADLINE.saturating_sub(renewed_at.elapsed()), self.renew()).await {
                Ok(Ok(true)) => renewed_at = attempted_at,
                Ok(Ok(false)) | Err(_) => return,
                Ok(Err(error)) if error.is_conflict() => return,
                Ok(Err(error)) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot renew the Lease; trying again"
                    );
                }
            }
        }
    }

    /// Removes this replica from the Lease, so that another replica can acquire the Lease immediately.
    pub(crate) async fn release(&self) -> Result<(), CallError> {
        match self.read_lease().await? {
            Some(lease) if self.is_holder(&lease) => {
                match self.replace_lease(&without_holder(&lease)).await {
                    Err(error) if !error.is_conflict() => Err(error),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Waits until the Lease can be read. Returns the `--lb-namespace` that the last leader recorded; `None` if no
    /// leader has recorded a namespace.
    pub(crate) async fn recorded_proxy_namespace(&self) -> Option<String> {
        loop {
            match self.read_lease().await {
                Ok(lease) => return lease.as_ref().and_then(proxy_namespace).map(str::to_owned),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "cannot read the Lease; trying again");
                }
            }
            sleep(RETRY_PERIOD).await;
        }
    }

    async fn try_acquire(&self, record: &mut ObservedRecord) -> Result<ElectionStep, CallError> {
        record.observe(self.read_lease().await?, Instant::now());
        let step = next_step(&self.identity, record, Instant::now());
        match (&step, &record.lease) {
            (ElectionStep::Acquire, Some(lease)) => {
                self.replace_lease(&self.with_self_as_holder(lease)).await?;
            }
            (ElectionStep::Create, _) => self.create_lease().await?,
            _ => (),
        }
        Ok(step)
    }

    /// Returns false if this replica no longer holds the Lease.
    async fn renew(&self) -> Result<bool, CallError> {
        match self.read_lease().await? {
            Some(lease) if self.is_holder(&lease) => {
                self.replace_lease(&self.with_self_as_holder(&lease)).await.map(|()| true)
            }
            _ => Ok(false),
        }
    }

    fn is_holder(&self, lease: &Lease) -> bool {
        holder(lease) == Some(&self.identity)
    }

    fn with_self_as_holder(&self, lease: &Lease) -> Lease {
        with_proxy_namespace(with_holder(lease, &self.identity, Timestamp::now()), &self.proxy_namespace)
    }

    async fn read_lease(&self) -> Result<Option<Lease>, CallError> {
        call(&self.metrics.api, "read_lease", self.api.get_opt(&self.lease_name)).await
    }

    async fn create_lease(&self) -> Result<(), CallError> {
        let metadata = ObjectMeta { name: Some(self.lease_name.clone()), ..ObjectMeta::default() };
        let lease = self.with_self_as_holder(&Lease { metadata, spec: None });
        call(&self.metrics.api, "create_lease", self.api.create(&PostParams::default(), &lease))
            .await
            .map(drop)
    }

    /// Replaces the Lease. The resource version in the Lease makes the request fail if another replica wrote first.
    async fn replace_lease(&self, lease: &Lease) -> Result<(), CallError> {
        let params = PostParams::default();
        call(&self.metrics.api, "write_lease", self.api.replace(&self.lease_name, &params, lease))
            .await
            .map(drop)
    }
}
