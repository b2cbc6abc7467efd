//! Reads the node and the readiness of pods. Pure.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use akrobateo_core::HostPort;
use k8s_openapi::api::core::v1::{NodeSelectorTerm, Pod, PodSpec};

/// The name of the field that contains a node's name, in a field requirement of a node selector.
pub(super) const NODE_NAME_FIELD: &str = "metadata.name";

/// Returns the hostPorts of a pod.
pub(crate) fn host_ports(pod: &Pod) -> BTreeSet<HostPort> {
    pod.spec.as_ref().map(spec_host_ports).unwrap_or_default()
}

/// Returns the hostPorts in a pod's spec.
pub(super) fn spec_host_ports(spec: &PodSpec) -> BTreeSet<HostPort> {
    let ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let protocol = port.protocol.as_deref().unwrap_or("TCP").parse().ok()?;
            Some(HostPort { protocol, port: u16::try_from(port.host_port?).ok()? })
        })
        .collect()
}

/// Returns true if the scheduler has assigned a pod to this node.
pub(crate) fn runs_on(pod: &Pod, node: &str) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node)
}

/// Returns true if the scheduler has assigned the pod to a node.
pub(super) fn is_scheduled(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())
}

/// Returns the node of the pod. If the pod has no node yet, returns the only node on which the pod may run, because the
/// DaemonSet controller creates each pod for one node.
pub(super) fn target_node(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = &spec.node_name {
        return Some(node);
    }
    let mut fields = required_node_terms(spec)?.iter().flat_map(|term| term.match_fields.iter().flatten());
    let field = fields.find(|field| field.key == NODE_NAME_FIELD && field.operator == "In")?;
    field.values.as_ref()?.first().map(String::as_str)
}

/// Returns the node selector terms of the pod. A node must match at least one term. Returns `None` if the pod may run
/// on every node.
pub(super) fn required_node_terms(spec: &PodSpec) -> Option<&[NodeSelectorTerm]> {
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    Some(&affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms)
}

/// Groups the pods by their target node. Pods that may run on several nodes are omitted.
pub(super) fn pods_by_node(pods: &[Arc<Pod>]) -> HashMap<&str, Vec<&Pod>> {
    let mut pods_by_node: HashMap<&str, Vec<&Pod>> = HashMap::new();
    for pod in pods {
        if let Some(node) = target_node(pod) {
            pods_by_node.entry(node).or_default().push(pod);
        }
    }
    pods_by_node
}

/// Returns true if one of the pods on a node is ready and is not being deleted.
pub(crate) fn has_ready_pod(pods: &[Arc<Pod>], node: &str) -> bool {
    pods.iter().any(|pod| runs_on(pod, node) && is_ready(pod))
}

/// Returns the nodes with a ready pod that is not being deleted.
pub(super) fn nodes_with_ready_pod(pods: &[Arc<Pod>]) -> HashSet<&str> {
    let ready_pods = pods.iter().filter(|pod| is_ready(pod));
    ready_pods.filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref()).collect()
}

/// Returns true if one of the pods on a node is ready and forwards packets. Pods in the host's network only reserve
/// ports.
pub(super) fn has_forwarding_pod(pods: &[Arc<Pod>], node: &str) -> bool {
    let only_reserves_ports =
        |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or_default();
    pods.iter().any(|pod| runs_on(pod, node) && is_ready(pod) && !only_reserves_ports(pod))
}

/// Returns true if the pod is being deleted.
pub(super) fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Returns true if a pod is ready and is not being deleted.
pub(super) fn is_ready(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    !is_terminating(pod)
        && conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
