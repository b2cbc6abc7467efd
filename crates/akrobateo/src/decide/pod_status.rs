//! Reads the node and the readiness of pods. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use akrobateo_core::HostPort;
use k8s_openapi::api::core::v1::{Pod, PodSpec};

/// Returns the hostPorts of a pod.
pub(crate) fn host_ports(pod: &Pod) -> BTreeSet<HostPort> {
    pod.spec.as_ref().map(spec_host_ports).unwrap_or_default()
}

/// Returns the hostPorts of a pod's spec.
pub(super) fn spec_host_ports(spec: &PodSpec) -> BTreeSet<HostPort> {
    let ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let protocol = port.protocol.as_deref().unwrap_or("TCP").parse().ok()?;
            Some(HostPort { protocol, port: u16::try_from(port.host_port?).ok()? })
        })
        .collect()
}

/// Returns true if a pod is scheduled on a node.
pub(crate) fn runs_on(pod: &Pod, node: &str) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node)
}

/// Returns true if one of the pods on a node is ready and is not being deleted.
pub(crate) fn has_ready_pod(pods: &[Arc<Pod>], node: &str) -> bool {
    pods.iter().any(|pod| runs_on(pod, node) && is_ready(pod))
}

/// Returns true if one of the pods on a node is ready and forwards. Pods in the network of the host only reserve ports.
pub(super) fn has_forwarding_pod(pods: &[Arc<Pod>], node: &str) -> bool {
    let is_reserving = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or_default();
    pods.iter().any(|pod| runs_on(pod, node) && is_ready(pod) && !is_reserving(pod))
}

fn is_ready(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
