//! The readiness of the nodes for a Service that the node agents forward. Pure.
//!
//! Each agent decides if it serves the Service, because only the agent knows the processes and pods of its node. The
//! operator decides which nodes the Service selects, because an agent reports only Services that select its node.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use akrobateo_core::Family;
use akrobateo_services::allocation::Allocation;
use akrobateo_services::key::ServiceKey;
use akrobateo_services::node_info::NodeInfo;
use akrobateo_services::published::is_published;
use akrobateo_services::spec::{IpMode, LoadBalancerSpec};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::jiff::Timestamp;

use super::addresses::{
    AddressInputs, PublishableNodes, addresses_to_publish, select_nodes_to_publish,
    select_nodes_until_first_ready_node,
};
use super::agent_status::{AgentStatus, are_all_silent};
use super::node_readiness::{
    AGENT_GRACE_PERIOD, NodeReadiness, agent_readiness, agent_status, proxy_readiness,
};
use super::pod_status::nodes_with_ready_pod;
use super::rollout_limits::replacement_time;
use super::service_state::ServiceState;
use super::traffic_policy::{MissingEndpointsPolicy, endpoints_allow_publication, is_published_as_vip};
use super::unpublished::{UnpublishedCause, UnpublishedNode};
use super::workload::Workload;

/// A Service that the node agents forward, and the status of the Service on each node.
pub(super) struct SharedService<'a> {
    pub(super) state: &'a ServiceState,
    pub(super) service: &'a Service,
    pub(super) spec: &'a LoadBalancerSpec,
    pub(super) allocation: &'a Allocation,
    pub(super) missing_endpoints_policy: Option<MissingEndpointsPolicy>,
    agent_statuses: BTreeMap<&'a str, AgentStatus>,
    nodes_with_ready_proxy: HashSet<&'a str>,
    are_all_agents_silent: bool,
}

impl<'a> SharedService<'a> {
    pub(super) fn new(
        state: &'a ServiceState,
        service: &'a Service,
        spec: &'a LoadBalancerSpec,
        allocation: &'a Allocation,
    ) -> Self {
        let key = ServiceKey::from_service(service);
        let nodes = state.nodes.iter();
        Self {
            state,
            service,
            spec,
            allocation,
            missing_endpoints_policy: MissingEndpointsPolicy::find(state, spec),
            agent_statuses: nodes
                .map(|node| (node.name.as_str(), agent_status(state, &key, spec, node)))
                .collect(),
            nodes_with_ready_proxy: nodes_with_ready_pod(&state.pods),
            are_all_agents_silent: are_all_silent(&state.agents),
        }
    }

    pub(super) fn agent_status(&self, node: &NodeInfo) -> &AgentStatus {
        self.agent_statuses.get(node.name.as_str()).unwrap_or(&AgentStatus::Absent)
    }

    /// Returns true if the Service selects the node, and the traffic policy allows the node with its current endpoints.
    pub(super) fn is_expected_to_serve(&self, node: &NodeInfo) -> bool {
        self.selects_node(node) && self.endpoints_allow_node(node)
    }

    /// Returns true if the Service selects the node. A published node stays selected if it gets a taint with the effect
    /// `NoSchedule`.
    fn selects_node(&self, node: &NodeInfo) -> bool {
        let nodes = &self.spec.nodes;
        nodes.matches(node) || (is_published(self.service, node) && nodes.matches_running_pod(node))
    }

    fn endpoints_allow_node(&self, node: &NodeInfo) -> bool {
        endpoints_allow_publication(self.state, self.spec, self.missing_endpoints_policy, node)
    }

    /// Returns the nodes whose addresses the Service publishes.
    pub(super) fn select_nodes_to_publish(&self, now: Timestamp) -> PublishableNodes<'a> {
        let inputs = AddressInputs {
            nodes: &self.state.nodes,
            readiness: &|node| self.node_readiness(node),
            may_be_published: &|node| self.is_expected_to_serve(node),
            unclaimed_nodes: &self.allocation.unclaimed_nodes,
            proxies_can_move: false,
            now,
        };
        let publishable_nodes = select_nodes_to_publish(self.service, &inputs);
        if publishable_nodes.nodes.is_empty() {
            select_nodes_until_first_ready_node(self.service, &inputs, &|node| self.selects_node(node))
        } else {
            publishable_nodes
        }
    }

    /// Returns the readiness of a node. If the Service still has proxies from dedicated mode, a node with a ready proxy
    /// is also ready.
    fn node_readiness(&self, node: &NodeInfo) -> NodeReadiness {
        let status = self.agent_status(node);
        let readiness_by_agent = if *status == AgentStatus::Silent && self.are_all_agents_silent {
            // The operator itself has probably lost contact with the API server. The published nodes therefore stay
            // published.
            if is_published(self.service, node) { NodeReadiness::Ready } else { NodeReadiness::NotReady }
        } else {
            agent_readiness(self.state, node, status)
        };
        // If another Service owns the ports on the node, the node is ready only if the agent serves this Service.
        let is_taken_by_other_service = self.allocation.taken_nodes.contains(&node.name);
        let readiness_by_agent = if is_taken_by_other_service && readiness_by_agent != NodeReadiness::Ready {
            NodeReadiness::NotReady
        } else {
            readiness_by_agent
        };
        if self.state.workloads.is_empty() {
            return readiness_by_agent;
        }
        let grace_period = replacement_time(self.spec.host_ports().len());
        readiness_by_agent.max(proxy_readiness(
            self.state,
            &self.nodes_with_ready_proxy,
            node,
            !is_taken_by_other_service,
            grace_period,
        ))
    }

    /// Returns true if the Service still needs its proxies from dedicated mode. The Service needs the proxies while a
    /// node has a ready proxy and the agent of this node does not serve the Service. If an agent refuses the Service or
    /// is silent, the proxies stay for at most one minute.
    pub(super) fn needs_previous_proxies(&self, now: Timestamp) -> bool {
        if self.state.workloads.is_empty() {
            return false;
        }
        // If all agents fail, only the proxies forward, so the operator must not delete them.
        let is_working = |status: &AgentStatus| !matches!(status, AgentStatus::Absent | AgentStatus::Silent);
        if !self.agent_statuses.values().any(is_working) {
            return true;
        }
        let is_within_grace_period = now < self.state.version.seen_at + AGENT_GRACE_PERIOD;
        let is_served_by_proxy = |node: &&NodeInfo| {
            self.nodes_with_ready_proxy.contains(node.name.as_str())
                && node.exclusion_reason.is_none()
                && self.is_expected_to_serve(node)
        };
        self.state.nodes.iter().filter(is_served_by_proxy).any(|node| match self.agent_status(node) {
            AgentStatus::Serving => false,
            AgentStatus::Absent | AgentStatus::Silent | AgentStatus::Refusing(_) => is_within_grace_period,
            AgentStatus::Paused | AgentStatus::Failing(_) | AgentStatus::Outdated => true,
        })
    }

    /// Returns the time when the result of [`Self::needs_previous_proxies`] may change without an event.
    pub(super) fn previous_proxies_deadline(&self, now: Timestamp) -> Option<Timestamp> {
        let deadline = self.state.version.seen_at + AGENT_GRACE_PERIOD;
        (!self.state.workloads.is_empty() && deadline > now).then_some(deadline)
    }

    /// Returns the ipMode of a node's address.
    ///
    /// Several Services may publish an unclaimed node with the same port. kube-proxy must not forward for any of these
    /// Services. If the Service still has proxies from dedicated mode, kube-proxy may continue to forward until the
    /// agent of the node serves the Service.
    pub(super) fn ip_mode(&self, node: &NodeInfo, address: IpAddr) -> IpMode {
        if self.allocation.unclaimed_nodes.contains(&node.name) {
            return IpMode::Proxy;
        }
        let kube_proxy_forwards = || {
            self.state.workloads.iter().any(Workload::only_reserves_ports)
                || (!self.state.workloads.is_empty() && is_published_as_vip(self.service, address))
        };
        let may_use_vip =
            !self.state.is_vip_dangerous && self.spec.has_source_range(Family::from_ip(address));
        if *self.agent_status(node) != AgentStatus::Serving && may_use_vip && kube_proxy_forwards() {
            IpMode::Vip
        } else {
            self.spec.ip_mode
        }
    }

    /// Returns the nodes that should be published but are not in `published_nodes`. Nodes whose agents refuse the
    /// Service are omitted, because other notes name these nodes.
    pub(super) fn find_unpublished_nodes(&self, published_nodes: &[&NodeInfo]) -> Vec<UnpublishedNode> {
        let expected_nodes = self.state.nodes.iter().filter(|node| {
            node.exclusion_reason.is_none()
                && self.spec.nodes.matches(node)
                && self.endpoints_allow_node(node)
        });
        let unpublished_nodes = expected_nodes.filter_map(|node| {
            let is_published = published_nodes.iter().any(|published| published.name == node.name);
            let is_taken_by_other_service = self.allocation.taken_nodes.contains(&node.name);
            let cause = if matches!(self.agent_status(node), AgentStatus::Refusing(_)) {
                return None;
            } else if addresses_to_publish(self.spec, node).is_empty() {
                UnpublishedCause::no_address(self.spec)
            } else if is_published || is_taken_by_other_service {
                return None;
            } else {
                match self.agent_status(node) {
                    AgentStatus::Absent => UnpublishedCause::NoAgent,
                    AgentStatus::Silent => UnpublishedCause::AgentSilent,
                    AgentStatus::Failing(error) => UnpublishedCause::AgentFailing(error.clone()),
                    AgentStatus::Paused | AgentStatus::Outdated => UnpublishedCause::AgentOutdated,
                    AgentStatus::Refusing(_) | AgentStatus::Serving => return None,
                }
            };
            Some(UnpublishedNode { node: node.name.clone(), cause })
        });
        unpublished_nodes.collect()
    }
}
