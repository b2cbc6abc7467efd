//! Decides which workloads and pods the operator trusts. Labels prove nothing: any tenant can set them. Pure.
//!
//! The operator trusts a workload under two conditions: this operator applied its spec, and the workload is in the
//! namespace where this operator creates workloads. Only administrators may write to the namespace that all proxies
//! share. In the namespace of a Service, the Service must own the workload. A forged workload in this namespace
//! therefore affects only this Service. The operator trusts a pod if a trusted workload controls the pod.

use std::sync::Arc;

use akrobateo_services::allocation::OccupiedPorts;
use akrobateo_services::key::ServiceKey;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};

use crate::decide::{ProxyNamespace, Workload, is_applied_by, pod_frontends};

/// The label that the Deployment controller sets on a pod. The name of the pod's replica set ends with the value of
/// this label.
const POD_TEMPLATE_HASH_LABEL: &str = "pod-template-hash";

/// Returns the Service in the labels of a workload or pod; `None` if the Service's proxies must be in another
/// namespace.
pub(super) fn service_in_labels(
    proxy_namespace: &ProxyNamespace,
    object: &impl ResourceExt,
) -> Option<ServiceKey> {
    let key = ServiceKey::from_proxy_labels(object)?;
    let namespace = match proxy_namespace {
        ProxyNamespace::SharedNamespace(namespace) => namespace,
        ProxyNamespace::ServiceNamespace => &key.namespace,
    };
    (object.namespace().as_ref() == Some(namespace)).then_some(key)
}

/// Returns true if the operator `instance` applied the workload for the Service in its labels.
pub(super) fn is_trusted(proxy_namespace: &ProxyNamespace, instance: &str, workload: &ObjectMeta) -> bool {
    let is_owned = match proxy_namespace {
        ProxyNamespace::SharedNamespace(_) => true,
        ProxyNamespace::ServiceNamespace => {
            controller(workload).is_some_and(|owner| owner.kind == Service::kind(&()))
        }
    };
    is_owned && is_applied_by(instance, workload)
}

/// Returns true if the workload controls the pod.
///
/// A Deployment controls its pods through a replica set. The replica set's name consists of the Deployment's name and
/// the hash in the pod's label, so the operator needs no right to read replica sets. Tenants can forge a pod with this
/// hash only in a namespace in which they also control the workload.
pub(super) fn controls(workload: &Workload, pod: &Pod) -> bool {
    let metadata = workload.metadata();
    let Some(owner) = controller(&pod.metadata) else { return false };
    if metadata.namespace != pod.metadata.namespace {
        return false;
    }
    match workload {
        Workload::DaemonSet(_) => metadata.uid.as_ref() == Some(&owner.uid),
        Workload::Deployment(_) => {
            let (name, hash) = (metadata.name.as_deref(), pod.labels().get(POD_TEMPLATE_HASH_LABEL));
            let replica_set = name.zip(hash).map(|(name, hash)| format!("{name}-{hash}"));
            owner.kind == "ReplicaSet" && replica_set.as_ref() == Some(&owner.name)
        }
    }
}

/// Returns the ports that all running pods of a Service have, and the nodes of these pods.
///
/// Tenants can forge a workload in their namespace, so its template proves nothing. A running pod proves that it has
/// its ports: before the kubelet sets the phase `Running`, the kubelet checks that no other pod of the node has
/// the port.
pub(super) fn ports_of_running_pods(pods: &[Arc<Pod>]) -> OccupiedPorts {
    let is_running =
        |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
    let running_pods: Vec<_> = pods.iter().filter(|pod| is_running(pod)).collect();
    let common_ports =
        running_pods.iter().map(|pod| pod_frontends(pod)).reduce(|common, ports| &common & &ports);
    let nodes = running_pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.clone());
    OccupiedPorts { frontends: common_ports.unwrap_or_default(), nodes: nodes.collect(), is_assumed: false }
}

fn controller(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use akrobateo_core::Frontend;

    use super::*;
    use crate::decide::fixtures::pod;

    #[test]
    fn held_ports_are_the_ports_of_all_running_pods() {
        let pod_with_phase = |mut pod: Pod, phase: &str| {
            pod.status.get_or_insert_default().phase = Some(phase.to_owned());
            Arc::new(pod)
        };
        let ports_and_nodes = |pods: &[Arc<Pod>]| {
            let OccupiedPorts { frontends, nodes, .. } = ports_of_running_pods(pods);
            let ports: BTreeSet<_> =
                frontends.into_iter().map(|frontend: Frontend| frontend.host_port()).collect();
            (ports.iter().map(|port| port.port).collect::<Vec<_>>(), nodes.into_iter().collect::<Vec<_>>())
        };
        let pod_with_two_ports =
            pod_with_phase(pod("a").on("n1").host_port(80).host_port(443).build(), "Running");
        let pod_with_one_port = pod_with_phase(pod("b").on("n2").host_port(80).build(), "Running");
        let refused_pod = pod_with_phase(pod("c").on("n3").host_port(22).build(), "Failed");
        let unscheduled_pod = pod_with_phase(pod("d").host_port(22).build(), "Pending");
        assert_eq!(
            ports_and_nodes(std::slice::from_ref(&pod_with_two_ports)),
            (vec![80, 443], vec!["n1".to_owned()])
        );
        assert_eq!(
            ports_and_nodes(&[pod_with_two_ports, pod_with_one_port, refused_pod, unscheduled_pod]).0,
            [80]
        );
        assert_eq!(ports_and_nodes(&[]), (vec![], vec![]));
    }
}
