//! What keeps a Service from having addresses, beyond what its proxies' pods say. Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::addresses::{PublishableNodes, is_ready, runs_on};
use crate::address_type::AddressType;
use crate::decide::ServiceState;
use crate::node_info::{ExclusionReason, NodeInfo};
use crate::reason::Reason;
use crate::spec::LoadBalancerSpec;

/// The first thing to mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Blocker {
    #[error("no node has the labels that the node selector asks for, and only taints that are tolerated")]
    NoMatchingNode,
    #[error("externalTrafficPolicy is Local and no node has a ready endpoint")]
    NoReadyEndpoint,
    #[error("externalTrafficPolicy is Local and no node with a ready endpoint has a ready proxy")]
    EndpointsWithoutProxy,
    #[error(
        "node {node}, which has a ready proxy, has no {families} address of type {types}, nor does its annotation {} name one",
        akrobateo_core::annotations::NODE_ADDRESS
    )]
    NoNodeAddress { node: String, families: String, types: String },
    #[error("node {node}, which has a ready proxy, cannot be published: {why}")]
    NodeExcluded { node: String, why: ExclusionReason },
    #[error("no proxy pod has been made; kubectl describe {0} says why")]
    NoPodCreated(String),
}

impl Blocker {
    /// The reason of conditions and events.
    pub(super) const fn reason(&self) -> Reason {
        match self {
            Self::NoMatchingNode => Reason::NoNodes,
            Self::NoReadyEndpoint | Self::EndpointsWithoutProxy => Reason::NoEndpoints,
            Self::NoNodeAddress { .. } | Self::NodeExcluded { .. } => Reason::NoAddresses,
            Self::NoPodCreated(_) => Reason::ProxiesNotReady,
        }
    }

    /// Looks for one, for a Service without addresses although `backed` nodes have a proxy; and tells when another
    /// look is due although nothing has happened.
    pub(super) fn find(
        observed: &ServiceState,
        wish: &LoadBalancerSpec,
        backed: &PublishableNodes,
        now: Timestamp,
    ) -> (Option<Self>, Option<Timestamp>) {
        let ServiceState { service, pods, nodes, endpoint_nodes, workloads, .. } = observed;
        let stuck = workloads.first().and_then(|workload| workload.stuck(pods));
        let due = stuck.as_ref().map(|(since, _)| *since).filter(|since| *since > now);
        let ready: Vec<_> = nodes.iter().filter(|node| has_ready_proxy(pods, node)).collect();
        let obstacle = if !nodes.iter().any(|node| wish.nodes.includes(node)) {
            Some(Self::NoMatchingNode)
        } else if wish.local && endpoint_nodes.is_empty() {
            Some(Self::NoReadyEndpoint)
        } else if let Some(node) = backed.nodes.first() {
            let families = service.iter().flat_map(|service| &service.spec);
            let families =
                families.flat_map(|spec| spec.ip_families.iter().flatten()).cloned().collect::<Vec<_>>();
            let types = wish.address_types.iter().map(|kind| AddressType::as_str(*kind)).collect::<Vec<_>>();
            let (families, types) = (families.join(" or "), types.join(" or "));
            Some(Self::NoNodeAddress { node: node.name.clone(), families, types })
        } else if let Some((node, why)) = ready.iter().find_map(|node| Some((node, node.exclusion?))) {
            Some(Self::NodeExcluded { node: node.name.clone(), why })
        } else if wish.local && !ready.is_empty() {
            Some(Self::EndpointsWithoutProxy)
        } else {
            stuck.filter(|(since, _)| *since <= now).map(|(_, named)| Self::NoPodCreated(named))
        };
        (obstacle, due)
    }
}

fn has_ready_proxy(pods: &[Arc<Pod>], node: &NodeInfo) -> bool {
    pods.iter().any(|pod| runs_on(pod, &node.name) && is_ready(pod))
}
