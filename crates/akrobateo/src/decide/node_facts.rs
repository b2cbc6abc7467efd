//! What decisions need to know of a node. Pure.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus};
use kube::ResourceExt;

/// Set by an administrator on nodes that must not be published
/// (<https://kubernetes.io/docs/reference/labels-annotations-taints/>).
const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Taints of nodes that are going or gone; such a node's Ready condition may still be true.
const LEAVING_TAINTS: [&str; 3] =
    ["ToBeDeletedByClusterAutoscaler", "node.kubernetes.io/out-of-service", "node.kubernetes.io/unreachable"];
/// Kinds of addresses by preference: the first that a node has, for each node.
const ADDRESS_TYPES: [&str; 2] = ["ExternalIP", "InternalIP"];

/// A node, as far as addresses depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeFacts {
    /// Whether clients may be sent there.
    pub(crate) usable: bool,
    /// Its addresses of the preferred kind.
    pub(crate) addresses: Vec<IpAddr>,
}

impl NodeFacts {
    /// Reads a node.
    pub(crate) fn of(node: &Node) -> Self {
        let usable = node.spec.as_ref().is_none_or(stays)
            && node.status.as_ref().is_some_and(is_ready)
            && node.labels().get(EXCLUDE_LABEL).is_none_or(|value| value == "false");
        Self { usable, addresses: node.status.as_ref().map(preferred_addresses).unwrap_or_default() }
    }
}

fn is_ready(status: &NodeStatus) -> bool {
    status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn stays(spec: &NodeSpec) -> bool {
    !spec.taints.iter().flatten().any(|taint| LEAVING_TAINTS.contains(&taint.key.as_str()))
}

fn preferred_addresses(status: &NodeStatus) -> Vec<IpAddr> {
    let of_kind = |kind| {
        let addresses = status.addresses.iter().flatten().filter(move |address| address.type_ == kind);
        addresses.filter_map(|address| address.address.parse().ok()).collect::<Vec<IpAddr>>()
    };
    ADDRESS_TYPES.into_iter().map(of_kind).find(|found| !found.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixtures::node;

    #[test]
    fn a_ready_node_with_an_external_address_hides_its_internal_one() {
        let facts = NodeFacts::of(&node("n1").internal("10.0.0.1").external("203.0.113.1").build());
        assert_eq!(facts, NodeFacts { usable: true, addresses: vec!["203.0.113.1".parse().unwrap()] });
    }

    #[test]
    fn nodes_that_are_leaving_unready_or_excluded_are_not_usable() {
        for unusable in [
            node("n1").unready(),
            node("n1").taint("ToBeDeletedByClusterAutoscaler"),
            node("n1").taint("node.kubernetes.io/out-of-service"),
            node("n1").taint("node.kubernetes.io/unreachable"),
            node("n1").label(EXCLUDE_LABEL, ""),
            node("n1").label(EXCLUDE_LABEL, "true"),
        ] {
            assert!(!NodeFacts::of(&unusable.build()).usable);
        }
    }

    #[test]
    fn a_cordoned_node_and_one_that_is_expressly_not_excluded_are_usable() {
        for usable in
            [node("n1").taint("node.kubernetes.io/unschedulable"), node("n1").label(EXCLUDE_LABEL, "false")]
        {
            assert!(NodeFacts::of(&usable.build()).usable);
        }
    }
}
