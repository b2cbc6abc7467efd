//! The node agents, and the versions that their rules must contain. Pure: the time is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use akrobateo_services::allocation::{AllocationResult, OccupiedPorts};
use akrobateo_services::key::ServiceKey;
use akrobateo_services::node_info::NodeInfo;
use akrobateo_services::parsed_services::ParsedService;
use akrobateo_services::spec::LoadBalancerSpec;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Service;

use super::agent_counts::{MAX_APPLY_TIME, count_agents};
use super::agent_facts::{AgentFacts, changes_only_services, named_services, ports_of_accepted_service};
use super::agent_registry::{AgentChange, AgentRegistry};
use super::clock::Clock;
use super::versions::{EndpointVersions, SeenVersion, ServiceVersions};
use crate::decide::{AgentStates, ObservedReport, ObservedVersion, RequiredVersions};
use crate::metrics::AgentCounts;

/// The node agents, and the versions that their rules must contain.
#[derive(Debug)]
pub(super) struct Agents {
    instance: String,
    /// True if a command reads each Lease only once. A command cannot measure the time since the last renewal.
    is_snapshot: bool,
    registry: AgentRegistry,
    service_versions: ServiceVersions,
    endpoint_versions: EndpointVersions,
    /// The number of comparisons of reports with Services.
    #[cfg(test)]
    pub(super) comparison_count: std::cell::Cell<usize>,
}

impl Agents {
    pub(super) fn new(instance: &str) -> Self {
        Self {
            instance: instance.to_owned(),
            is_snapshot: false,
            registry: AgentRegistry::default(),
            service_versions: ServiceVersions::default(),
            endpoint_versions: EndpointVersions::default(),
            #[cfg(test)]
            comparison_count: std::cell::Cell::default(),
        }
    }

    /// Returns the agents for a command that reads each Lease only once.
    pub(super) fn for_snapshot(instance: &str) -> Self {
        Self { is_snapshot: true, ..Self::new(instance) }
    }

    /// Deletes all records, and reads the Leases again. Treats each Lease as renewed now.
    pub(super) fn reset(&mut self, leases: &[Arc<Lease>], now: Instant) {
        self.registry = AgentRegistry::from_leases(&self.instance, leases, now);
        if self.is_snapshot {
            self.registry.mark_silent_by_renew_times();
        }
        (self.service_versions, self.endpoint_versions) =
            (ServiceVersions::default(), EndpointVersions::default());
    }

    /// Returns the names of all agents' Leases.
    pub(super) fn lease_names(&self) -> impl Iterator<Item = String> {
        self.registry.lease_names()
    }

    /// Returns the next time when an agent may become silent or disappear; `None` if no agent can.
    pub(super) fn next_expiry(&self, now: Instant) -> Option<Instant> {
        self.registry.next_expiry(now).filter(|_| !self.is_snapshot)
    }

    /// Records the current state of these Leases, and finds the agents that have become silent. Returns the changed
    /// agents.
    pub(super) fn update(
        &mut self,
        leases: impl Iterator<Item = (Option<Arc<Lease>>, String)>,
        now: Instant,
    ) -> Vec<AgentChange> {
        let mut changes: Vec<_> = leases
            .flat_map(|(lease, name)| self.registry.update(&self.instance, &name, lease.as_deref(), now))
            .collect();
        changes.extend(self.registry.expire(now));
        changes.iter().for_each(log_change);
        changes
    }

    /// Returns the Services whose decisions the change may affect; `None` if the change may affect all Services. Usually
    /// an agent has only applied newer versions. Then only the Services with one of these versions may be affected.
    pub(super) fn candidates(&self, change: &AgentChange) -> Option<BTreeSet<ServiceKey>> {
        let (previous, current) = (change.previous_report.as_ref()?, change.current_report.as_ref()?);
        if !changes_only_services(previous, current) {
            return None;
        }
        let mut candidates = named_services(&previous.report);
        candidates.extend(named_services(&current.report));
        let (before, after) =
            (previous.report.applied_versions.as_ref()?, current.report.applied_versions.as_ref()?);
        let (first, last) = (before.services.min(after.services), before.services.max(after.services));
        candidates.extend(self.service_versions.find_between(first, last).cloned());
        let first = before.endpoint_slices.min(after.endpoint_slices);
        let last = before.endpoint_slices.max(after.endpoint_slices);
        candidates.extend(self.endpoint_versions.find_between(&change.node, first, last).cloned());
        Some(candidates)
    }

    /// Returns true if the change may affect the decision about the Service.
    pub(super) fn is_service_affected(
        &self,
        key: &ServiceKey,
        result: &AllocationResult,
        change: &AgentChange,
    ) -> bool {
        #[cfg(test)]
        self.comparison_count.set(self.comparison_count.get() + 1);
        let required_versions_on_node = self.required_versions(key, &change.node);
        let facts =
            |observed_report| AgentFacts::new(result, key, required_versions_on_node, observed_report);
        facts(change.previous_report.as_ref()) != facts(change.current_report.as_ref())
    }

    /// Returns the versions that the rules on a node must contain.
    fn required_versions(&self, key: &ServiceKey, node: &str) -> RequiredVersions {
        RequiredVersions {
            service: self.service_versions.get(key).map_or(0, |recorded_version| recorded_version.version),
            endpoint_slices: self
                .endpoint_versions
                .get(key, node)
                .map_or(0, |recorded_version| recorded_version.version),
        }
    }

    /// Returns the state of all agents.
    pub(super) fn states(&self, clock: Clock) -> AgentStates {
        self.registry.states(clock)
    }

    /// Returns the number of agents in each state.
    pub(super) fn count_by_state(&self, now: Instant) -> AgentCounts {
        let expected_version =
            now.checked_sub(MAX_APPLY_TIME).map_or(0, |time| self.service_versions.newest_seen_until(time));
        count_agents(self.registry.reports(), expected_version)
    }

    /// Returns the ports that the agents use for an accepted Service with this spec.
    pub(super) fn occupied_ports(
        &self,
        service: &ParsedService,
        spec: &LoadBalancerSpec,
        nodes: &[NodeInfo],
        agents: &AgentStates,
    ) -> OccupiedPorts {
        let required_versions_on_node = |node: &NodeInfo| self.required_versions(&service.key, &node.name);
        ports_of_accepted_service(service, spec, nodes, agents, required_versions_on_node)
    }

    /// Records the version of a Service; `None` if the Service does not exist. `has_same_settings` is true if the settings
    /// of the Service have not changed since the last call. If they have not changed, the agents need not apply the new
    /// version.
    pub(super) fn record_service(
        &mut self,
        key: &ServiceKey,
        service: Option<&Service>,
        has_same_settings: bool,
        now: Instant,
    ) {
        match service {
            Some(service) => self.service_versions.record(key, service, has_same_settings, now),
            None => self.service_versions.forget(key),
        }
    }

    /// Removes the records of all Services that do not exist.
    pub(super) fn retain_services(&mut self, exists: impl Fn(&ServiceKey) -> bool) {
        self.service_versions.retain_existing(exists);
    }

    /// Returns the version of a Service that the rules must contain.
    pub(super) fn service_version(&self, key: &ServiceKey, clock: Clock) -> ObservedVersion {
        self.service_versions.get(key).map_or_else(ObservedVersion::default, |recorded_version| {
            recorded_version.to_observed_version(clock)
        })
    }

    /// Records the nodes with an endpoint. `newest_version` is the newest version of all `EndpointSlices` of the
    /// Service.
    pub(super) fn record_endpoints(
        &mut self,
        key: &ServiceKey,
        nodes: &BTreeSet<String>,
        newest_version: u64,
        now: Instant,
    ) {
        self.endpoint_versions.record(key, nodes, newest_version, now);
    }

    /// Removes the records about the endpoints of a Service.
    pub(super) fn forget_endpoints(&mut self, key: &ServiceKey) {
        self.endpoint_versions.forget(key);
    }

    /// Removes the records about the endpoints of all Services that do not exist.
    pub(super) fn retain_endpoints(&mut self, exists: impl Fn(&ServiceKey) -> bool) {
        self.endpoint_versions.retain_existing(exists);
    }

    /// Returns the versions of the `EndpointSlices` for each node with an endpoint. If the planner has not recorded a
    /// node yet, `newest_version` returns the version for this node.
    pub(super) fn endpoint_versions(
        &self,
        key: &ServiceKey,
        nodes: &BTreeSet<String>,
        newest_version: impl Fn() -> u64,
        clock: Clock,
    ) -> BTreeMap<String, ObservedVersion> {
        let version_of_node = |node: &String| {
            let recorded_version = self.endpoint_versions.get(key, node);
            recorded_version
                .unwrap_or_else(|| SeenVersion { version: newest_version(), seen_at: clock.now })
                .to_observed_version(clock)
        };
        nodes.iter().map(|node| (node.clone(), version_of_node(node))).collect()
    }
}

fn log_change(change: &AgentChange) {
    let AgentChange { node, previous_report, current_report } = change;
    let is_reporting = |observed_report: &Option<ObservedReport>| {
        observed_report.as_ref().is_some_and(|observed_report| !observed_report.is_silent)
    };
    match (is_reporting(previous_report), is_reporting(current_report)) {
        (true, false) => tracing::warn!(node, "the node agent has not renewed its Lease in time"),
        (false, true) => tracing::info!(node, "the node agent reports"),
        _ => (),
    }
}
