//! The node agents that are deployed in the cluster. Does I/O.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::cluster::Cluster;
use crate::container_env::build_env_patch;
use crate::delete::delete_if_exists;
use crate::failure::{Failure, ensure, ensure_eq};
use crate::operator::OPERATOR_NAMESPACE;
use crate::pods::is_ready;
use crate::polling::eventually;

const AGENTS_NAME: &str = "akrobateo-agent";

/// The node agents that are deployed in the cluster.
pub struct Agents {
    daemonsets: Api<DaemonSet>,
    pods: Api<Pod>,
    leases: Api<Lease>,
}

impl Agents {
    /// Returns the agents of a cluster.
    #[must_use]
    pub fn new(cluster: &Cluster) -> Self {
        Self {
            daemonsets: Api::namespaced(cluster.client.clone(), OPERATOR_NAMESPACE),
            pods: Api::namespaced(cluster.client.clone(), OPERATOR_NAMESPACE),
            leases: Api::namespaced(cluster.client.clone(), OPERATOR_NAMESPACE),
        }
    }

    /// Returns the agents' pods, including terminating pods.
    pub async fn list_pods(&self) -> Result<Vec<Pod>, Failure> {
        let params = ListParams::default().labels(&format!("app.kubernetes.io/name={AGENTS_NAME}"));
        Ok(self.pods.list(&params).await?.items)
    }

    /// Returns the pod of the agent on a node.
    pub async fn get_pod_on_node(&self, node: &str) -> Result<Pod, Failure> {
        let pods = self.list_pods().await?;
        let is_on_node =
            |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_deref() == Some(node));
        let pod = pods.into_iter().find(|pod| is_on_node(pod) && pod.metadata.deletion_timestamp.is_none());
        pod.ok_or_else(|| Failure::UnexpectedState(format!("node {node} has no agent")))
    }

    /// Returns the time at which the agent of a node has last renewed its Lease.
    pub async fn get_renew_time(&self, node: &str) -> Result<Timestamp, Failure> {
        let name = format!("akrobateo-{node}");
        let lease = self.leases.get(&name).await?.spec.unwrap_or_default();
        let renew_time = lease.renew_time.map(|time| time.0);
        renew_time.ok_or_else(|| Failure::UnexpectedState(format!("Lease {name} has no renew time")))
    }

    /// Deletes a pod gracefully. The `DaemonSet` starts another pod.
    pub async fn delete_pod(&self, pod: &Pod) -> Result<(), Failure> {
        delete_if_exists(&self.pods, &pod.name_any(), &DeleteParams::default()).await
    }

    /// Waits until all agents run the current template and are ready.
    pub async fn wait_rolled_out(&self) -> Result<(), Failure> {
        eventually("the agents are rolled out", async || {
            let daemonset = self.daemonsets.get(AGENTS_NAME).await?;
            let status = daemonset.status.unwrap_or_default();
            ensure(status.observed_generation >= daemonset.metadata.generation, || {
                format!("the observed generation is {:?}", status.observed_generation)
            })?;
            let desired = Some(status.desired_number_scheduled);
            ensure_eq("updated agents", &status.updated_number_scheduled, &desired)?;
            ensure_eq("available agents", &status.number_available, &desired)?;
            let pods = self.list_pods().await?;
            ensure(pods.iter().all(is_ready), || "an agent is not ready".to_owned())
        })
        .await
    }

    /// Replaces all agents, as an upgrade does, and waits until the new agents are ready.
    pub async fn upgrade(&self, version: &str) -> Result<(), Failure> {
        let annotations = json!({ "e2e.akrobateo.io/version": version });
        let patch = json!({ "spec": { "template": { "metadata": { "annotations": annotations } } } });
        self.daemonsets.patch(AGENTS_NAME, &PatchParams::default(), &Patch::Strategic(patch)).await?;
        self.wait_rolled_out().await
    }

    /// Sets an environment variable, and waits until all agents have started with the variable. `None` removes the
    /// variable.
    pub(crate) async fn set_environment_variable(
        &self,
        name: &str,
        value: Option<&str>,
    ) -> Result<(), Failure> {
        self.daemonsets
            .patch(AGENTS_NAME, &PatchParams::default(), &build_env_patch(AGENTS_NAME, name, value))
            .await?;
        self.wait_rolled_out().await
    }

    /// Restricts the agents to the nodes with this label. `None` allows the agents on all nodes.
    pub async fn set_node_selector(&self, label: Option<(&str, &str)>) -> Result<(), Failure> {
        let selector = match label {
            Some((name, value)) => json!({ "kubernetes.io/os": "linux", name: value }),
            None => json!({ "$patch": "replace", "kubernetes.io/os": "linux" }),
        };
        let patch = json!({ "spec": { "template": { "spec": { "nodeSelector": selector } } } });
        self.daemonsets.patch(AGENTS_NAME, &PatchParams::default(), &Patch::Strategic(patch)).await?;
        Ok(())
    }
}
