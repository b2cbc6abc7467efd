//! Finds the nodes that should answer for a Service but are not published, with the causes. Pure.

use std::fmt;

use akrobateo_core::Family;

use super::addresses::addresses_of;
use super::pod::ProxyRole;
use super::pod_status::runs_on;
use super::service_state::ServiceState;
use super::traffic_policy::is_left_out;
use super::workload::Workload;
use crate::address_type::AddressType;
use crate::allocation::Allocation;
use crate::node_info::NodeInfo;
use crate::spec::{LoadBalancerSpec, WorkloadSpec};

/// A node that should answer but is not published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnpublishedNode {
    pub(crate) node: String,
    pub(crate) cause: UnpublishedCause,
}

/// The reason why a node is not published although it should answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnpublishedCause {
    #[error("its proxy is not ready")]
    ProxyNotReady,
    #[error("it has no proxy pod; run: kubectl describe {0}")]
    NoPod(String),
    #[error("it has no {families} address of type {types}")]
    NoAddress { families: String, types: String },
    #[error(
        "with externalTrafficPolicy Local only kube-proxy may answer, which does not know the node's published address, \
         because it is not its InternalIP"
    )]
    OtherAddress,
}

impl fmt::Display for UnpublishedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} ({})", self.node, self.cause)
    }
}

/// Returns the nodes that should answer and are not among the `published` ones. `may_be_published` tells whether a node should
/// answer by its endpoints.
pub(super) fn unpublished_nodes(
    state: &ServiceState,
    spec: &LoadBalancerSpec,
    allocation: &Allocation,
    role: ProxyRole,
    may_be_published: &dyn Fn(&NodeInfo) -> bool,
    published: &[&NodeInfo],
) -> Vec<UnpublishedNode> {
    let expected = state.nodes.iter().filter(|node| {
        allocation.allows(spec, node) && node.exclusion_reason.is_none() && may_be_published(node)
    });
    let expected: Vec<_> = expected.collect();
    let is_published = |node: &NodeInfo| published.iter().any(|published| published.name == node.name);
    let answering =
        expected.iter().filter(|node| is_published(node) && !addresses_of(spec, node).is_empty()).count();
    // A Deployment has proxies on some of the nodes only.
    let has_enough =
        spec.workload != WorkloadSpec::DaemonSet && answering >= spec.proxy_count(expected.len());
    if has_enough {
        return Vec::new();
    }
    let unpublished = expected.into_iter().filter_map(|node| {
        let has_pod = state.pods.iter().any(|pod| runs_on(pod, &node.name));
        let cause = if addresses_of(spec, node).is_empty() {
            no_address(spec)
        } else if is_left_out(spec, role, node) {
            UnpublishedCause::OtherAddress
        } else if is_published(node) || (spec.workload != WorkloadSpec::DaemonSet && !has_pod) {
            return None;
        } else if has_pod {
            UnpublishedCause::ProxyNotReady
        } else {
            let workload = state.workloads.first();
            UnpublishedCause::NoPod(workload.map(Workload::kubectl_arguments).unwrap_or_default())
        };
        Some(UnpublishedNode { node: node.name.clone(), cause })
    });
    unpublished.collect()
}

fn no_address(spec: &LoadBalancerSpec) -> UnpublishedCause {
    let families: Vec<_> = spec.published_families().map(Family::as_str).collect();
    let types: Vec<_> = spec.address_types.iter().copied().map(AddressType::as_str).collect();
    UnpublishedCause::NoAddress { families: families.join(" or "), types: types.join(" or ") }
}
