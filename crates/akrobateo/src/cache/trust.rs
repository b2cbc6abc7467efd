//! Decides which workloads and pods the operator believes. Labels prove nothing: any tenant can set them. Pure.
//!
//! A workload is believed if it is in the place where this operator creates workloads, and if this operator applied its
//! spec. Only administrators may write to the namespace that all proxies share. In the namespace of a Service the
//! Service must own the workload, so a forged workload there can only affect that Service. A pod is believed if such a
//! workload controls it.

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};

use crate::decide::{Placement, Workload, is_applied_by};
use crate::key::ServiceKey;

/// The label that the Deployment controller sets on a pod, with the end of the name of the pod's replica set.
const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// Returns the Service in the labels of a workload or pod, unless the object is in another place than the proxies of that
/// Service.
pub(super) fn service_of(placement: &Placement, object: &impl ResourceExt) -> Option<ServiceKey> {
    let key = ServiceKey::from_proxy_labels(object)?;
    let namespace = match placement {
        Placement::Shared(namespace) => namespace,
        Placement::ServiceNamespace => &key.namespace,
    };
    (object.namespace().as_ref() == Some(namespace)).then_some(key)
}

/// Returns true if the operator `instance` applied the workload for the Service in its labels.
pub(super) fn is_trusted(placement: &Placement, instance: &str, workload: &ObjectMeta) -> bool {
    let is_owned = match placement {
        Placement::Shared(_) => true,
        Placement::ServiceNamespace => {
            controller(workload).is_some_and(|owner| owner.kind == Service::kind(&()))
        }
    };
    is_owned && is_applied_by(instance, workload)
}

/// Returns true if the workload controls the pod.
///
/// A replica set is between a Deployment and its pods. Its name is that of the Deployment and the hash in the pod's label.
/// To read it would need a further right. In a namespace where tenants can forge this, the workload is their own.
pub(super) fn controls(workload: &Workload, pod: &Pod) -> bool {
    let metadata = workload.metadata();
    let Some(owner) = controller(&pod.metadata) else { return false };
    if metadata.namespace != pod.metadata.namespace {
        return false;
    }
    match workload {
        Workload::DaemonSet(_) => metadata.uid.as_ref() == Some(&owner.uid),
        Workload::Deployment(_) => {
            let (name, hash) = (metadata.name.as_deref(), pod.labels().get(POD_TEMPLATE_HASH));
            let replica_set = name.zip(hash).map(|(name, hash)| format!("{name}-{hash}"));
            owner.kind == "ReplicaSet" && replica_set.as_ref() == Some(&owner.name)
        }
    }
}

fn controller(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}
