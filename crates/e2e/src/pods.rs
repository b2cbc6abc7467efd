//! The pods that tests start themselves, and the readiness of pods. Does I/O.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};

use crate::backend::{EchoPod, backend_pod};
use crate::delete::delete_if_exists;
use crate::failure::{Failure, ensure, ensure_eq};
use crate::namespace::Namespace;
use crate::polling::eventually;

/// The label of the pods of a test's DaemonSet.
const DAEMONSET_LABEL: &str = "e2e-daemonset";

impl Namespace {
    /// Starts the backend, and waits until its pod is ready. The scheduler chooses the node.
    pub async fn start_backend(&self) -> Result<(), Failure> {
        self.start_pod(&backend_pod()).await.map(drop)
    }

    /// Starts the backend on this node, and waits until its pod is ready.
    pub async fn start_backend_on(&self, node: &str) -> Result<(), Failure> {
        self.start_pod(&backend_pod().on_node(node)).await.map(drop)
    }

    /// Starts a pod, and waits until it is ready. Returns the ready pod.
    pub async fn start_pod(&self, pod: &EchoPod) -> Result<Pod, Failure> {
        self.create_ready_pod(&pod.build()).await
    }

    /// Creates a pod if it does not exist. Does not wait until the pod is ready.
    pub async fn apply_pod(&self, pod: &EchoPod) -> Result<(), Failure> {
        let object = pod.build();
        let params = PatchParams::apply("e2e").force();
        self.pods().patch(&object.name_any(), &params, &Patch::Apply(&object)).await?;
        Ok(())
    }

    /// Creates a DaemonSet that starts a pod on every node. Waits until all pods are ready, and returns the pods.
    pub async fn start_pod_on_every_node(&self, pod: &EchoPod) -> Result<Vec<Pod>, Failure> {
        let Pod { metadata, spec, .. } = pod.build();
        let label = BTreeMap::from([(DAEMONSET_LABEL.to_owned(), metadata.name.clone().unwrap_or_default())]);
        let labels = metadata.labels.into_iter().flatten().chain(label.clone()).collect();
        let template_metadata = ObjectMeta { labels: Some(labels), ..ObjectMeta::default() };
        let daemonset = DaemonSet {
            metadata: ObjectMeta { name: metadata.name, ..ObjectMeta::default() },
            spec: Some(DaemonSetSpec {
                selector: LabelSelector { match_labels: Some(label), ..LabelSelector::default() },
                template: PodTemplateSpec { metadata: Some(template_metadata), spec },
                ..DaemonSetSpec::default()
            }),
            status: None,
        };
        let node_count = self.cluster().list_nodes().await?.len();
        self.daemonsets().create(&PostParams::default(), &daemonset).await?;
        eventually("a pod of the DaemonSet is ready on every node", async || {
            let pods = self.list_daemonset_pods(&daemonset.name_any()).await?;
            ensure_eq("ready pods", &pods.iter().filter(|pod| is_ready(pod)).count(), &node_count)?;
            Ok(pods)
        })
        .await
    }

    /// Returns the pods of a DaemonSet that [`Self::start_pod_on_every_node`] created.
    pub async fn list_daemonset_pods(&self, name: &str) -> Result<Vec<Pod>, Failure> {
        let params = ListParams::default().labels(&format!("{DAEMONSET_LABEL}={name}"));
        Ok(self.pods().list(&params).await?.items)
    }

    /// Deletes a DaemonSet that [`Self::start_pod_on_every_node`] created. Does not wait for the end of its pods.
    pub async fn delete_pods_on_every_node(&self, name: &str) -> Result<(), Failure> {
        self.daemonsets().delete(name, &DeleteParams::background()).await?;
        Ok(())
    }

    /// Reads a pod of this namespace.
    pub async fn get_pod(&self, name: &str) -> Result<Pod, Failure> {
        Ok(self.pods().get(name).await?)
    }

    /// Deletes a pod of this namespace.
    pub async fn delete_pod(&self, name: &str) -> Result<(), Failure> {
        self.pods().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Deletes a pod of this namespace. Succeeds if the pod does not exist.
    pub async fn delete_pod_if_exists(&self, name: &str) -> Result<(), Failure> {
        delete_if_exists(&self.pods(), name, &DeleteParams::default()).await
    }

    /// Creates a pod, and waits until it is ready. Returns the ready pod.
    pub(crate) async fn create_ready_pod(&self, pod: &Pod) -> Result<Pod, Failure> {
        self.pods().create(&PostParams::default(), pod).await?;
        let name = pod.name_any();
        eventually(&format!("pod {name} is ready"), async || {
            let pod = self.pods().get(&name).await?;
            ensure(is_ready(&pod), || format!("its status is {:?}", pod.status))?;
            Ok(pod)
        })
        .await
    }

    /// Returns the API of this namespace's pods.
    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client(), self.name())
    }

    fn daemonsets(&self) -> Api<DaemonSet> {
        Api::namespaced(self.client(), self.name())
    }
}

/// Returns true if a pod has the condition Ready and is not terminating.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Returns the number of restarts of all containers of a pod.
#[must_use]
pub fn restart_count(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.map(|status| status.restart_count).sum()
}
