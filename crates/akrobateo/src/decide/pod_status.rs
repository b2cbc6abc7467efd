//! Reads the node and the readiness of pods. Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

/// Returns true if a pod is scheduled on a node.
pub(crate) fn runs_on(pod: &Pod, node: &str) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node)
}

/// Returns true if one of the pods on a node is ready and is not being deleted.
pub(crate) fn has_ready_pod(pods: &[Arc<Pod>], node: &str) -> bool {
    pods.iter().any(|pod| runs_on(pod, node) && is_ready(pod))
}

fn is_ready(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
