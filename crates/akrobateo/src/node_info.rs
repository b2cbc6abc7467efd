//! What decisions need to know of a node. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use akrobateo_core::annotations;
use k8s_openapi::api::core::v1::{Node, NodeStatus, Taint};
use kube::ResourceExt;

use crate::address_type::AddressType;

/// Set by an administrator on nodes that must not be published
/// (<https://kubernetes.io/docs/reference/labels-annotations-taints/>).
const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Taints of nodes that are going or gone; such a node's Ready condition may still be true.
const LEAVING_TAINTS: [&str; 3] =
    ["ToBeDeletedByClusterAutoscaler", "node.kubernetes.io/out-of-service", UNREACHABLE_TAINT];
/// Set by the node lifecycle controller on a node that it does not hear of.
pub(super) const UNREACHABLE_TAINT: &str = "node.kubernetes.io/unreachable";
/// Taints that come and go with a node's condition; proxies stay through them, as every DaemonSet's pods do.
const PASSING_TAINTS: &str = "node.kubernetes.io/";

/// A node, as far as decisions depend on it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NodeInfo {
    pub(crate) name: String,
    /// Why clients must not be sent there, if so.
    pub(crate) exclusion: Option<ExclusionReason>,
    /// Proxies run on Linux only.
    pub(crate) linux: bool,
    pub(crate) labels: BTreeMap<String, String>,
    /// The taints that keep pods without a toleration away for good.
    pub(crate) taints: Vec<Taint>,
    addresses: Vec<(AddressType, IpAddr)>,
    /// What is published in place of the node's own addresses.
    instead: Option<Vec<IpAddr>>,
    /// What its annotation says that is no address to publish.
    pub(crate) invalid_addresses: Vec<String>,
}

/// Why a node is not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExclusionReason {
    #[error("it is not Ready")]
    NotReady,
    #[error("its taint {0} says that it is going or gone")]
    Leaving(&'static str),
    #[error("it has the label {EXCLUDE_LABEL}")]
    Excluded,
}

impl NodeInfo {
    /// Reads a node.
    pub(crate) fn of(node: &Node) -> Self {
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        let lasting = taints.filter(|taint| taint.effect != "PreferNoSchedule" && !is_passing(taint));
        let instead = node.annotations().get(annotations::NODE_ADDRESS).map(|text| parse_addresses(text));
        Self {
            name: node.name_any(),
            exclusion: exclusion(node),
            linux: node.labels().get("kubernetes.io/os").is_none_or(|os| os == "linux"),
            labels: node.labels().clone(),
            taints: lasting.cloned().collect(),
            addresses: node.status.as_ref().map(addresses).unwrap_or_default(),
            instead: instead.as_ref().map(|(addresses, _)| addresses.clone()),
            invalid_addresses: instead.map(|(_, invalid_addresses)| invalid_addresses).unwrap_or_default(),
        }
    }

    /// Whether the control plane does not hear of it, or hears that it is not ready.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(
            self.exclusion,
            Some(ExclusionReason::NotReady | ExclusionReason::Leaving(UNREACHABLE_TAINT))
        )
    }

    /// The addresses to publish: the first preferred kind that this node has, or what its annotation says.
    pub(crate) fn published(&self, preferred: &[AddressType]) -> Vec<IpAddr> {
        if let Some(instead) = &self.instead {
            return instead.clone();
        }
        let of = |kind: &AddressType| -> Vec<IpAddr> {
            self.addresses.iter().filter(|(is, _)| is == kind).map(|(_, address)| *address).collect()
        };
        preferred.iter().map(of).find(|found| !found.is_empty()).unwrap_or_default()
    }

    /// Whether an address is one that may be published for this node.
    pub(crate) fn may_publish(&self, address: &IpAddr) -> bool {
        self.instead
            .iter()
            .flatten()
            .chain(self.addresses.iter().map(|(_, address)| address))
            .any(|own| own == address)
    }

    /// Whether all of `published` are the node's own, so that its kube-proxy answers on them.
    pub(crate) fn owns(&self, published: &[IpAddr]) -> bool {
        let internal = |address: &IpAddr| self.addresses.contains(&(AddressType::InternalIP, *address));
        published.iter().all(internal)
    }
}

fn exclusion(node: &Node) -> Option<ExclusionReason> {
    let has = |key: &&&str| {
        let mut taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        taints.any(|taint| taint.key == **key)
    };
    if let Some(taint) = LEAVING_TAINTS.iter().find(has) {
        Some(ExclusionReason::Leaving(taint))
    } else if node.labels().get(EXCLUDE_LABEL).is_some_and(|value| value != "false") {
        Some(ExclusionReason::Excluded)
    } else {
        (!node.status.as_ref().is_some_and(is_ready)).then_some(ExclusionReason::NotReady)
    }
}

fn is_ready(status: &NodeStatus) -> bool {
    status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn is_passing(taint: &Taint) -> bool {
    taint.key.starts_with(PASSING_TAINTS) || LEAVING_TAINTS.contains(&taint.key.as_str())
}

fn addresses(status: &NodeStatus) -> Vec<(AddressType, IpAddr)> {
    let kinds = [AddressType::ExternalIP, AddressType::InternalIP];
    let read = |kind: &str, address: &str| {
        Some((kinds.into_iter().find(|known| known.as_str() == kind)?, address.parse().ok()?))
    };
    status.addresses.iter().flatten().filter_map(|address| read(&address.type_, &address.address)).collect()
}

/// The addresses of an annotation, and its parts that are none: those must not take the others away.
fn parse_addresses(text: &str) -> (Vec<IpAddr>, Vec<String>) {
    let (mut addresses, mut invalid_addresses) = (Vec::new(), Vec::new());
    for part in text.split(',').map(str::trim) {
        match part.parse::<IpAddr>() {
            Ok(ip) if !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() => addresses.push(ip),
            _ => invalid_addresses.push(part.to_owned()),
        }
    }
    (addresses, invalid_addresses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixtures::node;

    const PREFERRED: [AddressType; 2] = [AddressType::ExternalIP, AddressType::InternalIP];

    fn published(node: &Node, preferred: &[AddressType]) -> Vec<String> {
        NodeInfo::of(node).published(preferred).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_first_preferred_kind_that_the_node_has_is_published() {
        let both = node("n1").internal("10.0.0.1").external("203.0.113.1").build();
        assert_eq!(published(&both, &PREFERRED), ["203.0.113.1"]);
        assert_eq!(published(&both, &[AddressType::InternalIP]), ["10.0.0.1"]);
        let internal = node("n1").internal("10.0.0.1").build();
        assert_eq!(published(&internal, &PREFERRED), ["10.0.0.1"]);
        assert!(published(&internal, &[AddressType::ExternalIP]).is_empty());
    }

    #[test]
    fn the_nodes_annotation_comes_before_its_addresses() {
        let node = node("n1")
            .internal("10.0.0.1")
            .annotation(annotations::NODE_ADDRESS, "203.0.113.9, 2001:db8::9, x, 127.0.0.1")
            .build();
        assert_eq!(published(&node, &PREFERRED), ["203.0.113.9", "2001:db8::9"]);
        assert_eq!(NodeInfo::of(&node).invalid_addresses, ["x", "127.0.0.1"]);
    }

    #[test]
    fn nodes_that_are_leaving_unready_or_excluded_are_not_usable() {
        for exclusion in [
            node("n1").unready(),
            node("n1").taint("ToBeDeletedByClusterAutoscaler"),
            node("n1").taint("node.kubernetes.io/out-of-service"),
            node("n1").taint("node.kubernetes.io/unreachable"),
            node("n1").label(EXCLUDE_LABEL, ""),
            node("n1").label(EXCLUDE_LABEL, "true"),
        ] {
            assert!(NodeInfo::of(&exclusion.build()).exclusion.is_some());
        }
    }

    #[test]
    fn a_cordoned_node_and_one_that_is_expressly_not_excluded_are_usable() {
        for usable in
            [node("n1").taint("node.kubernetes.io/unschedulable"), node("n1").label(EXCLUDE_LABEL, "false")]
        {
            assert_eq!(NodeInfo::of(&usable.build()).exclusion, None);
        }
    }

    #[test]
    fn taints_of_a_passing_condition_choose_no_nodes() {
        assert!(NodeInfo::of(&node("n1").taint("node.kubernetes.io/not-ready").build()).taints.is_empty());
        assert_eq!(NodeInfo::of(&node("n1").taint("dedicated").build()).taints.len(), 1);
    }
}
