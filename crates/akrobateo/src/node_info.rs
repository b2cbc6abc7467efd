//! The properties of a node that influence decisions. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use akrobateo_core::annotations;
use k8s_openapi::api::core::v1::{Node, NodeStatus, Taint};
use kube::ResourceExt;

use crate::address_type::AddressType;

/// The label that keeps a node out of load balancers
/// (<https://kubernetes.io/docs/reference/labels-annotations-taints/>).
const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Taints of nodes that are unreachable or about to be removed. The Ready condition of such a node may still be true.
const REMOVAL_TAINTS: [&str; 3] =
    ["ToBeDeletedByClusterAutoscaler", "node.kubernetes.io/out-of-service", UNREACHABLE_TAINT];
/// The taint that the node lifecycle controller sets on a node whose kubelet does not report.
pub(super) const UNREACHABLE_TAINT: &str = "node.kubernetes.io/unreachable";
/// Prefix of taints that follow a node's conditions. The operator ignores such taints, because the pods of a DaemonSet
/// tolerate them.
const CONDITION_TAINT_PREFIX: &str = "node.kubernetes.io/";

/// The properties of a node that influence decisions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NodeInfo {
    pub(crate) name: String,
    /// The reason why the node's addresses must not be published, if there is one.
    pub(crate) exclusion_reason: Option<ExclusionReason>,
    /// Proxies run on Linux only.
    pub(crate) is_linux: bool,
    pub(crate) labels: BTreeMap<String, String>,
    /// The permanent taints. A pod needs a toleration for each of these taints.
    pub(crate) taints: Vec<Taint>,
    addresses: Vec<(AddressType, IpAddr)>,
    /// The addresses of the annotation `akrobateo.io/address`. They replace the addresses of the node.
    address_override: Option<Vec<IpAddr>>,
    /// The invalid parts of the annotation `akrobateo.io/address`. A part is invalid if it is not an IP address, or if
    /// clients cannot reach the address.
    pub(crate) invalid_addresses: Vec<String>,
}

/// The reason why a node's addresses must not be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExclusionReason {
    #[error("it is not Ready")]
    NotReady,
    #[error("its taint {0} marks it as unreachable or about to be removed")]
    RemovalTaint(&'static str),
    #[error("it has the label {EXCLUDE_LABEL}")]
    ExcludeLabel,
}

impl NodeInfo {
    /// Returns the properties of a node.
    pub(crate) fn from_node(node: &Node) -> Self {
        let override_annotation = node.annotations().get(annotations::NODE_ADDRESS);
        let (address_override, invalid_addresses) =
            override_annotation.map(|text| parse_addresses(text)).unzip();
        Self {
            name: node.name_any(),
            exclusion_reason: exclusion_reason(node),
            is_linux: node.labels().get("kubernetes.io/os").is_none_or(|os| os == "linux"),
            labels: node.labels().clone(),
            taints: taints(node).filter(|taint| is_permanent(taint)).cloned().collect(),
            addresses: node.status.as_ref().map(addresses).unwrap_or_default(),
            address_override,
            invalid_addresses: invalid_addresses.unwrap_or_default(),
        }
    }

    /// Returns true if the control plane has no contact with the node, or the node reports that it is not ready.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(
            self.exclusion_reason,
            Some(ExclusionReason::NotReady | ExclusionReason::RemovalTaint(UNREACHABLE_TAINT))
        )
    }

    /// Returns the addresses of the annotation. Without the annotation, returns the node's addresses of the first type
    /// in `types_by_preference` that the node has.
    pub(crate) fn addresses_to_publish(&self, types_by_preference: &[AddressType]) -> Vec<IpAddr> {
        if let Some(addresses) = &self.address_override {
            return addresses.clone();
        }
        let addresses_of_type = |wanted: &AddressType| -> Vec<IpAddr> {
            let matching_addresses = self.addresses.iter().filter(|(address_type, _)| address_type == wanted);
            matching_addresses.map(|(_, address)| *address).collect()
        };
        let mut candidates = types_by_preference.iter().map(addresses_of_type);
        candidates.find(|addresses| !addresses.is_empty()).unwrap_or_default()
    }

    /// Returns true if the node or its annotation has this address.
    pub(crate) fn has_address(&self, address: IpAddr) -> bool {
        self.address_override.iter().flatten().any(|replacement| *replacement == address)
            || self.addresses.iter().any(|(_, own)| *own == address)
    }

    /// Returns true if all of `addresses` are internal addresses of this node. kube-proxy answers on the internal
    /// addresses of its node.
    pub(crate) fn has_internal_ips(&self, addresses: &[IpAddr]) -> bool {
        addresses.iter().all(|address| self.addresses.contains(&(AddressType::InternalIP, *address)))
    }
}

fn taints(node: &Node) -> impl Iterator<Item = &Taint> {
    node.spec.iter().flat_map(|spec| spec.taints.iter().flatten())
}

fn exclusion_reason(node: &Node) -> Option<ExclusionReason> {
    let has_taint = |key: &&&str| taints(node).any(|taint| taint.key == **key);
    if let Some(taint) = REMOVAL_TAINTS.iter().find(has_taint) {
        Some(ExclusionReason::RemovalTaint(taint))
    } else if node.labels().get(EXCLUDE_LABEL).is_some_and(|value| value != "false") {
        Some(ExclusionReason::ExcludeLabel)
    } else {
        (!node.status.as_ref().is_some_and(is_ready)).then_some(ExclusionReason::NotReady)
    }
}

fn is_ready(status: &NodeStatus) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn is_permanent(taint: &Taint) -> bool {
    taint.effect != "PreferNoSchedule"
        && !taint.key.starts_with(CONDITION_TAINT_PREFIX)
        && !REMOVAL_TAINTS.contains(&taint.key.as_str())
}

fn addresses(status: &NodeStatus) -> Vec<(AddressType, IpAddr)> {
    let parse =
        |address_type: &str, address: &str| Some((AddressType::parse(address_type)?, address.parse().ok()?));
    let addresses = status.addresses.iter().flatten();
    addresses.filter_map(|address| parse(&address.type_, &address.address)).collect()
}

/// Returns the valid addresses and the invalid parts of the annotation. The valid addresses are used even if other
/// parts are invalid.
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

    const TYPES_WITH_EXTERNAL_FIRST: [AddressType; 2] = [AddressType::ExternalIP, AddressType::InternalIP];

    fn addresses_to_publish(node: &Node, types_by_preference: &[AddressType]) -> Vec<String> {
        let addresses = NodeInfo::from_node(node).addresses_to_publish(types_by_preference);
        addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_first_preferred_address_type_of_the_node_is_published() {
        let node_with_both_types = node("n1").internal_ip("10.0.0.1").external_ip("203.0.113.1").build();
        assert_eq!(addresses_to_publish(&node_with_both_types, &TYPES_WITH_EXTERNAL_FIRST), ["203.0.113.1"]);
        assert_eq!(addresses_to_publish(&node_with_both_types, &[AddressType::InternalIP]), ["10.0.0.1"]);
        let internal = node("n1").internal_ip("10.0.0.1").build();
        assert_eq!(addresses_to_publish(&internal, &TYPES_WITH_EXTERNAL_FIRST), ["10.0.0.1"]);
        assert!(addresses_to_publish(&internal, &[AddressType::ExternalIP]).is_empty());
    }

    #[test]
    fn the_address_annotation_replaces_the_addresses_of_the_node() {
        let node = node("n1")
            .internal_ip("10.0.0.1")
            .annotation(annotations::NODE_ADDRESS, "203.0.113.9, 2001:db8::9, x, 127.0.0.1")
            .build();
        assert_eq!(addresses_to_publish(&node, &TYPES_WITH_EXTERNAL_FIRST), ["203.0.113.9", "2001:db8::9"]);
        assert_eq!(NodeInfo::from_node(&node).invalid_addresses, ["x", "127.0.0.1"]);
    }

    #[test]
    fn unready_excluded_and_departing_nodes_are_not_published() {
        for excluded in [
            node("n1").with_ready_unknown(),
            node("n1").taint("ToBeDeletedByClusterAutoscaler"),
            node("n1").taint("node.kubernetes.io/out-of-service"),
            node("n1").taint("node.kubernetes.io/unreachable"),
            node("n1").label(EXCLUDE_LABEL, ""),
            node("n1").label(EXCLUDE_LABEL, "true"),
        ] {
            assert!(NodeInfo::from_node(&excluded.build()).exclusion_reason.is_some());
        }
    }

    #[test]
    fn cordoned_nodes_and_nodes_with_exclude_label_false_are_published() {
        for published in
            [node("n1").taint("node.kubernetes.io/unschedulable"), node("n1").label(EXCLUDE_LABEL, "false")]
        {
            assert_eq!(NodeInfo::from_node(&published.build()).exclusion_reason, None);
        }
    }

    #[test]
    fn taints_of_node_conditions_are_ignored() {
        let taints = |key| NodeInfo::from_node(&node("n1").taint(key).build()).taints;
        assert!(taints("node.kubernetes.io/not-ready").is_empty());
        assert_eq!(taints("dedicated").len(), 1);
    }
}
