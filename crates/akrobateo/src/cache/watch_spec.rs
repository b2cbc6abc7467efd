//! The watched kinds: the fields that the cache drops, and the trigger that a change sends. Pure.

use akrobateo_services::key::ServiceKey;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;

use super::trust::service_in_labels;
use crate::decide::{ProxyNamespace, relevant_managed_fields};

/// A change in the cluster. The planner decides which Services need a reconciliation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// The Service itself changed.
    Service(ServiceKey),
    /// A workload or a pod of this Service's proxies changed.
    Workload(ServiceKey),
    /// An `EndpointSlice` of the Service changed.
    Endpoints(ServiceKey),
    /// The node with this name changed.
    Node(String),
    /// The Lease with this name changed. A node agent renews its Lease every few seconds.
    AgentLease(String),
    /// A watch has listed all objects of its kind. Each object may have changed since the previous list.
    ListCompleted,
}

/// The label with the name of the Service to which an `EndpointSlice` belongs
/// (<https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/>).
pub(super) const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// The rules by which objects of one kind are cached.
type WatchSpec<K> = api_client::WatchSpec<K, Trigger>;

/// Sends the triggers of all watches.
pub(crate) type TriggerSender = api_client::TriggerSender<Trigger>;

/// Services in the cache keep their managedFields, which show whether the operator wrote the status.
pub(super) fn service() -> WatchSpec<Service> {
    WatchSpec::new(|_| (), |service| Some(Trigger::Service(ServiceKey::from_service(service))))
}

/// Workloads in the cache keep only some managedFields. These show whether the operator applied the workload, and which
/// fields other managers added.
pub(super) fn workload<K: ResourceExt>(proxy_namespace: &ProxyNamespace, instance: &str) -> WatchSpec<K> {
    let (proxy_namespace, instance) = (proxy_namespace.clone(), instance.to_owned());
    WatchSpec::new(
        move |workload: &mut K| {
            let entries = std::mem::take(workload.managed_fields_mut());
            *workload.managed_fields_mut() = relevant_managed_fields(&instance, entries);
        },
        move |workload| service_in_labels(&proxy_namespace, workload).map(Trigger::Workload),
    )
}

/// The cache drops the managedFields of proxy pods.
pub(super) fn pod(proxy_namespace: &ProxyNamespace) -> WatchSpec<Pod> {
    let proxy_namespace = proxy_namespace.clone();
    WatchSpec::new(
        |pod: &mut Pod| pod.managed_fields_mut().clear(),
        move |pod| service_in_labels(&proxy_namespace, pod).map(Trigger::Workload),
    )
}

/// The cache drops the managedFields, ports, addresses and target references of endpoints.
pub(super) fn endpoint_slice() -> WatchSpec<EndpointSlice> {
    WatchSpec::new(
        |slice: &mut EndpointSlice| {
            slice.managed_fields_mut().clear();
            slice.ports = None;
            for endpoint in slice.endpoints.iter_mut().flatten() {
                endpoint.addresses.clear();
                endpoint.target_ref = None;
            }
        },
        |slice| {
            let name = slice.labels().get(SERVICE_NAME_LABEL)?.clone();
            Some(Trigger::Endpoints(ServiceKey { namespace: slice.namespace()?, name }))
        },
    )
}

/// The cache drops the managedFields and the image list of Nodes, because these fields need most of the memory of a
/// Node.
pub(super) fn node() -> WatchSpec<Node> {
    WatchSpec::new(
        |node: &mut Node| {
            node.managed_fields_mut().clear();
            if let Some(status) = &mut node.status {
                status.images = None;
            }
        },
        |node| Some(Trigger::Node(node.name_any())),
    )
}

/// The cache drops the managedFields of Leases.
pub(super) fn agent_lease() -> WatchSpec<Lease> {
    WatchSpec::new(
        |lease: &mut Lease| lease.managed_fields_mut().clear(),
        |lease| Some(Trigger::AgentLease(lease.name_any())),
    )
}
