//! Finds the reason why a Service has no addresses. Failures of proxy pods are in `pod_failure.rs`. Pure.

use akrobateo_core::annotations;
use akrobateo_services::allocation::Allocation;
use akrobateo_services::node_info::{ExclusionReason, NodeInfo};
use akrobateo_services::spec::LoadBalancerSpec;
use k8s_openapi::jiff::SignedDuration;

use super::addresses::describe_missing_address;
use super::current_condition::current_condition;
use super::note::join_families;
use super::pod::ProxyRole;
use super::pod_status::nodes_with_ready_pod;
use super::service_state::ServiceState;
use super::traffic_policy::{has_forwarding_program, local_traffic_policy};
use crate::reason::Reason;

/// The time within which a new workload must have a pod.
pub(super) const POD_CREATION_TIMEOUT: SignedDuration = SignedDuration::from_secs(15);

/// The reason why a Service has no addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Blocker {
    #[error(
        "{cause}; change the labels or taints of a node, the annotations {} and {}, or the operator's settings \
         NODE_SELECTOR and TOLERATIONS",
        annotations::NODE_SELECTOR,
        annotations::TOLERATIONS
    )]
    NoMatchingNode { cause: String },
    #[error(
        "with a Local traffic policy, only nodes with a ready endpoint can forward, but the Service may not \
        use these nodes; check that the node selector ({}) matches the nodes of the endpoints",
        annotations::NODE_SELECTOR
    )]
    EndpointsWithoutProxy,
    #[error(
        "with a Local traffic policy, only proxies on the nodes of ready endpoints can forward, but the Deployment runs its \
        proxies on other nodes; set the annotation {} to DaemonSet, or select the nodes of the endpoints ({})",
        annotations::WORKLOAD,
        annotations::NODE_SELECTOR
    )]
    ReplicasWithoutEndpoint,
    #[error(
        "externalTrafficPolicy is Local, and the nodes with a ready endpoint are not published with their \
        InternalIP, so kube-proxy does not forward on these nodes; publish InternalIPs ({})",
        annotations::ADDRESS_TYPES
    )]
    EndpointsWithOtherAddress,
    #[error(
        "loadBalancerSourceRanges has no range of {families}, so every client is denied; add a range of this \
        family, or remove loadBalancerSourceRanges"
    )]
    NoSourceRange { families: String },
    #[error(
        "node {node} can be published but has {missing_address}; set the annotation {} on the Service, or {} on the node",
        annotations::ADDRESS_TYPES,
        annotations::NODE_ADDRESS
    )]
    NoNodeAddress { node: String, missing_address: String },
    #[error("node {node} can forward but is not published: {reason}; fix the node, or select other nodes")]
    NodeExcluded { node: String, reason: ExclusionReason },
    #[error(
        "no proxy pod was created within {} s; run: kubectl describe {workload}",
        POD_CREATION_TIMEOUT.as_secs()
    )]
    NoPodCreated { workload: String },
}

impl Blocker {
    /// Returns the reason for the condition and the event.
    pub(super) const fn reason(&self) -> Reason {
        match self {
            Self::NoMatchingNode { .. } => Reason::NoNodes,
            Self::EndpointsWithoutProxy | Self::ReplicasWithoutEndpoint => Reason::NoEndpoints,
            Self::NoNodeAddress { .. }
            | Self::NodeExcluded { .. }
            | Self::EndpointsWithOtherAddress
            | Self::NoSourceRange { .. } => Reason::NoAddresses,
            Self::NoPodCreated { .. } => Reason::ProxiesNotReady,
        }
    }

    /// Returns the first blocker of a Service without addresses.
    ///
    /// `publishable_nodes` are the nodes that are published if they have an address. `are_pods_overdue` is true if the
    /// workload has had no pod for [`POD_CREATION_TIMEOUT`].
    pub(super) fn find(
        state: &ServiceState,
        spec: &LoadBalancerSpec,
        allocation: &Allocation,
        role: ProxyRole,
        publishable_nodes: &[&NodeInfo],
        are_pods_overdue: bool,
    ) -> Option<Self> {
        if let Some(blocker) = Self::find_independent_of_forwarding(state, spec, publishable_nodes) {
            return Some(blocker);
        }
        if let Some(blocker) = Self::find_endpoint_blocker(state, spec, allocation, role) {
            return Some(blocker);
        }
        let ready_nodes = nodes_with_ready_pod(&state.pods);
        let mut nodes_with_ready_proxy =
            state.nodes.iter().filter(|node| ready_nodes.contains(node.name.as_str()));
        if let Some((node, reason)) =
            nodes_with_ready_proxy.find_map(|node| Some((node, node.exclusion_reason?)))
        {
            return Some(Self::NodeExcluded { node: node.name.clone(), reason });
        }
        let no_pod_blocker = Self::NoPodCreated { workload: state.workloads.first()?.kubectl_arguments() };
        // After a restart, the operator waits for the timeout again. The current condition shows whether the timeout
        // passed before the restart.
        let condition = state.service.as_deref().and_then(current_condition);
        let is_reported =
            condition.is_some_and(|condition| condition.message.contains(&no_pod_blocker.to_string()));
        (state.pods.is_empty() && (are_pods_overdue || is_reported)).then_some(no_pod_blocker)
    }

    /// Returns the first blocker that can occur in both cases: proxies forward, or the node agents forward.
    pub(super) fn find_independent_of_forwarding(
        state: &ServiceState,
        spec: &LoadBalancerSpec,
        publishable_nodes: &[&NodeInfo],
    ) -> Option<Self> {
        if !state.nodes.iter().any(|node| spec.nodes.matches(node)) {
            let selector = spec.nodes.label_selector();
            let cause = if selector.is_empty() {
                "each node has a taint that is not tolerated".to_owned()
            } else {
                format!("no node matches the node selector \"{selector}\" and has only tolerated taints")
            };
            return Some(Self::NoMatchingNode { cause });
        }
        if spec.published_families().next().is_none() && !spec.families.is_empty() {
            return Some(Self::NoSourceRange { families: join_families(&spec.families, " and ") });
        }
        let node = publishable_nodes.first()?.name.clone();
        Some(Self::NoNodeAddress { node, missing_address: describe_missing_address(spec) })
    }

    /// Returns the reason why the nodes with endpoints cannot be published. Returns `None` if the operator only needs
    /// to wait.
    fn find_endpoint_blocker(
        state: &ServiceState,
        spec: &LoadBalancerSpec,
        allocation: &Allocation,
        role: ProxyRole,
    ) -> Option<Self> {
        if state.nodes_with_ready_endpoint.is_empty()
            || state.nodes.iter().any(|node| local_traffic_policy(spec, node).is_none())
        {
            return None;
        }
        let mut nodes =
            state.nodes.iter().filter(|node| state.nodes_with_ready_endpoint.contains(&node.name)).peekable();
        // The endpoints may be on nodes that are not in the cache yet.
        nodes.peek()?;
        let allowed_nodes: Vec<_> = nodes.filter(|node| allocation.allows(spec, node)).collect();
        if allowed_nodes.is_empty() {
            return Some(Self::EndpointsWithoutProxy);
        }
        if !allowed_nodes.iter().any(|node| has_forwarding_program(spec, role, node)) {
            return Some(Self::EndpointsWithOtherAddress);
        }
        let ready_nodes = nodes_with_ready_pod(&state.pods);
        let proxy_count =
            spec.proxy_count(state.nodes.iter().filter(|it| allocation.allows(spec, it)).count());
        let has_all_proxies = !ready_nodes.is_empty() && ready_nodes.len() >= proxy_count;
        let has_proxy_with_endpoint =
            allowed_nodes.iter().any(|node| ready_nodes.contains(node.name.as_str()));
        (has_all_proxies && !has_proxy_with_endpoint).then_some(Self::ReplicasWithoutEndpoint)
    }
}
