//! The state of a running agent: its observations, its plan, and the state of its data path. Reads the node's sockets
//! and interfaces, and does no other I/O.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use akrobateo_services::agent_report::{AgentReport, AppliedVersions, ConntrackUse};
use akrobateo_services::endpoints::serving_nodes;
use akrobateo_services::key::ServiceKey;
use akrobateo_services::node_info::{NodeInfo, NodePolicy};
use akrobateo_services::parsed_services::ServiceChange;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;

use super::node_kernel::NodeKernel;
use super::observer::DataPathEvent;
use super::report::{DataPathState, build_report};
use crate::cluster::{Agents, ProxyLabels, Stores, Trigger, host_port_pod, resource_version};
use crate::config::NodeConfig;
use crate::host::HostNetwork;
use crate::listeners::Listeners;
use crate::marks::{Marks, NodeNumber};
use crate::plan::{InstalledServices, Observation, PeerReports, Plan, Planner, choose_number};

#[cfg(test)]
mod tests;

/// The identity of the agent in the cluster.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    /// The name of the node.
    pub(super) node_name: String,
    /// The name of the operator's instance.
    pub(super) instance: String,
    /// The namespace of the agents.
    pub(super) namespace: String,
    /// The labels and the namespace of proxies.
    pub(super) proxy_labels: ProxyLabels,
    /// The administrator's settings that decide which addresses of a Node object the agent uses.
    pub(super) node_policy: NodePolicy,
    /// The marks of packets on the node.
    pub(super) marks: Marks,
}

/// The state of a running agent.
pub(super) struct AgentState {
    identity: Identity,
    kernel: Arc<dyn NodeKernel>,
    stores: Stores,
    agents: Agents,
    /// The Node objects of the last plan, by name.
    planned_nodes: HashMap<String, Arc<Node>>,
    planner: Planner,
    /// The changes since the last plan.
    pending_changes: PendingChanges,
    awaited_versions: AppliedVersions,
    /// The Services in the rules at the start of the process; empty after the first plan.
    installed: InstalledServices,
    listeners: Listeners,
    network: Option<HostNetwork>,
    conntrack: Option<ConntrackUse>,
    /// The reports of the other agents at the last plan.
    peer_reports: PeerReports,
    plan: Option<Plan>,
    /// True if the data path has not received the configuration of the plan yet.
    has_new_config: bool,
    data_path: DataPathState,
    /// The configuration that the data path has not applied yet.
    pending_config: Option<PendingConfig>,
    newest_config_id: u64,
}

/// A new configuration of the data path.
#[derive(Debug, PartialEq)]
pub(super) struct NewConfig {
    pub(super) id: u64,
    pub(super) config: NodeConfig,
    /// True if the configuration differs from the previous one only in endpoints.
    pub(super) changes_only_endpoints: bool,
}

/// The changes since the last plan.
#[derive(Debug, Default)]
struct PendingChanges {
    /// True if the agent must make the plan of all Services again.
    affects_all_services: bool,
    /// The Services whose endpoints have changed.
    services_with_new_endpoints: BTreeSet<ServiceKey>,
}

/// A configuration that the data path has not applied yet.
#[derive(Debug)]
struct PendingConfig {
    id: u64,
    versions: AppliedVersions,
}

impl AgentState {
    pub(super) fn new(
        identity: Identity,
        kernel: Arc<dyn NodeKernel>,
        stores: Stores,
        planner: Planner,
        installed: InstalledServices,
    ) -> Self {
        let agents = Agents::new(&identity.instance, &identity.node_name);
        Self {
            identity,
            kernel,
            stores,
            agents,
            planned_nodes: HashMap::new(),
            planner,
            pending_changes: PendingChanges::default(),
            awaited_versions: AppliedVersions::default(),
            installed,
            listeners: Listeners::default(),
            network: None,
            conntrack: None,
            peer_reports: PeerReports::default(),
            plan: None,
            has_new_config: false,
            data_path: DataPathState::default(),
            pending_config: None,
            newest_config_id: 0,
        }
    }

    /// Returns the Node object of this node; `None` while the object does not exist.
    pub(super) fn own_node(&self) -> Option<Arc<Node>> {
        self.stores.node(&self.identity.node_name)
    }

    /// Records the current content of all Leases, and forgets the Leases that no longer exist.
    pub(super) fn record_all_leases(&mut self, now: Instant) {
        let names: BTreeSet<_> =
            self.stores.lease_names().into_iter().chain(self.agents.lease_names()).collect();
        for name in names {
            self.record_lease(&name, now);
        }
    }

    /// Records the current state of all Services, and forgets the Services that no longer exist.
    pub(super) fn record_all_services(&mut self) {
        let services = self.stores.services();
        let keys: HashSet<_> = services.iter().map(|it| ServiceKey::from_service(&it.service)).collect();
        self.planner.retain_services(|key| keys.contains(key));
        for key in &keys {
            self.record_service(key);
        }
    }

    fn record_service(&mut self, key: &ServiceKey) -> bool {
        let observed = self.stores.service(key);
        let service = observed.as_ref().map(|it| (it.service.clone(), it.published_addresses.clone()));
        let change = self.planner.update_service(key, service);
        if change == ServiceChange::Settings {
            let version = observed.map(|it| resource_version(&*it.service)).unwrap_or_default();
            self.awaited_versions.services = self.awaited_versions.services.max(version);
            self.await_endpoints(key);
        }
        self.planner.needs_plan(key, change)
    }

    /// Records that the operator waits for the newest endpoints if the Service has externalTrafficPolicy Local and an
    /// endpoint on this node. The operator does not wait for a node without an endpoint.
    fn await_endpoints(&mut self, key: &ServiceKey) {
        if self.planner.is_external_policy_local(key) && self.has_own_endpoint(key) {
            let (_, newest_version) = self.stores.newest_versions();
            self.awaited_versions.endpoint_slices = newest_version;
        }
    }

    fn has_own_endpoint(&self, key: &ServiceKey) -> bool {
        let slices = self.stores.endpoint_slices(key);
        let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
        serving_nodes(endpoints).contains(&self.identity.node_name)
    }

    /// Returns the versions of Services and endpoints for which the operator may wait. The operator waits for changed
    /// settings of a Service, and for changed endpoints of a Service with externalTrafficPolicy Local.
    pub(super) const fn awaited_versions(&self) -> &AppliedVersions {
        &self.awaited_versions
    }

    /// Records the changes that the triggers report. Returns true if [`Self::make_plan`] must be called.
    pub(super) fn on_triggers(&mut self, triggers: Vec<Trigger>, now: Instant) -> bool {
        let mut needs_plan = false;
        for trigger in triggers {
            let affects_all_services = match trigger {
                Trigger::Service(key) => {
                    // The report contains the version of the Service, even if nothing else has changed.
                    needs_plan = true;
                    self.record_service(&key)
                }
                Trigger::Endpoints(key) => {
                    needs_plan = true;
                    self.await_endpoints(&key);
                    self.pending_changes.services_with_new_endpoints.insert(key);
                    false
                }
                Trigger::Pod => true,
                Trigger::ListCompleted => {
                    self.record_all_leases(now);
                    self.record_all_services();
                    true
                }
                Trigger::HostNetwork => self.read_host(),
                Trigger::Node(name) => self.stores.node(&name).as_ref() != self.planned_nodes.get(&name),
                Trigger::Lease(name) => self.record_lease(&name, now),
            };
            self.pending_changes.affects_all_services |= affects_all_services;
            needs_plan |= affects_all_services;
        }
        needs_plan
    }

    fn record_lease(&mut self, name: &str, now: Instant) -> bool {
        let lease = self.stores.lease(name, &self.identity.namespace);
        self.agents.update(name, lease.as_deref(), now)
    }

    /// Reads the node's listening sockets. Returns true if they have changed. After an error, the previous sockets remain.
    fn read_listeners(&mut self) -> bool {
        match self.kernel.read_listeners() {
            Ok(listeners) => std::mem::replace(&mut self.listeners, listeners) != self.listeners,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "cannot read the listening sockets of the node");
                false
            }
        }
    }

    /// Reads the node's listening sockets and its network again. Returns true if the sockets or the network have
    /// changed. After an error, the result of the previous read remains.
    pub(super) fn read_host(&mut self) -> bool {
        let conntrack = self.kernel.read_conntrack_use().ok();
        self.conntrack = conntrack.map(|it| ConntrackUse { count: it.count.into(), max: it.max.into() });
        let mut has_changed = self.read_listeners();
        self.pending_changes.affects_all_services |= has_changed;
        let Some(node) = self.own_node() else { return has_changed };
        let addresses = NodeInfo::new(&node, self.identity.node_policy).all_addresses();
        match self.kernel.read_network(&addresses) {
            Ok(network) => {
                has_changed |= self.network.as_ref() != Some(&network);
                self.network = Some(network);
                self.data_path.host_error = None;
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot read the network of the node"
                );
                self.data_path.host_error = Some(error.to_string());
            }
        }
        self.pending_changes.affects_all_services |= has_changed;
        has_changed
    }

    /// Makes a new plan. Returns the configuration of the data path if it has changed.
    pub(super) fn make_plan(&mut self, now: Instant) -> Option<NewConfig> {
        let changes = std::mem::take(&mut self.pending_changes);
        let is_due = self.next_plan_at().is_some_and(|planned_at| planned_at <= now);
        // The caller has handled the triggers of all changes in the stores, so the plan contains these versions.
        let (services, endpoint_slices) = self.stores.newest_versions();
        let versions = AppliedVersions { services, endpoint_slices };
        let changes_only_endpoints = !changes.affects_all_services
            && !is_due
            && self.update_endpoints(&changes.services_with_new_endpoints, now);
        if !changes_only_endpoints {
            self.plan_all_services(now)?;
        }
        if !std::mem::take(&mut self.has_new_config) {
            match &mut self.pending_config {
                Some(pending) => pending.versions = versions,
                // The configuration has not changed, so the installed rules already contain the new versions.
                None if self.data_path.error.is_none() => self.data_path.applied_versions = Some(versions),
                None => {}
            }
            return None;
        }
        self.newest_config_id += 1;
        self.pending_config = Some(PendingConfig { id: self.newest_config_id, versions });
        Some(NewConfig { id: self.newest_config_id, config: self.config()?.clone(), changes_only_endpoints })
    }

    /// Changes the endpoints of Services in the last plan. Returns false if a plan of all Services is necessary.
    fn update_endpoints(&mut self, keys: &BTreeSet<ServiceKey>, now: Instant) -> bool {
        let Some(plan) = &mut self.plan else { return false };
        keys.iter().all(|key| {
            let slices = self.stores.endpoint_slices(key);
            let has_changed = self.planner.update_endpoints(plan, key, &slices, now);
            self.has_new_config |= has_changed == Some(true);
            has_changed.is_some()
        })
    }

    /// Makes a plan of all Services. Returns `None` if no plan is possible yet.
    fn plan_all_services(&mut self, now: Instant) -> Option<()> {
        // If this plan fails, the next change triggers a plan. A time in the past would trigger the next plan
        // immediately.
        if let Some(plan) = &mut self.plan {
            plan.next_plan_at = None;
        }
        // Until the plan is made, each change requires a plan of all Services.
        self.pending_changes.affects_all_services = true;
        // A process may have started since the last read. Its port must not go to a new Service.
        self.read_listeners();
        let network = self.network.clone()?;
        self.peer_reports = self.agents.peer_reports(now);
        let nodes = self.stores.nodes();
        self.planned_nodes = nodes.iter().map(|node| (node.name_any(), Arc::clone(node))).collect();
        let addresses = network.local_addresses.clone();
        let (listeners, proxy_labels) = (&self.listeners, &self.identity.proxy_labels);
        let pods = self.stores.pods();
        let observation = Observation {
            node_name: &self.identity.node_name,
            number: self.node_number(),
            marks: self.identity.marks,
            endpoint_slices: &|key| self.stores.endpoint_slices(key),
            nodes,
            peer_reports: &self.peer_reports,
            pods: pods.iter().filter_map(|pod| host_port_pod(pod, proxy_labels, &addresses)).collect(),
            installed: &self.installed,
            has_listener: &|frontend| listeners.has_listener(frontend, &addresses),
            network,
        };
        let plan = self.planner.plan(&observation, now)?;
        // Only the first plan needs the rules of the earlier process.
        self.installed = InstalledServices::default();
        self.pending_changes.affects_all_services = false;
        let previous_config = self.plan.as_ref().map(|previous| &previous.config);
        self.has_new_config |= previous_config != Some(&plan.config);
        self.plan = Some(plan);
        Some(())
    }

    fn node_number(&self) -> NodeNumber {
        let claims = self.agents.number_claims();
        let own_number = self.plan.as_ref().map(|plan| plan.config.node.number);
        let has_own_lease = claims.iter().any(|claim| claim.node == self.identity.node_name);
        // Until the watch returns this agent's own Lease, the agent keeps the number that it has chosen.
        match own_number {
            Some(number) if !has_own_lease => number,
            _ => choose_number(&self.identity.node_name, &claims),
        }
    }

    /// Returns the configuration of the last plan; `None` before the first plan.
    pub(super) fn config(&self) -> Option<&NodeConfig> {
        self.plan.as_ref().map(|plan| &plan.config)
    }

    /// Records an event of the data path.
    pub(super) fn on_data_path_event(&mut self, event: DataPathEvent) {
        match event {
            DataPathEvent::Modes(modes) => self.data_path.modes = modes,
            DataPathEvent::Applied(_, Err(failure), _) => self.data_path.error = Some(failure.message),
            DataPathEvent::Applied(id, Ok(()), _) => {
                self.data_path.error = None;
                if let Some(pending) = self.pending_config.take_if(|pending| pending.id == id) {
                    self.data_path.applied_versions = Some(pending.versions);
                }
            }
        }
    }

    /// Returns the time at which a new plan is necessary if nothing happens earlier.
    pub(super) fn next_plan_at(&self) -> Option<Instant> {
        let planned_at = self.plan.as_ref().and_then(|plan| plan.next_plan_at);
        planned_at.into_iter().chain(self.agents.next_expiry(Instant::now())).min()
    }

    /// Returns true after the first rules were installed.
    pub(super) fn has_applied_rules(&self) -> bool {
        self.data_path.applied_versions.is_some()
    }

    /// Returns true if the rules contain the newest plan.
    pub(super) fn has_current_rules(&self) -> bool {
        self.pending_config.is_none() && self.data_path.error.is_none()
    }

    /// Returns the current report; `None` before the first plan.
    pub(super) fn report(&self) -> Option<AgentReport> {
        let plan = self.plan.as_ref()?;
        Some(build_report(
            &self.identity.node_name,
            plan,
            &self.data_path,
            &self.peer_reports,
            self.conntrack,
        ))
    }
}
