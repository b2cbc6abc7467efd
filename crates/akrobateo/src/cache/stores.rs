//! The stores of all watched kinds, and the look-ups in them. Starts the watches; the look-ups do no I/O.

use std::collections::BTreeSet;
use std::sync::Arc;

use akrobateo_core::labels;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};

use super::list::{ListError, list_into_store};
use super::reflector::{TriggerSender, WatchEnded, spawn_reflector};
use super::watch_spec::{self, SERVICE_NAME_LABEL};
use crate::allocation::OccupiedPorts;
use crate::decide::{ProxyNamespace, Workload};
use crate::key::ServiceKey;
use crate::metrics::Metrics;
use crate::node_info::NodeInfo;

/// The timeout of one watch request, in seconds. The next request continues where the previous one ended.
///
/// If the API server's machine loses power, the connection dies silently. The watch notices the dead connection 5 s
/// after this timeout.
const WATCH_TIMEOUT_SECONDS: u32 = 60;

/// One store for each watched kind.
pub(crate) struct Stores {
    services: Store<Service>,
    endpoint_slices: Store<EndpointSlice>,
    nodes: Store<Node>,
    pods: Store<Pod>,
    daemonsets: Store<DaemonSet>,
    deployments: Store<Deployment>,
}

impl Stores {
    /// Starts a watch of each kind. Watches Services in `watch_namespace`, or in all namespaces if `watch_namespace` is
    /// `None`.
    pub(crate) fn watch(
        client: &Client,
        watch_namespace: Option<&str>,
        proxy_namespace: &ProxyNamespace,
        triggers: &TriggerSender,
    ) -> Self {
        let config_for_all_objects = || watcher::Config::default().timeout(WATCH_TIMEOUT_SECONDS);
        let config_for_proxies = || config_for_all_objects().labels(&labels::all_proxies_selector());
        let services = service_api(client, watch_namespace);
        let endpoint_slices = service_api(client, watch_namespace);
        let pods = pod_api(client, watch_namespace, proxy_namespace);
        // These watches cover all namespaces. After a change of --lb-namespace the operator must find and delete the
        // workloads in the old namespace.
        let daemonsets = Api::all(client.clone());
        let deployments = Api::all(client.clone());
        Self {
            services: spawn_reflector(services, config_for_all_objects(), &watch_spec::service(), triggers),
            endpoint_slices: spawn_reflector(
                endpoint_slices,
                config_for_all_objects(),
                &watch_spec::endpoint_slice(),
                triggers,
            ),
            nodes: spawn_reflector(
                Api::all(client.clone()),
                config_for_all_objects(),
                &watch_spec::node(),
                triggers,
            ),
            pods: spawn_reflector(pods, config_for_proxies(), &watch_spec::pod(), triggers),
            daemonsets: spawn_reflector(daemonsets, config_for_proxies(), &watch_spec::workload(), triggers),
            deployments: spawn_reflector(
                deployments,
                config_for_proxies(),
                &watch_spec::workload(),
                triggers,
            ),
        }
    }

    /// Fills each store with one list request, and starts no watch.
    pub(crate) async fn list(
        client: &Client,
        watch_namespace: Option<&str>,
        proxy_namespace: &ProxyNamespace,
        metrics: &Metrics,
    ) -> Result<Self, ListError> {
        let config_for_all_objects = ListParams::default;
        let config_for_proxies = || config_for_all_objects().labels(&labels::all_proxies_selector());
        let services = service_api(client, watch_namespace);
        let endpoint_slices = service_api(client, watch_namespace);
        let pods = pod_api(client, watch_namespace, proxy_namespace);
        let daemonsets = Api::all(client.clone());
        let deployments = Api::all(client.clone());
        Ok(Self {
            services: list_into_store(services, config_for_all_objects(), &watch_spec::service(), metrics)
                .await?,
            endpoint_slices: list_into_store(
                endpoint_slices,
                config_for_all_objects(),
                &watch_spec::endpoint_slice(),
                metrics,
            )
            .await?,
            nodes: list_into_store(
                Api::all(client.clone()),
                config_for_all_objects(),
                &watch_spec::node(),
                metrics,
            )
            .await?,
            pods: list_into_store(pods, config_for_proxies(), &watch_spec::pod(), metrics).await?,
            daemonsets: list_into_store(daemonsets, config_for_proxies(), &watch_spec::workload(), metrics)
                .await?,
            deployments: list_into_store(deployments, config_for_proxies(), &watch_spec::workload(), metrics)
                .await?,
        })
    }

    /// Waits until the first list of each kind is complete.
    pub(crate) async fn wait_until_synced(&self) -> Result<(), WatchEnded> {
        self.services.wait_until_ready().await.map_err(|_| WatchEnded)?;
        self.endpoint_slices.wait_until_ready().await.map_err(|_| WatchEnded)?;
        self.nodes.wait_until_ready().await.map_err(|_| WatchEnded)?;
        self.pods.wait_until_ready().await.map_err(|_| WatchEnded)?;
        self.daemonsets.wait_until_ready().await.map_err(|_| WatchEnded)?;
        self.deployments.wait_until_ready().await.map_err(|_| WatchEnded)
    }

    /// Returns the Service, or `None` if it does not exist.
    pub(crate) fn service(&self, key: &ServiceKey) -> Option<Arc<Service>> {
        self.services.get(&ObjectRef::new(&key.name).within(&key.namespace))
    }

    /// Returns all Services. The order of the Services is undefined.
    pub(crate) fn services(&self) -> Vec<Arc<Service>> {
        self.services.state()
    }

    /// Returns the node, or `None` if it does not exist.
    pub(crate) fn node(&self, name: &str) -> Option<NodeInfo> {
        self.nodes.get(&ObjectRef::new(name)).map(|node| NodeInfo::from_node(&node))
    }

    /// Returns all nodes sorted by name, so that two lists of the same nodes are equal.
    pub(crate) fn nodes(&self) -> Vec<NodeInfo> {
        let mut nodes: Vec<_> = self.nodes.state().iter().map(|node| NodeInfo::from_node(node)).collect();
        nodes.sort_by(|left, right| left.name.cmp(&right.name));
        nodes
    }

    /// Returns the pods of a Service's proxies.
    pub(crate) fn pods(&self, key: &ServiceKey) -> Vec<Arc<Pod>> {
        self.pods.state_filter(|pod| key.matches_proxy_labels(pod))
    }

    /// Returns the workloads of a Service's proxies.
    pub(crate) fn workloads(&self, key: &ServiceKey) -> Vec<Workload> {
        let daemonsets = self.daemonsets.state_filter(|daemonset| key.matches_proxy_labels(daemonset));
        let deployments = self.deployments.state_filter(|deployment| key.matches_proxy_labels(deployment));
        let daemonsets =
            daemonsets.iter().map(|daemonset| Workload::DaemonSet(Box::new((**daemonset).clone())));
        let deployments =
            deployments.iter().map(|deployment| Workload::Deployment(Box::new((**deployment).clone())));
        daemonsets.chain(deployments).collect()
    }

    /// Returns the ports and the nodes that a Service's proxies occupy.
    pub(crate) fn occupied_ports(&self, key: &ServiceKey) -> OccupiedPorts {
        let pods = self.pods(key);
        let nodes = pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.clone());
        let ports = self.workloads(key).iter().flat_map(Workload::host_ports).collect();
        OccupiedPorts { ports, nodes: nodes.collect() }
    }

    /// Returns the names of the nodes with a ready endpoint of a Service.
    pub(crate) fn nodes_with_ready_endpoint(&self, key: &ServiceKey) -> BTreeSet<String> {
        let slices = self.endpoint_slices.state_filter(|slice| {
            slice.namespace().as_ref() == Some(&key.namespace)
                && slice.labels().get(SERVICE_NAME_LABEL) == Some(&key.name)
        });
        let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
        let ready_endpoints = endpoints.filter(|endpoint| {
            // An absent condition means ready (https://kubernetes.io/docs/reference/kubernetes-api/, EndpointSlice).
            endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
        });
        ready_endpoints.filter_map(|endpoint| endpoint.node_name.clone()).collect()
    }

    /// Returns the keys of all Services that exist, and of all Services that have a workload.
    pub(crate) fn all_keys(&self) -> BTreeSet<ServiceKey> {
        let services = self.services.state().into_iter().map(|service| ServiceKey::from_service(&service));
        let daemonsets = self
            .daemonsets
            .state()
            .into_iter()
            .filter_map(|daemonset| ServiceKey::from_proxy_labels(&*daemonset));
        let deployments = self
            .deployments
            .state()
            .into_iter()
            .filter_map(|deployment| ServiceKey::from_proxy_labels(&*deployment));
        services.chain(daemonsets).chain(deployments).collect()
    }
}

/// The API of objects in the namespaces whose Services are watched.
fn service_api<K>(client: &Client, watch_namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope>,
    K::DynamicType: Default,
{
    match watch_namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// The API of pods in the namespaces where proxies run.
fn pod_api(client: &Client, watch_namespace: Option<&str>, proxy_namespace: &ProxyNamespace) -> Api<Pod> {
    match proxy_namespace {
        ProxyNamespace::SharedNamespace(namespace) => Api::namespaced(client.clone(), namespace),
        ProxyNamespace::ServiceNamespace => service_api(client, watch_namespace),
    }
}
