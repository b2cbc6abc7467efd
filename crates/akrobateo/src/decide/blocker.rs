//! Finds the reason why a Service has no addresses. Failures of proxy pods are in `pod_failure.rs`. Pure.

use akrobateo_core::{Family, annotations};
use k8s_openapi::jiff::SignedDuration;

use super::current_condition::current_condition;
use super::pod::ProxyRole;
use super::pod_status::has_ready_pod;
use super::service_state::ServiceState;
use super::traffic_policy::{is_left_out, local_policy};
use crate::address_type::AddressType;
use crate::allocation::Allocation;
use crate::node_info::{ExclusionReason, NodeInfo};
use crate::reason::Reason;
use crate::spec::LoadBalancerSpec;

/// The time for which a new workload may have no pod.
pub(super) const POD_CREATION_TIMEOUT: SignedDuration = SignedDuration::from_secs(15);

/// The cause that keeps a Service from having addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Blocker {
    #[error(
        "no node matches the node selector and has only tolerated taints; change the labels or taints of a node, or \
         the annotations {} and {}",
        annotations::NODE_SELECTOR,
        annotations::TOLERATIONS
    )]
    NoMatchingNode,
    #[error(
        "no node with a ready endpoint may run a proxy, and with a Local traffic policy only such a node can answer; check \
         that the node selector ({}) matches the nodes of the endpoints",
        annotations::NODE_SELECTOR
    )]
    EndpointsWithoutProxy,
    #[error(
        "externalTrafficPolicy is Local, and all nodes with a ready endpoint are published with an address that is not \
         their InternalIP, so kube-proxy does not answer there; publish InternalIPs ({})",
        annotations::ADDRESS_TYPES
    )]
    EndpointsWithOtherAddress,
    #[error(
        "loadBalancerSourceRanges has no range of {families}, so no client may connect; add a range of this family, or \
         remove loadBalancerSourceRanges"
    )]
    NoSourceRange { families: String },
    #[error(
        "node {node} can be published but has no {families} address of type {types}; set the annotation {} on the \
         Service, or {} on the node",
        annotations::ADDRESS_TYPES,
        annotations::NODE_ADDRESS
    )]
    NoNodeAddress { node: String, families: String, types: String },
    #[error(
        "node {node} has a ready proxy but is not published: {reason}; fix the node, or run proxies on other nodes"
    )]
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
            Self::NoMatchingNode => Reason::NoNodes,
            Self::EndpointsWithoutProxy => Reason::NoEndpoints,
            Self::NoNodeAddress { .. }
            | Self::NodeExcluded { .. }
            | Self::EndpointsWithOtherAddress
            | Self::NoSourceRange { .. } => Reason::NoAddresses,
            Self::NoPodCreated { .. } => Reason::ProxiesNotReady,
        }
    }

    /// Returns the first blocker of a Service without addresses. `publishable` are the nodes with a ready proxy that may be
    /// published. `pods_are_overdue` is true if the workload has had no pod for [`POD_CREATION_TIMEOUT`].
    pub(super) fn find(
        state: &ServiceState,
        spec: &LoadBalancerSpec,
        allocation: &Allocation,
        role: ProxyRole,
        publishable: &[&NodeInfo],
        pods_are_overdue: bool,
    ) -> Option<Self> {
        if !state.nodes.iter().any(|node| spec.nodes.matches(node)) {
            return Some(Self::NoMatchingNode);
        }
        if spec.published_families().next().is_none() && !spec.families.is_empty() {
            let families: Vec<_> = spec.families.iter().copied().map(Family::as_str).collect();
            return Some(Self::NoSourceRange { families: families.join(" and ") });
        }
        if let Some(node) = publishable.first() {
            return Some(Self::no_node_address(spec, node));
        }
        if let Some(blocker) = Self::find_endpoint_blocker(state, spec, allocation, role) {
            return Some(blocker);
        }
        let mut nodes_with_proxy = state.nodes.iter().filter(|node| has_ready_pod(&state.pods, &node.name));
        if let Some((node, reason)) = nodes_with_proxy.find_map(|node| Some((node, node.exclusion_reason?))) {
            return Some(Self::NodeExcluded { node: node.name.clone(), reason });
        }
        let no_pod = Self::NoPodCreated { workload: state.workloads.first()?.kubectl_arguments() };
        // The operator's clock begins again with each start. The condition tells that the time has passed already.
        let condition = state.service.as_deref().and_then(current_condition);
        let is_known = condition.is_some_and(|condition| condition.message.contains(&no_pod.to_string()));
        (state.pods.is_empty() && (pods_are_overdue || is_known)).then_some(no_pod)
    }

    /// Returns why no node with an endpoint can be published, if that is not only a matter of time.
    fn find_endpoint_blocker(
        state: &ServiceState,
        spec: &LoadBalancerSpec,
        allocation: &Allocation,
        role: ProxyRole,
    ) -> Option<Self> {
        if state.nodes_with_ready_endpoint.is_empty()
            || state.nodes.iter().any(|node| local_policy(spec, node).is_none())
        {
            return None;
        }
        let mut nodes =
            state.nodes.iter().filter(|node| state.nodes_with_ready_endpoint.contains(&node.name)).peekable();
        // The endpoints may be on nodes that are not in the cache yet.
        nodes.peek()?;
        let allowed: Vec<_> = nodes.filter(|node| allocation.allows(spec, node)).collect();
        if allowed.is_empty() {
            return Some(Self::EndpointsWithoutProxy);
        }
        let all_left_out = allowed.iter().all(|node| is_left_out(spec, role, node));
        all_left_out.then_some(Self::EndpointsWithOtherAddress)
    }

    fn no_node_address(spec: &LoadBalancerSpec, node: &NodeInfo) -> Self {
        let families: Vec<_> = spec.published_families().map(Family::as_str).collect();
        let types: Vec<_> = spec.address_types.iter().copied().map(AddressType::as_str).collect();
        Self::NoNodeAddress {
            node: node.name.clone(),
            families: families.join(" or "),
            types: types.join(" or "),
        }
    }
}
