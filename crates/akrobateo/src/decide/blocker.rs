//! Finds the reason why a Service has no addresses. Failures of proxy pods are in `pod_failure.rs`. Pure.

use akrobateo_core::annotations;
use k8s_openapi::jiff::Timestamp;

use super::pod_status::has_ready_pod;
use super::service_state::ServiceState;
use super::workload::POD_CREATION_TIMEOUT;
use crate::address_type::AddressType;
use crate::node_info::{ExclusionReason, NodeInfo};
use crate::reason::Reason;
use crate::spec::LoadBalancerSpec;

/// The reason why a Service has no addresses.
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
        "externalTrafficPolicy is Local and no node has a ready endpoint; check the Service's selector and the \
         readiness of its pods"
    )]
    NoReadyEndpoint,
    #[error(
        "externalTrafficPolicy is Local and no node has both a ready endpoint and a ready proxy; check that the node \
         selector ({}) matches the nodes of the endpoints",
        annotations::NODE_SELECTOR
    )]
    EndpointsWithoutProxy,
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
            Self::NoReadyEndpoint | Self::EndpointsWithoutProxy => Reason::NoEndpoints,
            Self::NoNodeAddress { .. } | Self::NodeExcluded { .. } => Reason::NoAddresses,
            Self::NoPodCreated { .. } => Reason::ProxiesNotReady,
        }
    }

    /// Returns the first blocker of a Service without addresses. `publishable_nodes` are the nodes with a ready proxy
    /// that may be published.
    pub(super) fn find(
        state: &ServiceState,
        spec: &LoadBalancerSpec,
        publishable_nodes: &[&NodeInfo],
        now: Timestamp,
    ) -> Option<Self> {
        if !state.nodes.iter().any(|node| spec.nodes.matches(node)) {
            return Some(Self::NoMatchingNode);
        }
        if spec.is_traffic_policy_local && state.nodes_with_ready_endpoint.is_empty() {
            return Some(Self::NoReadyEndpoint);
        }
        if let Some(node) = publishable_nodes.first() {
            return Some(Self::no_node_address(state, spec, node));
        }
        let mut nodes_with_proxy =
            state.nodes.iter().filter(|node| has_ready_pod(&state.pods, &node.name)).peekable();
        let has_ready_proxy = nodes_with_proxy.peek().is_some();
        if let Some((node, reason)) = nodes_with_proxy.find_map(|node| Some((node, node.exclusion_reason?))) {
            return Some(Self::NodeExcluded { node: node.name.clone(), reason });
        }
        if spec.is_traffic_policy_local && has_ready_proxy {
            return Some(Self::EndpointsWithoutProxy);
        }
        let workload = state.workloads.first()?;
        let deadline = workload.pod_creation_deadline(&state.pods)?;
        (deadline <= now).then(|| Self::NoPodCreated { workload: workload.kubectl_arguments() })
    }

    fn no_node_address(state: &ServiceState, spec: &LoadBalancerSpec, node: &NodeInfo) -> Self {
        let service_spec = state.service.iter().flat_map(|service| &service.spec);
        let families: Vec<_> =
            service_spec.flat_map(|spec| spec.ip_families.iter().flatten()).map(String::as_str).collect();
        let types: Vec<_> = spec.address_types.iter().copied().map(AddressType::as_str).collect();
        Self::NoNodeAddress {
            node: node.name.clone(),
            families: families.join(" or "),
            types: types.join(" or "),
        }
    }
}
