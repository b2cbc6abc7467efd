//! The views of all that is watched, and the questions asked of them.

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

use super::WatchEnded;
use super::list::{ListError, listed};
use super::reflector::{self, Changes, SERVICE_OF_SLICE, follow};
use crate::allocation::HeldPorts;
use crate::decide::{Placement, Workload};
use crate::key::ServiceKey;
use crate::metrics::Metrics;
use crate::node_info::NodeInfo;

/// What lives in the namespaces that are looked after.
fn of_services<K>(client: &Client, watched: Option<&str>) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope>,
    K::DynamicType: Default,
{
    match watched {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// The proxies' pods.
fn of_pods(client: &Client, watched: Option<&str>, placement: &Placement) -> Api<Pod> {
    match placement {
        Placement::Shared(namespace) => Api::namespaced(client.clone(), namespace),
        Placement::ServiceNamespace => of_services(client, watched),
    }
}

/// How long the API server answers one watch: the next begins where it ended. Should the connection die without a
/// sign, as when the API server's machine loses its power, views are older than this by 5 s at most.
const WATCH_SECONDS: u32 = 60;

/// One view for each kind.
pub(crate) struct Stores {
    services: Store<Service>,
    slices: Store<EndpointSlice>,
    nodes: Store<Node>,
    pods: Store<Pod>,
    daemonsets: Store<DaemonSet>,
    deployments: Store<Deployment>,
}

impl Stores {
    pub(crate) fn watch(
        client: &Client,
        watched: Option<&str>,
        placement: &Placement,
        changes: &Changes,
    ) -> Self {
        let all = || watcher::Config::default().timeout(WATCH_SECONDS);
        let ours = || all().labels(&labels::all_proxies_selector());
        Self {
            services: follow(of_services(client, watched), all(), reflector::service(), changes),
            slices: follow(of_services(client, watched), all(), reflector::slice(), changes),
            nodes: follow(Api::all(client.clone()), all(), reflector::node(), changes),
            pods: follow(of_pods(client, watched, placement), ours(), reflector::pod(), changes),
            // In all namespaces: when the namespace of the proxies is changed, those in the old one must be found.
            daemonsets: follow(Api::all(client.clone()), ours(), reflector::workload(), changes),
            deployments: follow(Api::all(client.clone()), ours(), reflector::workload(), changes),
        }
    }

    /// The same views, filled once.
    pub(crate) async fn list(
        client: &Client,
        watched: Option<&str>,
        placement: &Placement,
        metrics: &Metrics,
    ) -> Result<Self, ListError> {
        let all = ListParams::default;
        let ours = || all().labels(&labels::all_proxies_selector());
        Ok(Self {
            services: listed(of_services(client, watched), all(), &reflector::service(), metrics).await?,
            slices: listed(of_services(client, watched), all(), &reflector::slice(), metrics).await?,
            nodes: listed(Api::all(client.clone()), all(), &reflector::node(), metrics).await?,
            pods: listed(of_pods(client, watched, placement), ours(), &reflector::pod(), metrics).await?,
            daemonsets: listed(Api::all(client.clone()), ours(), &reflector::workload(), metrics).await?,
            deployments: listed(Api::all(client.clone()), ours(), &reflector::workload(), metrics).await?,
        })
    }

    pub(crate) async fn complete(&self) -> Result<(), WatchEnded> {
        self.services.wait_until_ready().await.map_err(|_| WatchEnded)?;
        self.slices.wait_until_ready().await.map_err(|_| WatchEnded)?;
        self.nodes.wait_until_ready().await.map_err(|_| WatchEnded)?;
        self.pods.wait_until_ready().await.map_err(|_| WatchEnded)?;
        self.daemonsets.wait_until_ready().await.map_err(|_| WatchEnded)?;
        self.deployments.wait_until_ready().await.map_err(|_| WatchEnded)
    }

    pub(crate) fn service(&self, key: &ServiceKey) -> Option<Arc<Service>> {
        self.services.get(&ObjectRef::new(&key.name).within(&key.namespace))
    }

    pub(crate) fn services(&self) -> Vec<Arc<Service>> {
        self.services.state()
    }

    /// The nodes, by name, so that the same nodes are equal whatever the order they came in.
    pub(crate) fn nodes(&self) -> Vec<NodeInfo> {
        let mut nodes: Vec<_> = self.nodes.state().iter().map(|node| NodeInfo::from_node(node)).collect();
        nodes.sort_by(|one, other| one.name.cmp(&other.name));
        nodes
    }

    pub(crate) fn pods(&self, key: &ServiceKey) -> Vec<Arc<Pod>> {
        self.pods.state_filter(|pod| key.matches_proxy_labels(pod))
    }

    pub(crate) fn workloads(&self, key: &ServiceKey) -> Vec<Workload> {
        let daemonsets = self.daemonsets.state_filter(|daemonset| key.matches_proxy_labels(daemonset));
        let deployments = self.deployments.state_filter(|deployment| key.matches_proxy_labels(deployment));
        let daemonsets =
            daemonsets.iter().map(|daemonset| Workload::DaemonSet(Box::new((**daemonset).clone())));
        daemonsets
            .chain(
                deployments.iter().map(|deployment| Workload::Deployment(Box::new((**deployment).clone()))),
            )
            .collect()
    }

    /// The ports and nodes that a Service's proxies hold.
    pub(crate) fn holding(&self, key: &ServiceKey) -> HeldPorts {
        let pods = self.pods(key);
        let nodes = pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.clone());
        let ports = self.workloads(key).iter().flat_map(Workload::host_ports).collect();
        HeldPorts { ports, nodes: nodes.collect() }
    }

    /// The nodes with a ready endpoint of a Service.
    pub(crate) fn endpoint_nodes(&self, key: &ServiceKey) -> BTreeSet<String> {
        let slices = self.slices.state_filter(|slice| {
            slice.namespace().as_ref() == Some(&key.namespace)
                && slice.labels().get(SERVICE_OF_SLICE) == Some(&key.name)
        });
        let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
        let ready = endpoints.filter(|endpoint| {
            // Absent means yes (https://kubernetes.io/docs/reference/kubernetes-api/ endpoint conditions).
            endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
        });
        ready.filter_map(|endpoint| endpoint.node_name.clone()).collect()
    }

    /// Every Service that exists, and every one that something was made for.
    pub(crate) fn all(&self) -> BTreeSet<ServiceKey> {
        let services = self.services.state().into_iter().map(|service| ServiceKey::from_service(&service));
        let daemonsets =
            self.daemonsets.state().into_iter().filter_map(|object| ServiceKey::from_proxy_labels(&*object));
        let deployments =
            self.deployments.state().into_iter().filter_map(|object| ServiceKey::from_proxy_labels(&*object));
        services.chain(daemonsets).chain(deployments).collect()
    }
}
