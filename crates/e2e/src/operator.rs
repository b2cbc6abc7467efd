//! The operator that is deployed in the cluster: scales it, kills it, and finds its leader. Does I/O.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::time::Instant;

use crate::cluster::NodeAddresses;
use crate::container_env::build_env_patch;
use crate::delete::delete_if_exists;
use crate::failure::{Failure, ensure, ensure_eq};
use crate::pods::is_ready;
use crate::polling::{eventually, eventually_within};

/// The namespace of the proxies.
pub const PROXIES_NAMESPACE: &str = "akrobateo-proxies";
/// The namespace of the operator.
pub const OPERATOR_NAMESPACE: &str = "kube-system";
/// The name of the operator's ServiceAccount.
pub const OPERATOR_ACCOUNT: &str = "akrobateo";
/// The label selector of the operator's pods.
pub(crate) const OPERATOR_SELECTOR: &str = "app.kubernetes.io/name=akrobateo";

const OPERATOR_NAME: &str = "akrobateo";

/// The Deployment of the operator under test.
pub struct Operator {
    deployments: Api<Deployment>,
    pods: Api<Pod>,
    leases: Api<Lease>,
}

impl Operator {
    /// Returns the operator of the cluster that `client` is connected to.
    #[must_use]
    pub fn new(client: &Client) -> Self {
        Self {
            deployments: Api::namespaced(client.clone(), OPERATOR_NAMESPACE),
            pods: Api::namespaced(client.clone(), OPERATOR_NAMESPACE),
            leases: Api::namespaced(client.clone(), OPERATOR_NAMESPACE),
        }
    }

    /// Returns the operator's pods, including terminating pods.
    pub async fn list_pods(&self) -> Result<Vec<Pod>, Failure> {
        Ok(self.pods.list(&ListParams::default().labels(OPERATOR_SELECTOR)).await?.items)
    }

    /// Scales the operator to zero replicas, and waits until it has no pods.
    pub async fn stop(&self) -> Result<(), Failure> {
        self.scale(0).await?;
        eventually("the operator has no pods", async || {
            ensure_eq("the operator's pods", &self.pod_names().await?, &vec![])
        })
        .await?;
        self.remove_recorded_proxy_namespace().await
    }

    /// Removes the recorded namespace of the proxies from the Lease, so that an operator with another proxy namespace
    /// can start.
    async fn remove_recorded_proxy_namespace(&self) -> Result<(), Failure> {
        let patch = json!({ "metadata": { "annotations": { "akrobateo.io/lb-namespace": null } } });
        match self.leases.patch(OPERATOR_NAME, &PatchParams::default(), &Patch::Merge(patch)).await {
            // Without a Lease there is no recorded namespace.
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            result => Ok(result.map(drop)?),
        }
    }

    /// Scales the operator to one replica, and waits until its pod is ready.
    pub async fn start(&self) -> Result<Pod, Failure> {
        self.remove_recorded_proxy_namespace().await?;
        self.scale(1).await?;
        self.wait_ready().await
    }

    /// Returns a node that does not run the operator, and all other nodes of `nodes`.
    pub async fn select_node_without_operator(
        &self,
        mut nodes: Vec<NodeAddresses>,
    ) -> Result<(NodeAddresses, Vec<NodeAddresses>), Failure> {
        let operator_node = self.wait_ready().await?.spec.and_then(|pod| pod.node_name);
        let index = nodes.iter().position(|node| Some(&node.name) != operator_node.as_ref());
        let index = index.ok_or_else(|| {
            let node_count = nodes.len();
            Failure::UnexpectedState(format!("the cluster has {node_count} nodes, expected at least two"))
        })?;
        Ok((nodes.remove(index), nodes))
    }

    /// Deletes the operator's pods gracefully, and waits until the new pod is ready. Returns the new pod.
    pub async fn restart(&self) -> Result<Pod, Failure> {
        self.delete_pods(&DeleteParams::default()).await?;
        self.wait_ready().await
    }

    /// Sets an environment variable, and waits until the operator has started with the variable. `None` removes the
    /// variable.
    pub(crate) async fn set_environment_variable(
        &self,
        name: &str,
        value: Option<&str>,
    ) -> Result<(), Failure> {
        let patch = build_env_patch(OPERATOR_NAME, name, value);
        let deployment = self.deployments.patch(OPERATOR_NAME, &PatchParams::default(), &patch).await?;
        eventually("the operator is rolled out with the changed setting", async || {
            let status = self.deployments.get(OPERATOR_NAME).await?.status.unwrap_or_default();
            ensure(status.observed_generation >= deployment.metadata.generation, || {
                format!("the observed generation is {:?}", status.observed_generation)
            })?;
            ensure_eq(
                "updated replicas, all replicas",
                &(status.updated_replicas, status.replicas),
                &(Some(1), Some(1)),
            )
        })
        .await?;
        self.wait_ready().await.map(drop)
    }

    /// Returns true if the Deployment sets this environment variable.
    pub(crate) async fn has_environment_variable(&self, name: &str) -> Result<bool, Failure> {
        let pod_spec = self.deployments.get(OPERATOR_NAME).await?.spec.and_then(|spec| spec.template.spec);
        let containers = pod_spec.into_iter().flat_map(|spec| spec.containers);
        Ok(containers
            .flat_map(|container| container.env.unwrap_or_default())
            .any(|variable| variable.name == name))
    }

    /// Deletes the operator's pods without a grace period. Does not wait for a new pod.
    pub async fn kill(&self) -> Result<(), Failure> {
        self.delete_pods(&DeleteParams::default().grace_period(0)).await
    }

    /// Waits until the operator has exactly one pod, and this pod is ready.
    pub async fn wait_ready(&self) -> Result<Pod, Failure> {
        Ok(self.wait_ready_pods(1).await?.remove(0))
    }

    /// Scales the operator to several replicas, and waits until all pods are ready.
    pub async fn start_replicas(&self, replicas: u8) -> Result<Vec<Pod>, Failure> {
        self.scale(replicas).await?;
        self.wait_ready_pods(replicas.into()).await
    }

    /// Waits until an existing pod holds the Lease, and returns the pod's name.
    pub async fn wait_leader(&self) -> Result<String, Failure> {
        self.wait_leader_other_than("").await
    }

    /// Waits until an existing pod other than `previous_leader` holds the Lease, and returns the pod's name.
    pub async fn wait_leader_other_than(&self, previous_leader: &str) -> Result<String, Failure> {
        eventually("another pod of the operator is the leader", async || {
            self.find_other_leader(previous_leader).await
        })
        .await
    }

    /// Waits like [`Self::wait_leader_other_than`], but with this deadline. Returns the time until the takeover.
    pub async fn wait_takeover(
        &self,
        previous_leader: &str,
        deadline: Duration,
    ) -> Result<Duration, Failure> {
        let started_at = Instant::now();
        eventually_within(deadline, "another pod of the operator is the leader", async || {
            self.find_other_leader(previous_leader).await
        })
        .await?;
        Ok(started_at.elapsed())
    }

    async fn find_other_leader(&self, previous_leader: &str) -> Result<String, Failure> {
        let holder = self.get_lease_holder().await?;
        let pods = self.pod_names().await?;
        ensure(holder != previous_leader && pods.contains(&holder), || {
            format!("{holder} holds the Lease; the operator's pods are {pods:?}")
        })?;
        Ok(holder)
    }

    /// Returns the pod that holds the Lease. The holder's identity begins with the pod's name.
    async fn get_lease_holder(&self) -> Result<String, Failure> {
        let lease = self.leases.get(OPERATOR_NAME).await?.spec.unwrap_or_default();
        let identity = lease.holder_identity.unwrap_or_default();
        let pod = identity.split('_').next().filter(|pod| !pod.is_empty());
        pod.map(str::to_owned).ok_or_else(|| {
            Failure::UnexpectedState(format!("no pod holds the Lease; the holder's identity is {identity:?}"))
        })
    }

    /// Reads one of the operator's pods.
    pub async fn get_pod(&self, name: &str) -> Result<Pod, Failure> {
        Ok(self.pods.get(name).await?)
    }

    /// Deletes one pod gracefully, as a rollout does.
    pub async fn delete_pod(&self, name: &str) -> Result<(), Failure> {
        self.pods.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    async fn wait_ready_pods(&self, count: usize) -> Result<Vec<Pod>, Failure> {
        eventually("the operator's pods are ready", async || {
            let pods = self.list_pods().await?;
            let ready_count = pods.iter().filter(|pod| is_ready(pod)).count();
            ensure_eq("number of pods, and of ready pods", &(pods.len(), ready_count), &(count, count))?;
            Ok(pods)
        })
        .await
    }

    async fn pod_names(&self) -> Result<Vec<String>, Failure> {
        Ok(self.list_pods().await?.iter().map(ResourceExt::name_any).collect())
    }

    async fn delete_pods(&self, params: &DeleteParams) -> Result<(), Failure> {
        for pod in self.pod_names().await? {
            delete_if_exists(&self.pods, &pod, params).await?;
        }
        Ok(())
    }

    async fn scale(&self, replicas: u8) -> Result<(), Failure> {
        let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
        self.deployments.patch(OPERATOR_NAME, &PatchParams::default(), &patch).await?;
        Ok(())
    }
}
