//! The watched kinds: the fields that the cache drops, and the trigger that a change sends. Pure.

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;

use crate::decide::foreign_fields;
use crate::key::ServiceKey;

/// A change in the cluster. The planner works out which Services need a reconciliation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// The Service itself.
    Service(ServiceKey),
    /// A workload or a pod of this Service's proxies.
    Workload(ServiceKey),
    /// An `EndpointSlice` of the Service.
    Endpoints(ServiceKey),
    /// The node with this name.
    Node(String),
    /// A watch has listed all objects of its kind. Each object may have changed since the previous list.
    ListCompleted,
}

/// The label with the name of the Service to which an `EndpointSlice` belongs
/// (<https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/>).
pub(super) const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// The rules by which objects of one kind are cached.
pub(super) struct WatchSpec<K> {
    /// Drops the fields that the operator never reads, to save memory.
    pub(super) prune: fn(&mut K),
    /// Returns the trigger to send when this object changes or is deleted.
    pub(super) trigger: fn(&K) -> Option<Trigger>,
}

/// Services keep their managedFields, which show whether the operator wrote the status.
pub(super) const fn service() -> WatchSpec<Service> {
    WatchSpec { prune: |_| (), trigger: |service| Some(Trigger::Service(ServiceKey::from_service(service))) }
}

/// Workloads of proxies keep only the managedFields of other field managers.
pub(super) const fn workload<K: ResourceExt>() -> WatchSpec<K> {
    WatchSpec {
        prune: |workload| {
            let entries = std::mem::take(workload.managed_fields_mut());
            *workload.managed_fields_mut() = foreign_fields(entries);
        },
        trigger: |workload| ServiceKey::from_proxy_labels(workload).map(Trigger::Workload),
    }
}

/// Pods of proxies have no managedFields in the cache.
pub(super) const fn pod() -> WatchSpec<Pod> {
    WatchSpec {
        prune: |pod| pod.managed_fields_mut().clear(),
        trigger: |pod| ServiceKey::from_proxy_labels(pod).map(Trigger::Workload),
    }
}

/// The cache keeps the node and the conditions of each endpoint, and drops its addresses.
pub(super) const fn endpoint_slice() -> WatchSpec<EndpointSlice> {
    WatchSpec {
        prune: |slice| {
            slice.managed_fields_mut().clear();
            slice.ports = None;
            for endpoint in slice.endpoints.iter_mut().flatten() {
                endpoint.addresses.clear();
                endpoint.target_ref = None;
            }
        },
        trigger: |slice| {
            let name = slice.labels().get(SERVICE_NAME_LABEL)?.clone();
            Some(Trigger::Endpoints(ServiceKey { namespace: slice.namespace()?, name }))
        },
    }
}

/// The cache drops the managedFields and the list of images of each Node, because they are the largest fields.
pub(super) const fn node() -> WatchSpec<Node> {
    WatchSpec {
        prune: |node| {
            node.managed_fields_mut().clear();
            if let Some(status) = &mut node.status {
                status.images = None;
            }
        },
        trigger: |node| Some(Trigger::Node(node.name_any())),
    }
}
