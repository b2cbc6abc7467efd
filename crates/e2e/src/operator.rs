//! The operator that is deployed in the cluster: stopped, killed, started again. Does I/O.

use k8s_openapi::api::apps::v1::Deployment;
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
}

impl Operator {
    /// The operator of a cluster.
    #[must_use]
    pub fn of(client: &Client) -> Self {
        Self {
            deployments: Api::namespaced(client.clone(), OPERATOR_NAMESPACE),
            pods: Api::namespaced(client.clone(), OPERATOR_NAMESPACE),
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

    /// Kills it without warning, and does not wait for the next one.
    pub async fn kill(&self) -> Result<(), Failure> {
        self.delete_pods(&DeleteParams::default().grace_period(0)).await
    }

    /// Waits until exactly one pod is there, and ready.
    pub async fn ready(&self) -> Result<Pod, Failure> {
        eventually("the operator is ready", async || {
            let mut pods = self.pods().await?;
            same("its pods", &pods.len(), &1)?;
            let pod = pods.remove(0);
            ensure(is_ready(&pod), || format!("{} is not ready", pod.name_any()))?;
            Ok(pod)
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
