//! Finds the Services that a watch trigger affects. Allocates ports again if an input of the allocation changed. The
//! cache does the I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use akrobateo_services::allocation::{AllocationResult, OccupiedPorts, PortAllocations, RecentEndpoints};
use akrobateo_services::key::ServiceKey;
use akrobateo_services::node_info::{NodeAddressError, NodeInfo, NodePolicy};
use akrobateo_services::parsed_services::{ParsedServices, ServiceChange};
use akrobateo_services::spec::{ServiceDefaults, is_external_policy_local};
use k8s_openapi::jiff::Timestamp;
use kube::{Client, ResourceExt};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use self::address_errors::new_address_errors;
use self::agent_registry::AgentChange;
use self::agents::Agents;
use self::assumed_endpoints::assume_endpoints_before_start;
use self::clock::Clock;
use self::endpoint_change::EndpointChange;
use self::observations::{StoreObservations, read_occupied_ports};
use self::vip_danger::update_vip_danger;
use self::wait::{sleep_until_or_forever, wait_for_vip_danger_change};
use crate::cache::{ListError, Stores, Trigger, TriggerSender, WatchEnded, WatchScope};
use crate::decide::{AgentStates, PodChangeTimes, PodChanges, ProxyConfig, ServiceState};
use crate::metrics::{AgentCounts, Metrics};

mod address_errors;
mod agent_counts;
mod agent_facts;
mod agent_registry;
mod agents;
mod assumed_endpoints;
mod clock;
mod endpoint_change;
mod lease_report;
mod observations;
#[cfg(test)]
mod tests;
mod versions;
mod vip_danger;
mod wait;

/// The maximum number of triggers that one call takes from the channel.
const MAX_TRIGGERS_PER_CALL: usize = 1024;

/// The cache, and the port allocation of all Services in the cache.
pub(crate) struct Planner {
    stores: Stores,
    triggers: mpsc::UnboundedReceiver<Trigger>,
    watch_namespace: Option<String>,
    /// Receives the reason why ipMode VIP is dangerous; `None` in commands and tests.
    vip_danger_receiver: Option<watch::Receiver<Option<String>>>,
    /// The nodes of the last allocation.
    nodes: Arc<Vec<NodeInfo>>,
    /// The Services with their specs. The last allocation read these specs.
    services: ParsedServices,
    allocations: PortAllocations,
    /// The ports that workloads held at the last allocation. The map contains only the Services whose workloads the
    /// allocation read.
    occupied_ports: HashMap<ServiceKey, OccupiedPorts>,
    recent_endpoints: RecentEndpoints,
    pod_changes: PodChanges,
    agents: Agents,
    /// The errors in the annotations of nodes that [`Self::take_address_errors`] has not returned yet.
    address_errors: Vec<NodeAddressError>,
}

impl Planner {
    /// Starts the watches as tasks of this runtime.
    pub(crate) fn watch(
        client: &Client,
        scope: &WatchScope,
        config: &ProxyConfig,
        defaults: Arc<ServiceDefaults>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let (sender, triggers) = mpsc::unbounded_channel();
        let sender =
            TriggerSender { sender, list_completed: Trigger::ListCompleted, metrics: metrics.api.clone() };
        let stores = Stores::watch(client, scope, config, &sender);
        Self::new(stores, triggers, scope, config, defaults)
    }

    /// Lists each kind once. The planner does not start watches, so it never receives triggers.
    pub(crate) async fn list(
        client: &Client,
        scope: &WatchScope<'_>,
        config: &ProxyConfig,
        defaults: Arc<ServiceDefaults>,
        metrics: &Metrics,
    ) -> Result<Self, ListError> {
        let (_, triggers) = mpsc::unbounded_channel();
        let stores = Stores::list(client, scope, config, &metrics.api).await?;
        let agents = Agents::for_snapshot(&config.instance);
        Ok(Self { agents, ..Self::new(stores, triggers, scope, config, defaults) })
    }

    fn new(
        stores: Stores,
        triggers: mpsc::UnboundedReceiver<Trigger>,
        scope: &WatchScope,
        config: &ProxyConfig,
        defaults: Arc<ServiceDefaults>,
    ) -> Self {
        Self {
            stores,
            triggers,
            watch_namespace: scope.watch_namespace.map(str::to_owned),
            vip_danger_receiver: None,
            nodes: Arc::default(),
            services: ParsedServices::new(defaults),
            allocations: PortAllocations::default(),
            occupied_ports: HashMap::new(),
            recent_endpoints: RecentEndpoints::default(),
            pod_changes: PodChanges::default(),
            agents: Agents::new(&config.instance),
            address_errors: Vec::new(),
        }
    }

    /// Adds a receiver to the planner. The receiver gets the reason why ipMode VIP is dangerous.
    pub(crate) fn with_vip_danger(self, receiver: watch::Receiver<Option<String>>) -> Self {
        Self { vip_danger_receiver: Some(receiver), ..self }
    }

    /// Waits until all stores are complete. A decision from an incomplete store would delete necessary
    /// proxies.
    pub(crate) async fn wait_until_synced(&self) -> Result<(), WatchEnded> {
        self.stores.wait_until_synced().await
    }

    /// Discards triggers while another replica is the leader. The function returns when the watches end.
    pub(crate) async fn discard_triggers(&mut self) -> WatchEnded {
        let mut batch = Vec::new();
        while self.triggers.recv_many(&mut batch, MAX_TRIGGERS_PER_CALL).await > 0 {
            batch.clear();
        }
        WatchEnded
    }

    /// Allocates ports, and returns every Service in scope.
    ///
    /// The planner deletes its own records, and reads only the state of the cluster. The reason is that another replica
    /// may have been the leader since the last allocation.
    pub(crate) fn resync(&mut self) -> BTreeSet<ServiceKey> {
        self.allocations = PortAllocations::default();
        self.pod_changes = PodChanges::default();
        self.agents.reset(&self.stores.agent_leases(), Instant::now().into_std());
        self.record_all_services();
        let (now, nodes) = (Instant::now().into_std(), self.stores.nodes(self.node_policy()));
        let agents = self.agents.states(Clock::at(now));
        let occupied_nodes = |key: &ServiceKey| self.occupied_ports(key, &nodes, &agents).nodes;
        self.recent_endpoints = assume_endpoints_before_start(&self.stores, &nodes, occupied_nodes, now);
        self.record_all_endpoints();
        self.allocate();
        let mut keys = self.stores.all_keys();
        keys.retain(|key| self.is_in_scope(key));
        keys
    }

    /// Waits for triggers, and returns the Services that need a reconciliation: Services that changed, and Services
    /// whose port allocation changed.
    pub(crate) async fn wait_for_changes(&mut self) -> Result<BTreeSet<ServiceKey>, WatchEnded> {
        let mut batch = Vec::new();
        let mut are_all_services_affected = false;
        let next_silence = self.agents.next_expiry(Instant::now().into_std());
        let expiry = self.recent_endpoints.next_expiry().into_iter().chain(next_silence).min();
        tokio::select! {
            received_count = self.triggers.recv_many(&mut batch, MAX_TRIGGERS_PER_CALL) => {
                if received_count == 0 {
                    return Err(WatchEnded);
                }
            }
            () = wait_for_vip_danger_change(self.vip_danger_receiver.as_mut()) => are_all_services_affected = true,
            () = sleep_until_or_forever(expiry) => (),
        }
        let mut affected_services = BTreeSet::new();
        let services_with_expired_nodes = self.recent_endpoints.expire(Instant::now().into_std());
        let mut needs_allocation =
            services_with_expired_nodes.iter().any(|key| self.allocations.is_contested(key));
        let mut changed_leases = BTreeSet::new();
        for trigger in batch {
            match trigger {
                Trigger::Service(key) => {
                    needs_allocation |= self.record_service(&key) || self.has_new_occupied_ports(&key);
                    affected_services.insert(key);
                }
                Trigger::Workload(key) => {
                    needs_allocation = needs_allocation || self.has_new_occupied_ports(&key);
                    affected_services.insert(key);
                }
                Trigger::Endpoints(key) => {
                    let effect = self.record_endpoints(&key);
                    needs_allocation |= effect == EndpointChange::Allocation;
                    affected_services.extend((effect != EndpointChange::None).then_some(key));
                }
                Trigger::Node(name) => are_all_services_affected |= self.has_node_changed(&name),
                Trigger::AgentLease(name) => _ = changed_leases.insert(name),
                Trigger::ListCompleted => are_all_services_affected = true,
            }
        }
        if are_all_services_affected {
            changed_leases.extend(self.agents.lease_names());
            changed_leases.extend(self.stores.agent_leases().iter().map(|lease| lease.name_any()));
        }
        let leases = changed_leases.into_iter().map(|name| (self.stores.agent_lease(&name), name));
        let agent_changes = self.agents.update(leases, Instant::now().into_std());
        let services_of_agents = self.services_affected_by_agents(&agent_changes);
        needs_allocation =
            needs_allocation || services_of_agents.iter().any(|key| self.has_new_occupied_ports(key));
        affected_services.extend(services_of_agents);
        if are_all_services_affected {
            self.record_all_endpoints();
            affected_services.extend(self.stores.all_keys());
        }
        if are_all_services_affected || needs_allocation {
            affected_services.extend(self.allocate());
        }
        affected_services.retain(|key| self.is_in_scope(key));
        Ok(affected_services)
    }

    /// Returns the new errors in the annotations of nodes since the last call.
    pub(crate) fn take_address_errors(&mut self) -> Vec<NodeAddressError> {
        std::mem::take(&mut self.address_errors)
    }

    /// Returns the nodes of the last allocation.
    pub(crate) fn nodes(&self) -> Arc<Vec<NodeInfo>> {
        self.nodes.clone()
    }

    /// Returns the state of all node agents.
    pub(crate) fn agents(&self, now: Timestamp) -> AgentStates {
        self.agents.states(Clock { now: Instant::now().into_std(), wall_clock: now })
    }

    /// Returns the number of node agents in each state.
    pub(crate) fn agent_counts(&self) -> AgentCounts {
        self.agents.count_by_state(Instant::now().into_std())
    }

    /// Returns the input of the decisions about one Service.
    pub(crate) fn service_state(&mut self, key: &ServiceKey, now: Timestamp) -> ServiceState {
        let service = self.stores.service(key);
        let (workloads, obsolete_workloads) = self.stores.workloads(key, service.as_deref());
        let pods = self.stores.pods(key, &workloads);
        // Only decisions about eligible Services read the times of pod changes.
        let pod_change_times = if let Some(result) = self.allocations.get(key) {
            let may_run_proxy = |node: &NodeInfo| match result {
                AllocationResult::Accepted(spec, allocation) => allocation.allows(spec, node),
                AllocationResult::Rejected(_) => true,
            };
            self.pod_changes.update(key, !workloads.is_empty(), &pods, &self.nodes, may_run_proxy, now)
        } else {
            self.pod_changes.forget(key);
            PodChangeTimes::default()
        };
        let clock = Clock { now: Instant::now().into_std(), wall_clock: now };
        let nodes_with_ready_endpoint = self.stores.nodes_with_ready_endpoint(key);
        let is_local = service.as_deref().is_some_and(is_external_policy_local);
        ServiceState {
            agents: Arc::new(self.agents.states(clock)),
            version: self.agents.service_version(key, clock),
            endpoint_versions: if is_local {
                let newest_version_in_store = || self.stores.newest_endpoint_slice_version(key);
                self.agents.endpoint_versions(key, &nodes_with_ready_endpoint, newest_version_in_store, clock)
            } else {
                BTreeMap::new()
            },
            service,
            allocation_result: self.allocations.get(key).cloned(),
            workloads,
            obsolete_workloads,
            pods,
            nodes: self.nodes.clone(),
            nodes_with_ready_endpoint,
            pod_change_times,
            reserved_ports: self.services.defaults().reserved_ports.clone(),
            is_vip_dangerous: self.services.defaults().vip_danger.is_some(),
        }
    }

    /// Allocates the ports of all Services, and returns the Services whose allocation changed.
    fn allocate(&mut self) -> Vec<ServiceKey> {
        let nodes = self.stores.nodes(self.node_policy());
        let mut defaults = self.services.defaults().clone();
        update_vip_danger(&mut defaults, self.vip_danger_receiver.as_ref(), &nodes);
        if !Arc::ptr_eq(&defaults, self.services.defaults()) {
            self.services.set_defaults(defaults.clone());
        }
        self.record_all_services();
        let agents = self.agents.states(Clock::at(Instant::now().into_std()));
        let occupied_ports = |key: &ServiceKey| self.occupied_ports(key, &nodes, &agents);
        let observations = StoreObservations::new(&occupied_ports, &nodes, &self.recent_endpoints);
        let (services, all_services) = (self.services.iter(), self.services.iter());
        let allocations =
            self.allocations.update_parsed(services, all_services, &nodes, &defaults, &observations);
        self.occupied_ports = observations.into_occupied_ports();
        let changed_services = allocations.services_changed_since(&self.allocations);
        self.address_errors.extend(new_address_errors(&self.nodes, &nodes));
        self.allocations = allocations;
        self.nodes = Arc::new(nodes);
        changed_services
    }

    fn node_policy(&self) -> NodePolicy {
        self.services.defaults().node_policy
    }

    /// Records the current state of a Service. Returns true if its settings have changed. The settings do not contain
    /// the status, so the operator's own status writes do not cause an allocation.
    fn record_service(&mut self, key: &ServiceKey) -> bool {
        let service = self.stores.service(key);
        let has_changed = self.services.update(key, service.as_ref()) == ServiceChange::Settings;
        self.agents.record_service(key, service.as_deref(), !has_changed, Instant::now().into_std());
        if has_changed {
            // A change of endpoints has its own trigger, but a new traffic policy may require the records.
            self.record_endpoints(key);
        }
        has_changed
    }

    fn record_all_services(&mut self) {
        let keys = self.stores.service_keys();
        self.services.retain_existing(|key| keys.contains(key));
        self.agents.retain_services(|key| keys.contains(key));
        for key in &keys {
            self.record_service(key);
        }
    }

    /// Records the nodes with endpoints of a Service.
    fn record_endpoints(&mut self, key: &ServiceKey) -> EndpointChange {
        let service = self.stores.service(key);
        let Some(service) = service.as_ref().filter(|service| is_external_policy_local(service)) else {
            self.recent_endpoints.forget(key);
            self.agents.forget_endpoints(key);
            return EndpointChange::without_external_policy_local(service.as_deref());
        };
        let (nodes, now) = (self.stores.nodes_with_ready_endpoint(key), Instant::now().into_std());
        let newest_version = self.stores.newest_endpoint_slice_version(key);
        self.agents.record_endpoints(key, &nodes, newest_version, now);
        let has_changed = self.recent_endpoints.record(key, service.metadata.uid.as_ref(), &nodes, now);
        EndpointChange::new(has_changed, self.allocations.is_contested(key))
    }

    fn record_all_endpoints(&mut self) {
        let keys = self.stores.service_keys();
        self.recent_endpoints.retain_existing(|key| keys.contains(key));
        self.agents.retain_endpoints(|key| keys.contains(key));
        for key in &keys {
            self.record_endpoints(key);
        }
    }

    /// Returns true if the Service's occupied ports have changed, and the last allocation read these ports.
    fn has_new_occupied_ports(&self, key: &ServiceKey) -> bool {
        let agents = || self.agents.states(Clock::at(Instant::now().into_std()));
        self.occupied_ports
            .get(key)
            .is_some_and(|previous| *previous != self.occupied_ports(key, &self.nodes, &agents()))
    }

    fn occupied_ports(&self, key: &ServiceKey, nodes: &[NodeInfo], agents: &AgentStates) -> OccupiedPorts {
        let Self { stores, services, allocations, .. } = self;
        read_occupied_ports(stores, &self.agents, services, allocations, key, nodes, agents)
    }

    /// Returns the Services whose decisions may change because of these changes of agents.
    fn services_affected_by_agents(&self, changes: &[AgentChange]) -> BTreeSet<ServiceKey> {
        let all_services = || self.services.iter().map(|service| service.key.clone());
        let is_affected = |key: &ServiceKey, change: &AgentChange| {
            let result = self.allocations.get(key);
            result.is_some_and(|result| self.agents.is_service_affected(key, result, change))
        };
        let mut affected_services = BTreeSet::new();
        for change in changes {
            let candidates = self.agents.candidates(change).unwrap_or_else(|| all_services().collect());
            affected_services.extend(candidates.into_iter().filter(|key| is_affected(key, change)));
        }
        affected_services
    }

    /// Returns true if the node differs from the last allocation in a field that decisions read. The kubelet writes the
    /// status of a node every few minutes. Usually only the heartbeat has changed.
    fn has_node_changed(&self, name: &str) -> bool {
        self.nodes.iter().find(|node| node.name == name)
            != self.stores.node(name, self.node_policy()).as_ref()
    }

    /// Returns true if this operator manages the proxies of the Service. An operator that watches one namespace does
    /// not see the Services of other namespaces. The proxies of those Services belong to another operator.
    fn is_in_scope(&self, key: &ServiceKey) -> bool {
        self.watch_namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace)
    }
}
