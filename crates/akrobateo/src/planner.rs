//! Finds the Services that a watch trigger affects. Allocates ports again if an input of the allocation changed. The
//! cache does the I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use akrobateo_core::annotations::NODE_ADDRESS;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::sync::mpsc;

use crate::allocation::{AllocationResult, PortAllocations};
use crate::cache::{ListError, Stores, Trigger, TriggerSender, WatchEnded};
use crate::decide::{MissingPods, ProxyNamespace, ServiceState};
use crate::key::ServiceKey;
use crate::metrics::Metrics;
use crate::node_info::NodeInfo;
use crate::spec::ServiceDefaults;

#[cfg(test)]
mod tests;

/// The maximum number of triggers that one call takes from the channel.
const MAX_TRIGGERS_PER_CALL: usize = 1024;

/// The cache, and the port allocation of all Services in the cache.
pub(crate) struct Planner {
    stores: Stores,
    triggers: mpsc::UnboundedReceiver<Trigger>,
    watch_namespace: Option<String>,
    defaults: Arc<ServiceDefaults>,
    /// The nodes of the last allocation.
    nodes: Arc<Vec<NodeInfo>>,
    /// The Services of the last allocation.
    services: HashMap<ServiceKey, Arc<Service>>,
    allocations: PortAllocations,
    missing_pods: MissingPods,
}

impl Planner {
    /// Starts the watches as tasks of this runtime.
    pub(crate) fn watch(
        client: &Client,
        watch_namespace: Option<&str>,
        proxy_namespace: &ProxyNamespace,
        defaults: Arc<ServiceDefaults>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let (sender, triggers) = mpsc::unbounded_channel();
        let sender = TriggerSender { sender, metrics: metrics.clone() };
        let stores = Stores::watch(client, watch_namespace, proxy_namespace, &sender);
        Self::new(stores, triggers, watch_namespace, defaults)
    }

    /// Lists each kind once. This planner starts no watches, so it receives no triggers.
    pub(crate) async fn list(
        client: &Client,
        watch_namespace: Option<&str>,
        proxy_namespace: &ProxyNamespace,
        defaults: Arc<ServiceDefaults>,
        metrics: &Metrics,
    ) -> Result<Self, ListError> {
        let (_, triggers) = mpsc::unbounded_channel();
        let stores = Stores::list(client, watch_namespace, proxy_namespace, metrics).await?;
        Ok(Self::new(stores, triggers, watch_namespace, defaults))
    }

    fn new(
        stores: Stores,
        triggers: mpsc::UnboundedReceiver<Trigger>,
        watch_namespace: Option<&str>,
        defaults: Arc<ServiceDefaults>,
    ) -> Self {
        Self {
            stores,
            triggers,
            watch_namespace: watch_namespace.map(str::to_owned),
            defaults,
            nodes: Arc::default(),
            services: HashMap::new(),
            allocations: PortAllocations::default(),
            missing_pods: MissingPods::default(),
        }
    }

    /// Waits until all stores are complete. A decision on an incomplete store would delete proxies that are needed.
    pub(crate) async fn wait_until_synced(&self) -> Result<(), WatchEnded> {
        self.stores.wait_until_synced().await
    }

    /// Discards triggers while another replica is the leader. Returns only if the watches end.
    pub(crate) async fn discard_triggers(&mut self) -> WatchEnded {
        let mut batch = Vec::new();
        while self.triggers.recv_many(&mut batch, MAX_TRIGGERS_PER_CALL).await > 0 {
            batch.clear();
        }
        WatchEnded
    }

    /// Allocates ports, and returns every Service in scope.
    pub(crate) fn resync(&mut self) -> BTreeSet<ServiceKey> {
        self.allocate();
        let mut keys = self.stores.all_keys();
        keys.retain(|key| self.is_in_scope(key));
        keys
    }

    /// Waits for triggers, and returns the Services that need a reconciliation: Services that changed, and Services
    /// whose port allocation changed.
    pub(crate) async fn wait_for_changes(&mut self) -> Result<BTreeSet<ServiceKey>, WatchEnded> {
        let mut batch = Vec::new();
        if self.triggers.recv_many(&mut batch, MAX_TRIGGERS_PER_CALL).await == 0 {
            return Err(WatchEnded);
        }
        let mut affected_services = BTreeSet::new();
        let (mut all_affected, mut needs_allocation) = (false, false);
        for trigger in batch {
            match trigger {
                Trigger::Service(key) => {
                    needs_allocation |= self.has_new_allocation_input(&key);
                    affected_services.insert(key);
                }
                Trigger::Workload(key) => {
                    // The proxies of a rejected Service keep their ports, and these ports are an input of the
                    // allocation.
                    needs_allocation |=
                        matches!(self.allocations.get(&key), Some(AllocationResult::Rejected(_)));
                    affected_services.insert(key);
                }
                Trigger::Endpoints(key) => {
                    affected_services.insert(key);
                }
                Trigger::Node(name) => all_affected |= self.has_node_changed(&name),
                Trigger::ListCompleted => all_affected = true,
            }
        }
        if all_affected {
            affected_services.extend(self.stores.all_keys());
        }
        if all_affected || needs_allocation {
            affected_services.extend(self.allocate());
        }
        affected_services.retain(|key| self.is_in_scope(key));
        Ok(affected_services)
    }

    /// Returns the input of the decisions about one Service.
    pub(crate) fn service_state(&mut self, key: &ServiceKey, now: Timestamp) -> ServiceState {
        let service = self.stores.service(key);
        let pods = self.stores.pods(key);
        let pod_missing_since = if let Some(service) = &service {
            self.missing_pods.update(key, service, &pods, &self.nodes, now)
        } else {
            self.missing_pods.forget(key);
            BTreeMap::new()
        };
        ServiceState {
            service,
            allocation_result: self.allocations.get(key).cloned(),
            workloads: self.stores.workloads(key),
            pods,
            nodes: self.nodes.clone(),
            nodes_with_ready_endpoint: self.stores.nodes_with_ready_endpoint(key),
            pod_missing_since,
        }
    }

    /// Allocates the ports of all Services, and returns the Services whose allocation changed.
    fn allocate(&mut self) -> Vec<ServiceKey> {
        let services = self.stores.services();
        let nodes = self.stores.nodes();
        let stores = &self.stores;
        let allocations =
            PortAllocations::allocate(&services, &nodes, &self.defaults, |key| stores.occupied_ports(key));
        let changed = allocations.services_changed_since(&self.allocations);
        warn_about_invalid_addresses(&self.nodes, &nodes);
        self.allocations = allocations;
        self.nodes = Arc::new(nodes);
        self.services =
            services.into_iter().map(|service| (ServiceKey::from_service(&service), service)).collect();
        changed
    }

    /// Compares the fields of the Service that the allocation reads. Returns true if one of these fields has changed
    /// since the last allocation. The status is not one of these fields, so the operator's own status writes cause no
    /// allocation.
    fn has_new_allocation_input(&self, key: &ServiceKey) -> bool {
        let current = self.stores.service(key);
        self.services.get(key).map(|service| allocation_input(service))
            != current.as_ref().map(|service| allocation_input(service))
    }

    /// Compares the properties of the node that influence decisions. Returns true if one of these properties has
    /// changed since the last allocation. The kubelet writes the status of a node every few minutes, and most of these
    /// writes change only the heartbeat.
    fn has_node_changed(&self, name: &str) -> bool {
        self.nodes.iter().find(|node| node.name == name) != self.stores.node(name).as_ref()
    }

    /// Returns true if this operator manages the proxies of the Service. An operator that watches one namespace does
    /// not see the Services of other namespaces. The proxies of those Services belong to another operator.
    fn is_in_scope(&self, key: &ServiceKey) -> bool {
        self.watch_namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace)
    }
}

/// The fields of a Service that the port allocation reads.
#[derive(PartialEq)]
struct AllocationInput<'a> {
    uid: Option<&'a str>,
    created_at: Option<&'a Time>,
    is_terminating: bool,
    annotations: Option<&'a BTreeMap<String, String>>,
    spec: Option<&'a ServiceSpec>,
}

fn allocation_input(service: &Service) -> AllocationInput<'_> {
    let metadata = &service.metadata;
    AllocationInput {
        uid: metadata.uid.as_deref(),
        created_at: metadata.creation_timestamp.as_ref(),
        is_terminating: metadata.deletion_timestamp.is_some(),
        annotations: metadata.annotations.as_ref(),
        spec: service.spec.as_ref(),
    }
}

/// Logs the invalid addresses in the annotations of new and changed nodes.
fn warn_about_invalid_addresses(nodes_before: &[NodeInfo], nodes: &[NodeInfo]) {
    let nodes_with_invalid_addresses = nodes.iter().filter(|node| !node.invalid_addresses.is_empty());
    for node in nodes_with_invalid_addresses.filter(|node| !nodes_before.contains(node)) {
        tracing::warn!(
            node = node.name,
            annotation = NODE_ADDRESS,
            invalid = ?node.invalid_addresses,
            "ignoring invalid values of the annotation; expected IP addresses that clients can reach"
        );
    }
}
