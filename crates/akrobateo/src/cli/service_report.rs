//! The state of one Service with the operator's decision, and the facts that all commands show. Pure.

use std::collections::BTreeSet;

use akrobateo_core::HostPort;
use akrobateo_services::allocation::AllocationResult;
use akrobateo_services::key::ServiceKey;
use akrobateo_services::node_info::NodeInfo;
use akrobateo_services::published::{is_published, published_addresses};
use akrobateo_services::spec::{LoadBalancerSpec, ProxyWorkload, WorkloadSpec};
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service, ServiceSpec};

use crate::decide::{
    AgentStatus, Decision, RequiredVersions, ServiceState, Workload, agent_status, has_ready_pod,
    lacks_settings, runs_on,
};

/// A Service, or the remaining proxies of a deleted Service. The report includes the operator's decision.
pub(super) struct ServiceReport {
    pub(super) key: ServiceKey,
    pub(super) state: ServiceState,
    pub(super) decision: Decision,
}

impl ServiceReport {
    /// Returns the Service, or `None` if the Service was deleted.
    pub(super) fn service(&self) -> Option<&Service> {
        self.state.service.as_deref()
    }

    /// Returns the spec of the Service.
    pub(super) fn service_spec(&self) -> Option<&ServiceSpec> {
        self.service().and_then(|service| service.spec.as_ref())
    }

    /// Returns true if the Service has type LoadBalancer, or if workloads of its proxies still exist.
    pub(super) fn is_shown_by_commands(&self) -> bool {
        let service_type = self.service_spec().and_then(|spec| spec.type_.as_deref());
        service_type == Some("LoadBalancer") || !self.state.workloads.is_empty()
    }

    /// Returns the ports of the Service's spec in the form `80/TCP`.
    pub(super) fn port_names(&self) -> Vec<String> {
        let ports = self.service_spec().into_iter().flat_map(|spec| spec.ports.iter().flatten());
        ports.map(|port| format!("{}/{}", port.port, port.protocol.as_deref().unwrap_or("TCP"))).collect()
    }

    /// Returns the addresses and host names in the Service's status.
    pub(super) fn addresses(&self) -> Vec<String> {
        let ingress = self.service().map(published_addresses).unwrap_or_default();
        let address = |entry: &LoadBalancerIngress| entry.ip.clone().or_else(|| entry.hostname.clone());
        ingress.iter().filter_map(address).collect()
    }

    /// Returns the spec of an accepted Service.
    pub(super) fn accepted_spec(&self) -> Option<&LoadBalancerSpec> {
        match &self.state.allocation_result {
            Some(AllocationResult::Accepted(spec, _)) => Some(spec),
            Some(AllocationResult::Rejected(_)) | None => None,
        }
    }

    /// Returns true if the node agents forward the Service.
    pub(super) fn is_shared(&self) -> bool {
        self.accepted_spec().is_some_and(LoadBalancerSpec::is_shared)
    }

    /// Returns true if the Service is rejected, and the node agents forward it with its last valid settings.
    pub(super) fn is_kept_by_agents(&self) -> bool {
        self.state.nodes.iter().any(|node| self.is_kept_on_node(node))
    }

    /// Returns true if the agent of the node should forward the rejected Service with its last valid settings.
    fn is_kept_on_node(&self, node: &NodeInfo) -> bool {
        matches!(self.state.allocation_result, Some(AllocationResult::Rejected(_)))
            && self.state.workloads.is_empty()
            && self.state.pods.is_empty()
            && self.is_published(node)
    }

    /// Returns true if the Service's status contains an address of the node.
    pub(super) fn is_published(&self, node: &NodeInfo) -> bool {
        self.service().is_some_and(|service| is_published(service, node))
    }

    /// Returns the workload of a Service as a value of the annotation `akrobateo.io/workload`. Returns `None` for a
    /// rejected Service, unless the node agents still forward it.
    pub(super) fn forwarding_mode(&self) -> Option<&'static str> {
        if self.is_kept_by_agents() {
            return Some("Shared");
        }
        Some(match self.accepted_spec()?.workload {
            WorkloadSpec::Shared => "Shared",
            WorkloadSpec::Dedicated(ProxyWorkload::DaemonSet) => "DaemonSet",
            WorkloadSpec::Dedicated(ProxyWorkload::Deployment { .. }) => "Deployment",
        })
    }

    /// Returns the status of the Service on a node, according to the agent of this node. A Service that is not accepted
    /// has the status `Absent`.
    ///
    /// Only the operator knows in which version of the Service its settings changed last. Each change of the status
    /// also creates a new version, and an agent reports the new version some seconds later. So an agent without the
    /// newest version serves the Service if the operator publishes the node.
    pub(super) fn agent_status(&self, node: &NodeInfo) -> AgentStatus {
        let Some(spec) = self.accepted_spec() else { return AgentStatus::Absent };
        match agent_status(&self.state, &self.key, spec, node) {
            AgentStatus::Outdated if self.is_published(node) => AgentStatus::Serving,
            status => status,
        }
    }

    /// Returns the nodes on which the Service owns its ports: the nodes of its proxies, or the nodes whose agents serve
    /// the Service.
    pub(super) fn owned_nodes(&self) -> Vec<&NodeInfo> {
        let mut nodes = self.proxy_nodes();
        if self.is_shared() {
            nodes.retain(|node| {
                self.agent_status(node) == AgentStatus::Serving
                    && (!self.lacks_endpoint(node) || self.is_published(node))
            });
        }
        nodes
    }

    /// Returns true if the Service has externalTrafficPolicy Local and the node has no ready endpoint, so the agent of
    /// the node refuses clients.
    pub(super) fn lacks_endpoint(&self, node: &NodeInfo) -> bool {
        self.is_shared()
            && self.accepted_spec().is_some_and(|spec| spec.is_external_traffic_policy_local)
            && !self.state.nodes_with_ready_endpoint.contains(&node.name)
    }

    /// Returns the ports that the proxies use on their nodes. A rejected Service keeps the ports of its previous
    /// proxies.
    pub(super) fn host_ports(&self) -> BTreeSet<HostPort> {
        match &self.state.allocation_result {
            None => BTreeSet::new(),
            Some(AllocationResult::Rejected(_)) => {
                self.state.workloads.iter().flat_map(Workload::host_ports).collect()
            }
            Some(AllocationResult::Accepted(spec, _)) => spec.host_ports(),
        }
    }

    /// Returns the nodes that should have a proxy. In shared mode, returns the nodes whose agents should serve the
    /// Service. The proxies of a rejected Service stay on their nodes, and the agents of published nodes keep it.
    pub(super) fn proxy_nodes(&self) -> Vec<&NodeInfo> {
        let nodes = self.state.nodes.iter();
        match &self.state.allocation_result {
            None => Vec::new(),
            Some(AllocationResult::Rejected(_)) => {
                nodes.filter(|node| self.has_pod_on_node(node) || self.is_kept_on_node(node)).collect()
            }
            Some(AllocationResult::Accepted(spec, allocation)) => {
                let is_served = |node: &NodeInfo| {
                    spec.is_shared()
                        && spec.nodes.matches(node)
                        && self.agent_status(node) == AgentStatus::Serving
                };
                // Without any endpoint, all nodes should serve the Service as soon as they have one.
                let has_endpoints = !self.state.nodes_with_ready_endpoint.is_empty();
                nodes
                    .filter(|node| allocation.allows(spec, node) || is_served(node))
                    .filter(|node| !has_endpoints || !self.lacks_endpoint(node))
                    .collect()
            }
        }
    }

    /// Returns the number of proxies that should run. In shared mode, returns the number of nodes whose agents should
    /// serve the Service.
    pub(super) fn desired_proxy_count(&self) -> usize {
        let nodes = self.proxy_nodes().len();
        match &self.state.allocation_result {
            Some(AllocationResult::Accepted(spec, _)) if !spec.is_shared() => spec.proxy_count(nodes),
            _ => nodes,
        }
    }

    /// Returns the number of nodes with a ready proxy. In shared mode, returns the number of nodes whose agents serve
    /// the Service.
    pub(super) fn ready_proxy_count(&self) -> usize {
        let has_agents = self.is_shared() || self.is_kept_by_agents();
        let nodes = if has_agents { self.proxy_nodes() } else { self.state.nodes.iter().collect() };
        nodes.into_iter().filter(|node| self.has_ready_proxy_on_node(node)).count()
    }

    /// Returns true if the node has a ready proxy, or if its agent serves the Service.
    pub(super) fn has_ready_proxy_on_node(&self, node: &NodeInfo) -> bool {
        let is_served =
            self.is_shared() && self.agent_status(node) == AgentStatus::Serving && !self.lacks_endpoint(node);
        is_served
            || has_ready_pod(&self.state.pods, &node.name)
            || (self.is_kept_on_node(node) && self.serves_last_settings(node))
    }

    /// Returns true if the agent of a node works, and knows the last valid settings of a rejected Service.
    fn serves_last_settings(&self, node: &NodeInfo) -> bool {
        let observed_report = self.state.agents.get(&node.name).map(|agent| &agent.observed_report);
        AgentStatus::new(observed_report, &self.key, RequiredVersions::default()) == AgentStatus::Serving
            && observed_report.is_some_and(|it| !lacks_settings(&it.report, &self.key))
    }

    pub(super) fn has_pod_on_node(&self, node: &NodeInfo) -> bool {
        self.state.pods.iter().any(|pod| runs_on(pod, &node.name))
    }
}
