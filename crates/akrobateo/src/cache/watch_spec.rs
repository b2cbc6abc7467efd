//! The watched kinds: the fields that the cache drops, and the trigger that a change sends. Pure.

use akrobateo_services::key::ServiceKey;
use api_client::NoIndex;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Container, Node, NodeStatus, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
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
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// The annotation in which kubectl stores the whole object
/// (<https://kubernetes.io/docs/reference/labels-annotations-taints/>).
const LAST_APPLIED_ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The rules by which objects of one kind are cached.
type WatchSpec<K, I = NoIndex> = api_client::WatchSpec<K, Trigger, I>;

/// Sends the triggers of all watches.
pub(crate) type TriggerSender = api_client::TriggerSender<Trigger>;

/// Services in the cache keep the managedFields of their status, which show whether the operator wrote the status.
pub(super) fn service() -> WatchSpec<Service> {
    let prune = |service: &mut Service| {
        service.managed_fields_mut().retain(|entry| entry.subresource.as_deref() == Some("status"));
        service.annotations_mut().remove(LAST_APPLIED_ANNOTATION);
        let status = service.status.as_mut().and_then(|status| status.load_balancer.as_mut());
        if let Some(addresses) = status.and_then(|status| status.ingress.as_mut()) {
            addresses.shrink_to_fit();
        }
    };
    WatchSpec::new(prune, |service| Some(Trigger::Service(ServiceKey::from_service(service))))
}

/// Workloads in the cache keep only some managedFields. These show whether the operator applied the workload, and which
/// fields other managers added. The index finds the workloads of a Service.
pub(super) fn workload<K: ResourceExt + 'static>(
    proxy_namespace: &ProxyNamespace,
    instance: &str,
) -> WatchSpec<K, ServiceKey> {
    let (proxy_namespace, instance) = (proxy_namespace.clone(), instance.to_owned());
    WatchSpec::new(
        move |workload: &mut K| {
            let entries = std::mem::take(workload.managed_fields_mut());
            *workload.managed_fields_mut() = relevant_managed_fields(&instance, entries);
        },
        move |workload| service_in_labels(&proxy_namespace, workload).map(Trigger::Workload),
    )
    .with_index(|workload: &K| ServiceKey::from_proxy_labels(workload))
}

/// The cache drops the fields of proxy pods that no decision reads. The index finds the pods of a Service.
pub(super) fn pod(proxy_namespace: &ProxyNamespace) -> WatchSpec<Pod, ServiceKey> {
    let proxy_namespace = proxy_namespace.clone();
    WatchSpec::new(
        |pod: &mut Pod| {
            pod.managed_fields_mut().clear();
            if let Some(spec) = &mut pod.spec {
                (spec.volumes, spec.tolerations, spec.security_context) = (None, None, None);
                spec.init_containers = None;
                for container in &mut spec.containers {
                    let ports = container.ports.take();
                    *container = Container { ports, ..Container::default() };
                }
            }
        },
        move |pod| service_in_labels(&proxy_namespace, pod).map(Trigger::Workload),
    )
    .with_index(ServiceKey::from_proxy_labels)
}

/// The cache keeps only the nodes and the conditions of endpoints. The index finds the slices of a Service.
pub(super) fn endpoint_slice() -> WatchSpec<EndpointSlice, ServiceKey> {
    WatchSpec::new(
        |slice: &mut EndpointSlice| {
            slice.managed_fields_mut().clear();
            slice.annotations_mut().clear();
            slice.labels_mut().retain(|name, _| name == SERVICE_NAME_LABEL);
            slice.owner_references_mut().clear();
            slice.ports = None;
            for endpoint in slice.endpoints.iter_mut().flatten() {
                let (node_name, conditions) = (endpoint.node_name.take(), endpoint.conditions.take());
                *endpoint = Endpoint { node_name, conditions, ..Endpoint::default() };
            }
        },
        |slice| service_of_slice(slice).map(Trigger::Endpoints),
    )
    .with_index(service_of_slice)
}

fn service_of_slice(slice: &EndpointSlice) -> Option<ServiceKey> {
    let name = slice.labels().get(SERVICE_NAME_LABEL)?.clone();
    Some(ServiceKey { namespace: slice.namespace()?, name })
}

/// The cache keeps only the addresses and the conditions in the status of Nodes, because the other fields need most of the
/// memory of a Node.
pub(super) fn node() -> WatchSpec<Node> {
    WatchSpec::new(
        |node: &mut Node| {
            node.managed_fields_mut().clear();
            if let Some(status) = &mut node.status {
                let (addresses, conditions) = (status.addresses.take(), status.conditions.take());
                *status = NodeStatus { addresses, conditions, ..NodeStatus::default() };
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
