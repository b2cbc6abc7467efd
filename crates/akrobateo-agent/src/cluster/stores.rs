//! The stores of all watched kinds. Starts the watches; the look-ups do no I/O.

use std::net::IpAddr;
use std::sync::Arc;

use akrobateo_core::annotations;
use akrobateo_services::agent_report::AGENT_LABEL;
use akrobateo_services::key::ServiceKey;
use akrobateo_services::published::parse_published_addresses;
use api_client::{NoIndex, Store, WatchEnded, WatchSpec, service_api, spawn_reflector, watch_config};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client, Resource, ResourceExt};

/// The label with the name of the Service to which an `EndpointSlice` belongs
/// (<https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/>).
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// The annotation in which kubectl stores the whole Service
/// (<https://kubernetes.io/docs/reference/labels-annotations-taints/>).
const LAST_APPLIED_ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A change in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// The Service with this key changed.
    Service(ServiceKey),
    /// An `EndpointSlice` of the Service changed.
    Endpoints(ServiceKey),
    /// A pod of the node changed.
    Pod,
    /// A watch has listed all objects of its kind. Each object may have changed since the previous list.
    ListCompleted,
    /// An interface or an address of the node changed.
    HostNetwork,
    /// The node with this name changed.
    Node(String),
    /// The Lease with this name changed.
    Lease(String),
}

/// Sends the triggers of all watches.
pub(crate) type TriggerSender = api_client::TriggerSender<Trigger>;

/// The objects to watch.
pub(crate) struct WatchScope<'a> {
    /// The namespace of the Services; `None` for all namespaces.
    pub(crate) service_namespace: Option<&'a str>,
    /// The namespace of the agents and of their Leases.
    pub(crate) agent_namespace: &'a str,
    /// The name of the operator's instance.
    pub(crate) instance: &'a str,
    /// The node whose pods the agent watches; `None` if the agent does not watch pods.
    pub(crate) watched_pods_node: Option<&'a str>,
}

/// A Service without its status, and the addresses in its status. The status of a Service has an address of each node,
/// so the complete objects would need several times as much memory.
#[derive(Debug)]
pub(crate) struct ObservedService {
    pub(crate) service: Arc<Service>,
    pub(crate) published_addresses: Arc<[IpAddr]>,
}

/// One store for each watched kind.
pub(crate) struct Stores {
    services: Store<ObservedService>,
    /// The index finds the slices of a Service.
    endpoint_slices: Store<EndpointSlice, ServiceKey>,
    nodes: Store<Node>,
    leases: Store<Lease>,
    pods: Option<Store<Pod>>,
}

impl Stores {
    /// Starts a watch of each kind.
    pub(crate) fn start_watches(client: &Client, scope: &WatchScope, triggers: &TriggerSender) -> Self {
        let lease_config = watch_config().labels(&format!("{AGENT_LABEL}={}", scope.instance));
        let watch_pods = |node: &str| {
            let config = watch_config().fields(&format!("spec.nodeName={node}"));
            spawn_reflector(Api::all(client.clone()), config, pod_watch_spec(), triggers)
        };
        Self {
            services: spawn_reflector(
                service_api(client, scope.service_namespace),
                watch_config(),
                service_watch_spec(),
                triggers,
            ),
            endpoint_slices: spawn_reflector(
                service_api(client, scope.service_namespace),
                watch_config(),
                endpoint_slice_watch_spec(),
                triggers,
            ),
            nodes: spawn_reflector(Api::all(client.clone()), watch_config(), node_watch_spec(), triggers),
            leases: spawn_reflector(
                Api::namespaced(client.clone(), scope.agent_namespace),
                lease_config,
                lease_watch_spec(),
                triggers,
            ),
            pods: scope.watched_pods_node.map(watch_pods),
        }
    }

    /// Waits until the first list of each kind is complete.
    pub(crate) async fn wait_until_synced(&self) -> Result<(), WatchEnded> {
        self.services.wait_until_ready().await.map_err(|_| WatchEnded)?;
        self.endpoint_slices.wait_until_ready().await.map_err(|_| WatchEnded)?;
        self.nodes.wait_until_ready().await.map_err(|_| WatchEnded)?;
        self.leases.wait_until_ready().await.map_err(|_| WatchEnded)?;
        if let Some(pods) = &self.pods {
            pods.wait_until_ready().await.map_err(|_| WatchEnded)?;
        }
        Ok(())
    }

    /// Returns all Services.
    pub(crate) fn services(&self) -> Vec<Arc<ObservedService>> {
        self.services.all()
    }

    /// Returns the Service with this key.
    pub(crate) fn service(&self, key: &ServiceKey) -> Option<Arc<ObservedService>> {
        self.services.get(&key.namespace, &key.name)
    }

    /// Returns the `EndpointSlices` of a Service.
    pub(crate) fn endpoint_slices(&self, key: &ServiceKey) -> Vec<Arc<EndpointSlice>> {
        self.endpoint_slices.get_indexed(key)
    }

    /// Returns all nodes.
    pub(crate) fn nodes(&self) -> Vec<Arc<Node>> {
        self.nodes.all()
    }

    /// Returns the node with this name.
    pub(crate) fn node(&self, name: &str) -> Option<Arc<Node>> {
        self.nodes.get("", name)
    }

    /// Returns the names of all Leases of agents.
    pub(crate) fn lease_names(&self) -> Vec<String> {
        self.leases.all().iter().map(|lease| lease.name_any()).collect()
    }

    /// Returns the Lease with this name.
    pub(crate) fn lease(&self, name: &str, namespace: &str) -> Option<Arc<Lease>> {
        self.leases.get(namespace, name)
    }

    /// Returns the pods of the node. Returns an empty list if the agent does not watch pods.
    pub(crate) fn pods(&self) -> Vec<Arc<Pod>> {
        self.pods.as_ref().map(Store::all).unwrap_or_default()
    }

    /// Returns the newest resource versions of the Services and of the `EndpointSlices` in the stores.
    pub(crate) fn newest_versions(&self) -> (u64, u64) {
        (self.services.newest_version(), self.endpoint_slices.newest_version())
    }
}

/// Returns the resourceVersion of an object as a number; 0 if the version is not a number.
pub(crate) fn resource_version(object: &impl ResourceExt) -> u64 {
    object.resource_version().and_then(|version| version.parse().ok()).unwrap_or_default()
}

fn service_of_slice(slice: &EndpointSlice) -> Option<ServiceKey> {
    let name = slice.labels().get(SERVICE_NAME_LABEL)?.clone();
    Some(ServiceKey { namespace: slice.namespace()?, name })
}

fn service_watch_spec() -> WatchSpec<Service, Trigger, NoIndex, ObservedService> {
    let convert = |mut service: Service| {
        let published_addresses = parse_published_addresses(&service).collect();
        service.status = None;
        service.managed_fields_mut().clear();
        service.annotations_mut().remove(LAST_APPLIED_ANNOTATION);
        ObservedService { service: Arc::new(service), published_addresses }
    };
    WatchSpec::with_conversion(convert, |it| Some(Trigger::Service(ServiceKey::from_service(&it.service))))
}

fn endpoint_slice_watch_spec() -> WatchSpec<EndpointSlice, Trigger, ServiceKey> {
    WatchSpec::new(
        |slice: &mut EndpointSlice| {
            slice.managed_fields_mut().clear();
            slice.annotations_mut().clear();
            slice.labels_mut().retain(|name, _| name == SERVICE_NAME_LABEL);
            for endpoint in slice.endpoints.iter_mut().flatten() {
                endpoint.target_ref = None;
            }
        },
        |slice| service_of_slice(slice).map(Trigger::Endpoints),
    )
    .with_index(service_of_slice)
}

/// Returns the watch of nodes. The store contains only the fields of nodes that decisions read. The heartbeats that the
/// kubelet writes every few minutes do not change these fields.
fn node_watch_spec() -> WatchSpec<Node, Trigger> {
    let prune = |node: &mut Node| {
        node.managed_fields_mut().clear();
        node.meta_mut().resource_version = None;
        node.annotations_mut().retain(|name, _| name == annotations::NODE_ADDRESS);
        if let Some(status) = &mut node.status {
            let addresses = status.addresses.take();
            *status = k8s_openapi::api::core::v1::NodeStatus { addresses, ..Default::default() };
        }
    };
    WatchSpec::new(prune, |node| Some(Trigger::Node(node.name_any())))
}

fn lease_watch_spec() -> WatchSpec<Lease, Trigger> {
    WatchSpec::new(
        |lease: &mut Lease| lease.managed_fields_mut().clear(),
        |lease| Some(Trigger::Lease(lease.name_any())),
    )
}

/// Returns the watch of pods. The agent needs only the hostPorts and the readiness of pods. The store omits all other
/// large fields.
fn pod_watch_spec() -> WatchSpec<Pod, Trigger> {
    let prune = |pod: &mut Pod| {
        pod.managed_fields_mut().clear();
        pod.annotations_mut().clear();
        if let Some(spec) = &mut pod.spec {
            spec.volumes = None;
            for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
                container.env = None;
                container.volume_mounts = None;
            }
        }
    };
    WatchSpec::new(prune, |_| Some(Trigger::Pod))
}
