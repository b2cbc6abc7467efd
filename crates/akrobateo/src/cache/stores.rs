//! The stores of all watched kinds, and the look-ups in them. Starts the watches; the look-ups do no I/O.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use akrobateo_services::agent_report::AGENT_LABEL;
use akrobateo_services::allocation::OccupiedPorts;
use akrobateo_services::endpoints::serving_nodes;
use akrobateo_services::key::ServiceKey;
use akrobateo_services::node_info::{NodeInfo, NodePolicy};
use api_client::{
    ApiMetrics, ListError, Store, WatchEnded, list_into_store, service_api, spawn_reflector, watch_config,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client, ResourceExt};

use super::proxy_stores::{ProxySource, ProxyStores};
use super::trust::ports_of_running_pods;
use super::watch_spec::{self, TriggerSender};
use crate::decide::{ProxyConfig, Workload, occupied_ports};

/// The parts of the cluster that the operator watches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WatchScope<'a> {
    /// The namespace whose Services are watched; `None` for all namespaces.
    pub(crate) watch_namespace: Option<&'a str>,
    /// The namespace of the operator. The Leases of the node agents are in this namespace.
    pub(crate) operator_namespace: &'a str,
    /// True if Services may have proxies of their own. If false, the operator does not watch workloads and pods.
    pub(crate) has_proxies: bool,
}

#[cfg(test)]
impl WatchScope<'static> {
    /// All namespaces.
    pub(crate) const ALL: Self =
        Self { watch_namespace: None, operator_namespace: "kube-system", has_proxies: true };
}

/// One store for each watched kind, and the proxies in the current and in each former namespace.
pub(crate) struct Stores {
    services: Store<Service>,
    /// The index finds the slices of a Service.
    endpoint_slices: Store<EndpointSlice, ServiceKey>,
    nodes: Store<Node>,
    /// The Leases of the node agents.
    agent_leases: Store<Lease>,
    /// The namespace of the Leases.
    operator_namespace: String,
    /// The proxies in the current namespace, then the proxies in former namespaces.
    proxies: Vec<ProxyStores>,
}

impl Stores {
    /// Starts a watch of each kind.
    pub(crate) fn watch(
        client: &Client,
        scope: &WatchScope,
        config: &ProxyConfig,
        triggers: &TriggerSender,
    ) -> Self {
        let services = service_api(client, scope.watch_namespace);
        let endpoint_slices = service_api(client, scope.watch_namespace);
        let agent_leases = Api::namespaced(client.clone(), scope.operator_namespace);
        let agent_config = watch_config().labels(&agent_selector(&config.instance));
        let sources = proxy_sources(client, scope, config);
        Self {
            services: spawn_reflector(services, watch_config(), watch_spec::service(), triggers),
            endpoint_slices: spawn_reflector(
                endpoint_slices,
                watch_config(),
                watch_spec::endpoint_slice(),
                triggers,
            ),
            nodes: spawn_reflector(Api::all(client.clone()), watch_config(), watch_spec::node(), triggers),
            agent_leases: spawn_reflector(agent_leases, agent_config, watch_spec::agent_lease(), triggers),
            operator_namespace: scope.operator_namespace.to_owned(),
            proxies: sources.map(|source| ProxyStores::watch(&source, triggers)).collect(),
        }
    }

    /// Fills each store with one list request, without a watch.
    pub(crate) async fn list(
        client: &Client,
        scope: &WatchScope<'_>,
        config: &ProxyConfig,
        metrics: &ApiMetrics,
    ) -> Result<Self, ListError> {
        let services = service_api(client, scope.watch_namespace);
        let endpoint_slices = service_api(client, scope.watch_namespace);
        let agent_leases = Api::namespaced(client.clone(), scope.operator_namespace);
        let agent_selector = agent_selector(&config.instance);
        let nodes = Api::all(client.clone());
        let mut proxies = Vec::new();
        for source in proxy_sources(client, scope, config) {
            proxies.push(ProxyStores::list(&source, metrics).await?);
        }
        Ok(Self {
            services: list_into_store(services, "", watch_spec::service(), metrics).await?,
            endpoint_slices: list_into_store(endpoint_slices, "", watch_spec::endpoint_slice(), metrics)
                .await?,
            nodes: list_into_store(nodes, "", watch_spec::node(), metrics).await?,
            agent_leases: list_into_store(agent_leases, &agent_selector, watch_spec::agent_lease(), metrics)
                .await?,
            operator_namespace: scope.operator_namespace.to_owned(),
            proxies,
        })
    }

    /// Waits until the first list of each kind is complete.
    pub(crate) async fn wait_until_synced(&self) -> Result<(), WatchEnded> {
        self.services.wait_until_ready().await.map_err(|_| WatchEnded)?;
        self.endpoint_slices.wait_until_ready().await.map_err(|_| WatchEnded)?;
        self.nodes.wait_until_ready().await.map_err(|_| WatchEnded)?;
        self.agent_leases.wait_until_ready().await.map_err(|_| WatchEnded)?;
        for proxies in &self.proxies {
            proxies.wait_until_synced().await?;
        }
        Ok(())
    }

    /// Returns the Service, or `None` if the Service does not exist.
    pub(crate) fn service(&self, key: &ServiceKey) -> Option<Arc<Service>> {
        self.services.get(&key.namespace, &key.name)
    }

    /// Returns all Services. The order of the Services is undefined.
    pub(crate) fn services(&self) -> Vec<Arc<Service>> {
        self.services.all()
    }

    /// Returns the keys of all Services.
    pub(crate) fn service_keys(&self) -> HashSet<ServiceKey> {
        self.services.all().iter().map(|service| ServiceKey::from_service(service)).collect()
    }

    /// Returns the node, or `None` if the node does not exist.
    pub(crate) fn node(&self, name: &str, policy: NodePolicy) -> Option<NodeInfo> {
        self.nodes.get("", name).map(|node| NodeInfo::new(&node, policy))
    }

    /// Returns all nodes sorted by name, so that two lists of the same nodes are equal.
    pub(crate) fn nodes(&self, policy: NodePolicy) -> Vec<NodeInfo> {
        let mut nodes: Vec<_> = self.nodes.all().iter().map(|node| NodeInfo::new(node, policy)).collect();
        nodes.sort_by(|left, right| left.name.cmp(&right.name));
        nodes
    }

    /// Returns the Lease of a node agent, or `None` if the Lease does not exist.
    pub(crate) fn agent_lease(&self, name: &str) -> Option<Arc<Lease>> {
        self.agent_leases.get(&self.operator_namespace, name)
    }

    /// Returns the Leases of all node agents.
    pub(crate) fn agent_leases(&self) -> Vec<Arc<Lease>> {
        self.agent_leases.all()
    }

    /// Returns the pods of a Service's proxies.
    pub(crate) fn pods(&self, key: &ServiceKey, workloads: &[Workload]) -> Vec<Arc<Pod>> {
        self.proxies.iter().flat_map(|proxies| proxies.pods(key, workloads)).collect()
    }

    /// Returns the workloads of a Service's proxies in the current and in former namespaces. The first list contains
    /// the workloads of this Service. The second list contains the workloads of a deleted Service with the same name.
    pub(crate) fn workloads(
        &self,
        key: &ServiceKey,
        service: Option<&Service>,
    ) -> (Vec<Workload>, Vec<Workload>) {
        let workloads = self.proxies.iter().flat_map(|proxies| proxies.workloads(key));
        workloads.partition(|workload| service.is_none_or(|service| workload.belongs_to(service)))
    }

    /// Returns the ports that a Service's workload holds on these nodes.
    pub(crate) fn occupied_ports(&self, key: &ServiceKey, nodes: &[NodeInfo]) -> OccupiedPorts {
        let service = self.service(key);
        let are_proxies_in_service_namespaces =
            self.proxies.first().is_some_and(ProxyStores::is_in_service_namespaces);
        // Tenants can forge workloads in the namespaces of their Services. The operator therefore does not trust these
        // workloads while the proxies are in a shared namespace.
        let trusted_stores = self
            .proxies
            .iter()
            .filter(|proxies| proxies.is_in_service_namespaces() == are_proxies_in_service_namespaces);
        let mut workloads: Vec<_> = trusted_stores.flat_map(|proxies| proxies.workloads(key)).collect();
        workloads.retain(|workload| service.as_deref().is_none_or(|service| workload.belongs_to(service)));
        let pods = self.pods(key, &workloads);
        if are_proxies_in_service_namespaces {
            ports_of_running_pods(&pods)
        } else {
            occupied_ports(&workloads, &pods, nodes)
        }
    }

    /// Returns the names of the nodes with an endpoint that serves a Service.
    pub(crate) fn nodes_with_ready_endpoint(&self, key: &ServiceKey) -> BTreeSet<String> {
        let slices = self.endpoint_slices.get_indexed(key);
        serving_nodes(slices.iter().flat_map(|slice| slice.endpoints.iter().flatten()))
    }

    /// Returns the newest resourceVersion of a Service's `EndpointSlices`; 0 if the Service has none.
    pub(crate) fn newest_endpoint_slice_version(&self, key: &ServiceKey) -> u64 {
        let slices = self.endpoint_slices.get_indexed(key);
        slices.iter().map(|slice| resource_version(&**slice)).max().unwrap_or_default()
    }

    /// Returns the keys of all Services that exist, and of all Services that have a workload.
    pub(crate) fn all_keys(&self) -> BTreeSet<ServiceKey> {
        let services = self.services.all().into_iter().map(|service| ServiceKey::from_service(&service));
        services.chain(self.proxies.iter().flat_map(ProxyStores::keys)).collect()
    }
}

/// Returns the resourceVersion of an object as a number. If a version is not a number, the agents need not have applied
/// it.
pub(crate) fn resource_version(object: &impl ResourceExt) -> u64 {
    object.resource_version().and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// Returns the label selector of the Leases of node agents.
fn agent_selector(instance: &str) -> String {
    format!("{AGENT_LABEL}={instance}")
}

/// Returns one source for each namespace of proxies: first the current namespace, then the former namespaces. Returns
/// no source if Services may not have their own proxies.
fn proxy_sources<'a>(
    client: &'a Client,
    scope: &WatchScope<'a>,
    config: &'a ProxyConfig,
) -> impl Iterator<Item = ProxySource<'a>> {
    let WatchScope { watch_namespace, has_proxies, .. } = *scope;
    let source = move |proxy_namespace, is_former_namespace| ProxySource {
        client,
        watch_namespace,
        instance: &config.instance,
        proxy_namespace,
        is_former_namespace,
    };
    let former_namespaces =
        config.former_proxy_namespaces.iter().filter(|namespace| **namespace != config.proxy_namespace);
    std::iter::once(source(&config.proxy_namespace, false))
        .chain(former_namespaces.map(move |namespace| source(namespace, true)))
        .filter(move |_| has_proxies)
}
