//! The pods that tests start themselves, and the readiness of pods. Does I/O.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};

use crate::backend::{backend_pod, host_port_pod};
use crate::failure::{Failure, ensure};
use crate::namespace::Namespace;
use crate::polling::eventually;

impl Namespace {
    /// Starts the backend, and waits until its pod is ready. The scheduler chooses the node.
    pub async fn start_backend(&self) -> Result<(), Failure> {
        self.create_ready_pod(&backend_pod(None)).await
    }

    /// Starts the backend on this node, and waits until its pod is ready.
    pub async fn start_backend_on(&self, node: &str) -> Result<(), Failure> {
        self.create_ready_pod(&backend_pod(Some(node))).await
    }

    /// Starts a pod that holds a TCP port of a node as its hostPort. Waits until the pod is ready.
    pub async fn start_host_port_pod(&self, name: &str, node: &str, port: u16) -> Result<(), Failure> {
        self.create_ready_pod(&host_port_pod(name, node, port)).await
    }

    /// Deletes a pod of this namespace.
    pub async fn delete_pod(&self, name: &str) -> Result<(), Failure> {
        self.pods().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Creates a pod, and waits until it is ready.
    pub(crate) async fn create_ready_pod(&self, pod: &Pod) -> Result<(), Failure> {
        self.pods().create(&PostParams::default(), pod).await?;
        let name = pod.name_any();
        eventually(&format!("pod {name} is ready"), async || {
            let pod = self.pods().get(&name).await?;
            ensure(is_ready(&pod), || format!("its status is {:?}", pod.status))
        })
        .await
    }

    /// Returns the API of this namespace's pods.
    pub(crate) fn pods(&self) -> Api<Pod> {
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
