//! The state of a running agent: its observations, its plan, and the state of its data path. Reads the node's sockets
//! and interfaces, and does no other I/O.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use akrobateo_core::Frontend;
use akrobateo_services::agent_report::{AgentReport, AppliedVersions, ConntrackUse};
use akrobateo_services::node_info::{NodeInfo, NodePolicy};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;

use super::node_kernel::NodeKernel;
use super::observer::DataPathEvent;
use super::report::{DataPathState, build_report};
use crate::cluster::{Agents, ProxyLabels, Stores, Trigger, host_port_pod};
use crate::config::NodeConfig;
use crate::host::HostNetwork;
use crate::listeners::Listeners;
use crate::marks::{Marks, NodeNumber};
use crate::plan::{Observation, Plan, Planner, choose_number};

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
    /// The marks of packets on the node.
    pub(super) marks: Marks,
    /// The administrator's settings that decide which addresses of a Node object the agent uses.
    pub(super) node_policy: NodePolicy,
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
    /// The frontends in the rules at the start of the process.
    installed_frontends: BTreeSet<Frontend>,
    listeners: Listeners,
    network: Option<HostNetwork>,
    conntrack: Option<ConntrackUse>,
    /// The reports of the other agents that were alive at the last plan.
    peer_reports: Vec<AgentReport>,
    plan: Option<Plan>,
    data_path: DataPathState,
    /// The configuration that the data path has not applied yet.
    pending_config: Option<PendingConfig>,
    newest_config_id: u64,
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
        installed_frontends: BTreeSet<Frontend>,
    ) -> Self {
        let agents = Agents::new(&identity.instance, &identity.node_name);
        Self {
            identity,
            kernel,
            stores,
            agents,
            planned_nodes: HashMap::new(),
            planner,
            installed_frontends,
            listeners: Listeners::default(),
            network: None,
            conntrack: None,
            peer_reports: Vec::new(),
            plan: None,
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

    /// Records the changes that the triggers report. Returns true if a new plan is necessary.
    pub(super) fn on_triggers(&mut self, triggers: Vec<Trigger>, now: Instant) -> bool {
        let mut needs_plan = false;
        for trigger in triggers {
            needs_plan |= match trigger {
                Trigger::ServicesOrPods => true,
                Trigger::ListCompleted => {
                    self.record_all_leases(now);
                    true
                }
                Trigger::HostNetwork => self.read_host(),
                Trigger::Node(name) => self.stores.node(&name).as_ref() != self.planned_nodes.get(&name),
                Trigger::Lease(name) => self.record_lease(&name, now),
            };
        }
        needs_plan
    }

    fn record_lease(&mut self, name: &str, now: Instant) -> bool {
        let lease = self.stores.lease(name, &self.identity.namespace);
        self.agents.update(name, lease.as_deref(), now)
    }

    /// Reads the node's listening sockets and its network again. Returns true if the sockets or the network have
    /// changed. After an error, the result of the previous read remains.
    pub(super) fn read_host(&mut self) -> bool {
        let conntrack = self.kernel.read_conntrack_use().ok();
        self.conntrack = conntrack.map(|it| ConntrackUse { count: it.count.into(), max: it.max.into() });
        let mut has_changed = false;
        match self.kernel.read_listeners() {
            Ok(listeners) => {
                has_changed |= listeners != self.listeners;
                self.listeners = listeners;
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "cannot read the listening sockets of the node");
            }
        }
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
        has_changed
    }

    /// Makes a new plan. Returns the ID and the new configuration of the data path if it has changed.
    pub(super) fn make_plan(&mut self, now: Instant) -> Option<(u64, NodeConfig)> {
        // If this plan fails, the next change triggers a plan. A time in the past would trigger the next plan
        // immediately.
        if let Some(plan) = &mut self.plan {
            plan.next_plan_at = None;
        }
        let network = self.network.clone()?;
        let (services, endpoint_slices) = self.stores.newest_versions();
        let versions = AppliedVersions { services, endpoint_slices };
        self.peer_reports = self.agents.alive_peer_reports(now);
        let nodes = self.stores.nodes();
        self.planned_nodes = nodes.iter().map(|node| (node.name_any(), Arc::clone(node))).collect();
        let addresses = network.local_addresses.clone();
        let (listeners, proxy_labels) = (&self.listeners, &self.identity.proxy_labels);
        let pods = self.stores.pods();
        let observation = Observation {
            node_name: &self.identity.node_name,
            number: self.node_number(),
            marks: self.identity.marks,
            services: self.stores.services(),
            endpoint_slices: self.stores.endpoint_slices(),
            nodes,
            peer_reports: self.peer_reports.clone(),
            pods: pods.iter().filter_map(|pod| host_port_pod(pod, proxy_labels, &addresses)).collect(),
            installed_frontends: &self.installed_frontends,
            has_listener: &|frontend| listeners.has_listener(frontend, &addresses),
            network,
        };
        let plan = self.planner.plan(&observation, now)?;
        let is_same_config = self.plan.as_ref().is_some_and(|previous| previous.config == plan.config);
        let config = plan.config.clone();
        self.plan = Some(plan);
        if is_same_config {
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
        Some((self.newest_config_id, config))
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
