//! Finds the nodes that should serve a Service's clients but are not published, with the causes. Pure.

use std::collections::BTreeSet;
use std::fmt;

use akrobateo_services::agent_report::LEASE_DURATION_SECONDS;
use akrobateo_services::allocation::Allocation;
use akrobateo_services::node_info::NodeInfo;
use akrobateo_services::spec::{LoadBalancerSpec, ProxyWorkload, WorkloadSpec};

use super::addresses::{addresses_to_publish, describe_missing_address};
use super::pod::ProxyRole;
use super::pod_status::runs_on;
use super::service_state::ServiceState;
use super::traffic_policy::has_forwarding_program;
use super::workload::Workload;

/// A node that should serve clients but is not published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnpublishedNode {
    pub(crate) node: String,
    pub(crate) cause: UnpublishedCause,
}

/// The reason why a node that should serve clients is not published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnpublishedCause {
    #[error("its proxy is not ready")]
    ProxyNotReady,
    #[error("it has no proxy pod; run: kubectl describe {0}")]
    NoPod(String),
    #[error("it has {0}")]
    NoAddress(String),
    #[error("it has no node agent")]
    NoAgent,
    #[error("its agent has not reported for {LEASE_DURATION_SECONDS} s")]
    AgentSilent,
    #[error("its agent cannot change the rules of the kernel: {0}")]
    AgentFailing(String),
    #[error("its agent does not serve the Service yet")]
    AgentOutdated,
    #[error(
        "with externalTrafficPolicy Local only kube-proxy may forward, but kube-proxy serves only the \
        InternalIP of a node, and the node's published address is another one"
    )]
    OtherAddress,
}

impl UnpublishedCause {
    /// Returns the cause of a node without an address that the Service publishes.
    pub(super) fn no_address(spec: &LoadBalancerSpec) -> Self {
        Self::NoAddress(describe_missing_address(spec))
    }
}

impl fmt::Display for UnpublishedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} ({})", self.node, self.cause)
    }
}

/// Returns the nodes that should serve clients and are not in `published_nodes`.
///
/// `endpoints_allow_node` returns true if the traffic policies allow the publication of a node with its current
/// endpoints.
pub(super) fn find_unpublished_nodes(
    state: &ServiceState,
    spec: &LoadBalancerSpec,
    allocation: &Allocation,
    role: ProxyRole,
    endpoints_allow_node: &dyn Fn(&NodeInfo) -> bool,
    published_nodes: &[&NodeInfo],
) -> Vec<UnpublishedNode> {
    let expected_nodes = state.nodes.iter().filter(|node| {
        allocation.allows(spec, node) && node.exclusion_reason.is_none() && endpoints_allow_node(node)
    });
    let expected_nodes: Vec<_> = expected_nodes.collect();
    let published_names: BTreeSet<_> = published_nodes.iter().map(|node| node.name.as_str()).collect();
    let is_published = |node: &NodeInfo| published_names.contains(node.name.as_str());
    let has_published_address =
        |node: &NodeInfo| is_published(node) && !addresses_to_publish(spec, node).is_empty();
    let serving_node_count = expected_nodes.iter().filter(|node| has_published_address(node)).count();
    // A Deployment does not need a proxy on each node.
    let needs_every_node = spec.workload == WorkloadSpec::Dedicated(ProxyWorkload::DaemonSet);
    let has_enough_nodes = !needs_every_node && serving_node_count >= spec.proxy_count(expected_nodes.len());
    if has_enough_nodes {
        return Vec::new();
    }
    let unpublished_nodes = expected_nodes.into_iter().filter_map(|node| {
        let has_pod = || state.pods.iter().any(|pod| runs_on(pod, &node.name));
        let cause = if addresses_to_publish(spec, node).is_empty() {
            UnpublishedCause::no_address(spec)
        } else if !has_forwarding_program(spec, role, node) {
            UnpublishedCause::OtherAddress
        } else if is_published(node) || (!needs_every_node && !has_pod()) {
            return None;
        } else if has_pod() {
            UnpublishedCause::ProxyNotReady
        } else {
            let workload = state.workloads.first();
            UnpublishedCause::NoPod(workload.map(Workload::kubectl_arguments).unwrap_or_default())
        };
        Some(UnpublishedNode { node: node.name.clone(), cause })
    });
    unpublished_nodes.collect()
}
