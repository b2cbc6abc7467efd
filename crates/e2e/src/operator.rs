//! The operator that is deployed in the cluster: stopped, killed, started again. Does I/O.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use crate::backend::is_ready;
use crate::proxies::OPERATOR_NAMESPACE;
use crate::{Failure, ensure, eventually, same};

/// The operator's pods and no others.
pub(crate) const SELECTOR: &str = "app.kubernetes.io/name=akrobateo";
const NAME: &str = "akrobateo";

/// The Deployment of the operator under test.
pub struct Operator {
    deployments: Api<Deployment>,
    pods: Api<Pod>,
    leases: Api<Lease>,
}

impl Operator {
    /// The operator of a cluster.
    #[must_use]
    pub fn of(client: &Client) -> Self {
        Self {
            deployments: Api::namespaced(client.clone(), OPERATOR_NAMESPACE),
            pods: Api::namespaced(client.clone(), OPERATOR_NAMESPACE),
            leases: Api::namespaced(client.clone(), OPERATOR_NAMESPACE),
        }
    }

    /// Its pods, those that terminate included.
    pub async fn pods(&self) -> Result<Vec<Pod>, Failure> {
        Ok(self.pods.list(&ListParams::default().labels(SELECTOR)).await?.items)
    }

    /// Takes it away, and waits until it is gone.
    pub async fn stop(&self) -> Result<(), Failure> {
        self.scale(0).await?;
        eventually("the operator is gone", async || {
            let pods: Vec<_> = self.pods().await?.iter().map(ResourceExt::name_any).collect();
            same("its pods", &pods, &vec![])
        })
        .await
    }

    /// Sets it up, unless it is, and waits until it has read the cluster's state.
    pub async fn start(&self) -> Result<Pod, Failure> {
        self.scale(1).await?;
        self.ready().await
    }

    /// Lets another pod take over, as a rollout does; gives that pod.
    pub async fn restart(&self) -> Result<Pod, Failure> {
        self.delete_pods(&DeleteParams::default()).await?;
        self.ready().await
    }

    /// Removes its pods at once, although they may have a moment to end; does not wait for the next one.
    pub async fn kill(&self) -> Result<(), Failure> {
        self.delete_pods(&DeleteParams::default().grace_period(0)).await
    }

    /// Waits until exactly one pod is there, and ready.
    pub async fn ready(&self) -> Result<Pod, Failure> {
        Ok(self.ready_pods(1).await?.remove(0))
    }

    /// Sets up several replicas, and waits until they are ready.
    pub async fn replicas(&self, replicas: u8) -> Result<Vec<Pod>, Failure> {
        self.scale(replicas).await?;
        self.ready_pods(replicas.into()).await
    }

    /// The pod that leads, once one does: what holds the Lease may have died.
    pub async fn leader(&self) -> Result<String, Failure> {
        self.next_leader("").await
    }

    /// The pod that leads, once it is another than `before`.
    pub async fn next_leader(&self, before: &str) -> Result<String, Failure> {
        eventually("an operator leads", async || {
            let holder = self.holder().await?;
            let pods: Vec<_> = self.pods().await?.iter().map(ResourceExt::name_any).collect();
            ensure(holder != before && pods.contains(&holder), || {
                format!("{holder} holds the Lease: {pods:?}")
            })?;
            Ok(holder)
        })
        .await
    }

    /// The pod that holds the Lease: its name is its host's, which begins the holder's identity.
    async fn holder(&self) -> Result<String, Failure> {
        let lease = self.leases.get(NAME).await?.spec.unwrap_or_default();
        let holder = lease.holder_identity.unwrap_or_default();
        let pod = holder.split('_').next().filter(|pod| !pod.is_empty());
        pod.map(str::to_owned).ok_or_else(|| Failure::Unmet(format!("nobody holds the Lease: {holder:?}")))
    }

    /// One of its pods.
    pub async fn pod(&self, name: &str) -> Result<Pod, Failure> {
        Ok(self.pods.get(name).await?)
    }

    /// Tells one pod to end, as a rollout does.
    pub async fn end_pod(&self, name: &str) -> Result<(), Failure> {
        self.pods.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    async fn ready_pods(&self, wanted: usize) -> Result<Vec<Pod>, Failure> {
        eventually("the operator is ready", async || {
            let pods = self.pods().await?;
            let ready = pods.iter().filter(|pod| is_ready(pod)).count();
            same("its pods, and those that are ready", &(pods.len(), ready), &(wanted, wanted))?;
            Ok(pods)
        })
        .await
    }

    async fn delete_pods(&self, params: &DeleteParams) -> Result<(), Failure> {
        for pod in self.pods().await? {
            match self.pods.delete(&pod.name_any(), params).await {
                Err(kube::Error::Api(status)) if status.is_not_found() => (),
                outcome => drop(outcome?),
            }
        }
        Ok(())
    }

    async fn scale(&self, replicas: u8) -> Result<(), Failure> {
        let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
        self.deployments.patch(NAME, &PatchParams::default(), &patch).await?;
        Ok(())
    }
}
