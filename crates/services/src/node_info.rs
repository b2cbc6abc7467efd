//! The properties of a node that influence decisions. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use akrobateo_core::{Family, annotations};
use k8s_openapi::api::core::v1::{Node, NodeStatus, Taint};
use kube::ResourceExt;

use crate::address_type::AddressType;
use crate::kube_proxy_findings::node_vip_danger;
use crate::node_addresses::{is_publishable, parse_addresses};

/// The label that excludes a node from load balancers
/// (<https://kubernetes.io/docs/reference/labels-annotations-taints/>).
const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Taints of nodes that are unreachable or about to be removed. The Ready condition of such a node may still be true.
const REMOVAL_TAINTS: [&str; 3] =
    ["ToBeDeletedByClusterAutoscaler", "node.kubernetes.io/out-of-service", UNREACHABLE_TAINT];
/// The taint that the node lifecycle controller sets on a node whose kubelet does not report.
pub const UNREACHABLE_TAINT: &str = "node.kubernetes.io/unreachable";
/// Prefix of taints that follow a node's conditions. The operator ignores such taints, because the pods of a DaemonSet
/// tolerate them.
const CONDITION_TAINT_PREFIX: &str = "node.kubernetes.io/";

/// The maximum length of a quotation from an annotation in a message, in characters.
const MAX_QUOTE_CHARS: usize = 200;

/// The properties of a node that decisions depend on.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeInfo {
    /// The name.
    pub name: String,
    /// The reason why the node's addresses must not be published, if there is one.
    pub exclusion_reason: Option<ExclusionReason>,
    /// True if the node runs Linux. Proxies run only on Linux.
    pub is_linux: bool,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The permanent taints. A pod needs a toleration for each of these taints.
    pub taints: Vec<Taint>,
    addresses: Vec<(AddressType, IpAddr)>,
    /// The addresses of the annotation `akrobateo.io/address`, which replace the addresses in the node's status.
    address_override: Vec<IpAddr>,
    /// The reason why ipMode VIP is dangerous; `None` if no annotation of this node shows a danger.
    pub vip_danger: Option<String>,
    /// The error in the annotation `akrobateo.io/address`.
    pub address_error: Option<NodeAddressError>,
}

/// The administrator's settings for reading node objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodePolicy {
    /// True if the annotation `akrobateo.io/address` replaces the addresses of a node.
    pub reads_address_annotation: bool,
    /// True if the label that excludes nodes from load balancers has no effect.
    pub ignores_exclude_label: bool,
}

impl Default for NodePolicy {
    fn default() -> Self {
        Self { reads_address_annotation: true, ignores_exclude_label: false }
    }
}

/// The error about parts of a node's annotation that cannot be published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "annotation {} of node {node} is {value:?}: {invalid_parts} cannot be published and is ignored; in a family without a valid \
     address the node's own addresses are used; expected IP addresses that clients can reach, comma-separated, for \
     example 203.0.113.7,2001:db8::7",
    annotations::NODE_ADDRESS
)]
pub struct NodeAddressError {
    /// The name of the node.
    pub node: String,
    value: String,
    /// The invalid parts, in quotes.
    invalid_parts: String,
}

/// The reason why a node's addresses must not be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExclusionReason {
    /// The node reports that it is not ready, or does not report.
    #[error("it is not Ready")]
    NotReady,
    /// This taint marks the node as unreachable or about to be removed.
    #[error("its taint {0} marks it as unreachable or about to be removed")]
    RemovalTaint(&'static str),
    /// The node has the label that excludes it from load balancers.
    #[error(
        "it has the label {EXCLUDE_LABEL}; to publish it, remove the label or set --ignore-exclude-label"
    )]
    ExcludeLabel,
}

impl NodeInfo {
    /// Returns the properties of a node under the default policy.
    #[cfg(any(test, feature = "fixtures"))]
    #[must_use]
    pub fn from_node(node: &Node) -> Self {
        Self::new(node, NodePolicy::default())
    }

    /// Returns the properties of a node.
    pub fn new(node: &Node, policy: NodePolicy) -> Self {
        let annotation =
            node.annotations().get(annotations::NODE_ADDRESS).filter(|_| policy.reads_address_annotation);
        let (address_override, invalid_parts) =
            annotation.map(|text| parse_addresses(text)).unwrap_or_default();
        let address_error = annotation.filter(|_| !invalid_parts.is_empty()).map(|value| NodeAddressError {
            node: node.name_any(),
            value: value.chars().take(MAX_QUOTE_CHARS).collect(),
            invalid_parts: invalid_parts.join(", ").chars().take(MAX_QUOTE_CHARS).collect(),
        });
        Self {
            name: node.name_any(),
            exclusion_reason: exclusion_reason(node, policy),
            is_linux: node.labels().get("kubernetes.io/os").is_none_or(|os| os == "linux"),
            labels: node.labels().clone(),
            taints: taints(node).filter(|taint| is_permanent(taint)).cloned().collect(),
            addresses: node.status.as_ref().map(addresses).unwrap_or_default(),
            address_override,
            vip_danger: node_vip_danger(node.annotations()),
            address_error,
        }
    }

    /// Returns true if the control plane has no contact with the node, or if the node reports that it is not ready.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self.exclusion_reason,
            Some(ExclusionReason::NotReady | ExclusionReason::RemovalTaint(UNREACHABLE_TAINT))
        )
    }

    /// Returns true if the exclude label is the reason why the node is not published.
    #[must_use]
    pub fn has_exclude_label(&self) -> bool {
        self.exclusion_reason == Some(ExclusionReason::ExcludeLabel)
    }

    /// Returns true if the node is unreachable or about to be removed. The pods of such a node do not change until the
    /// node returns.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(self.exclusion_reason, Some(ExclusionReason::NotReady | ExclusionReason::RemovalTaint(_)))
    }

    /// Returns the addresses to publish: the addresses of the annotation, or the node's own addresses if the annotation
    /// has no valid address. If the annotation has an invalid part, each family without a valid address in the
    /// annotation uses the node's own addresses. For each family, the node's own addresses are the addresses of one
    /// type: the first preferred type that the node has in this family.
    #[must_use]
    pub fn addresses_to_publish(&self, types_by_preference: &[AddressType]) -> Vec<IpAddr> {
        let addresses_of_type = |family: Family, address_type: AddressType| -> Vec<IpAddr> {
            let addresses = self.addresses.iter();
            let addresses =
                addresses.filter(|(kind, ip)| *kind == address_type && Family::from_ip(*ip) == family);
            addresses.map(|(_, address)| *address).collect()
        };
        let has_override =
            |family: &Family| self.address_override.iter().any(|ip| Family::from_ip(*ip) == *family);
        // An invalid part of the annotation must not remove the node from the status.
        let uses_own_addresses = |family: &Family| {
            self.address_override.is_empty() || (self.address_error.is_some() && !has_override(family))
        };
        let own_addresses = Family::ALL.into_iter().filter(uses_own_addresses).flat_map(|family| {
            let mut candidates =
                types_by_preference.iter().map(|address_type| addresses_of_type(family, *address_type));
            candidates.find(|addresses| !addresses.is_empty()).unwrap_or_default()
        });
        self.address_override.iter().copied().chain(own_addresses).collect()
    }

    /// Returns all addresses of the node and of its annotation, without duplicates: first the internal addresses, then
    /// the external addresses.
    #[must_use]
    pub fn all_addresses(&self) -> Vec<IpAddr> {
        let addresses_of_type = |kind| {
            self.addresses
                .iter()
                .filter(move |(address_type, _)| *address_type == kind)
                .map(|(_, address)| *address)
        };
        let own_addresses =
            addresses_of_type(AddressType::InternalIP).chain(addresses_of_type(AddressType::ExternalIP));
        let mut addresses = Vec::new();
        for address in own_addresses.chain(self.address_override.iter().copied()) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    /// Returns true if the node or its annotation has this address.
    #[must_use]
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.address_override.contains(&address)
            || self.addresses.iter().any(|(_, own_address)| *own_address == address)
    }

    /// Returns true if the node has internal addresses of IPv4 and of IPv6.
    pub fn has_both_families(&self) -> bool {
        let has_internal_ip = |is_of_family: fn(&IpAddr) -> bool| {
            let mut addresses = self.addresses.iter();
            addresses.any(|(kind, address)| *kind == AddressType::InternalIP && is_of_family(address))
        };
        has_internal_ip(IpAddr::is_ipv4) && has_internal_ip(IpAddr::is_ipv6)
    }

    /// Returns true if all of `addresses` are internal addresses of this node. kube-proxy answers on the internal
    /// addresses of its node.
    #[must_use]
    pub fn has_internal_ips(&self, addresses: &[IpAddr]) -> bool {
        addresses.iter().all(|address| self.addresses.contains(&(AddressType::InternalIP, *address)))
    }
}

fn taints(node: &Node) -> impl Iterator<Item = &Taint> {
    node.spec.iter().flat_map(|spec| spec.taints.iter().flatten())
}

fn exclusion_reason(node: &Node, policy: NodePolicy) -> Option<ExclusionReason> {
    let has_taint = |key: &&&str| taints(node).any(|taint| taint.key == **key);
    let is_labelled = || node.labels().get(EXCLUDE_LABEL).is_some_and(|value| value != "false");
    if let Some(taint) = REMOVAL_TAINTS.iter().find(has_taint) {
        Some(ExclusionReason::RemovalTaint(taint))
    } else if !node.status.as_ref().is_some_and(is_ready) {
        Some(ExclusionReason::NotReady)
    } else {
        (!policy.ignores_exclude_label && is_labelled()).then_some(ExclusionReason::ExcludeLabel)
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
    let parse = |address_type: &str, address: &str| {
        Some((AddressType::parse(address_type)?, address.parse().ok().filter(is_publishable)?))
    };
    let addresses = status.addresses.iter().flatten();
    addresses.filter_map(|address| parse(&address.type_, &address.address)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::node;

    const TYPES_WITH_EXTERNAL_FIRST: [AddressType; 2] = [AddressType::ExternalIP, AddressType::InternalIP];

    fn addresses_to_publish(node: &Node, types_by_preference: &[AddressType]) -> Vec<String> {
        let addresses = NodeInfo::from_node(node).addresses_to_publish(types_by_preference);
        addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn first_preferred_address_type_of_the_node_is_published() {
        let node_with_both_types = node("n1").internal_ip("10.0.0.1").external_ip("203.0.113.1").build();
        assert_eq!(addresses_to_publish(&node_with_both_types, &TYPES_WITH_EXTERNAL_FIRST), ["203.0.113.1"]);
        assert_eq!(addresses_to_publish(&node_with_both_types, &[AddressType::InternalIP]), ["10.0.0.1"]);
        let internal_node = node("n1").internal_ip("10.0.0.1").build();
        assert_eq!(addresses_to_publish(&internal_node, &TYPES_WITH_EXTERNAL_FIRST), ["10.0.0.1"]);
        assert!(addresses_to_publish(&internal_node, &[AddressType::ExternalIP]).is_empty());
    }

    #[test]
    fn address_annotation_replaces_the_addresses_of_the_node() {
        let node = node("n1")
            .internal_ip("10.0.0.1")
            .annotation(annotations::NODE_ADDRESS, "203.0.113.9, 2001:db8::9, x, 127.0.0.1")
            .build();
        assert_eq!(addresses_to_publish(&node, &TYPES_WITH_EXTERNAL_FIRST), ["203.0.113.9", "2001:db8::9"]);
        let error = NodeInfo::from_node(&node).address_error.unwrap().to_string();
        let start =
            "annotation akrobateo.io/address of node n1 is \"203.0.113.9, 2001:db8::9, x, 127.0.0.1\": ";
        let message_end = error.strip_prefix(start).unwrap();
        assert!(message_end.starts_with("\"x\", \"127.0.0.1\" cannot be published"), "{error}");
    }

    #[test]
    fn address_type_is_chosen_separately_for_each_family() {
        let node =
            node("n1").external_ip("203.0.113.1").internal_ip("10.0.0.1").internal_ip("fd00::1").build();
        assert_eq!(addresses_to_publish(&node, &TYPES_WITH_EXTERNAL_FIRST), ["203.0.113.1", "fd00::1"]);
    }

    #[test]
    fn node_with_an_invalid_address_annotation_stays_published() {
        for (value, published_addresses) in [
            ("oops", vec!["10.0.0.1", "fd00::1"]),
            ("", vec!["10.0.0.1", "fd00::1"]),
            ("203.0.113.9,oops", vec!["203.0.113.9", "fd00::1"]),
            ("203.0.113.9", vec!["203.0.113.9"]),
        ] {
            let node = node("n1").internal_ip("10.0.0.1").internal_ip("fd00::1");
            let node = node.annotation(annotations::NODE_ADDRESS, value).build();
            assert_eq!(
                addresses_to_publish(&node, &TYPES_WITH_EXTERNAL_FIRST),
                published_addresses,
                "{value:?}"
            );
            assert_eq!(NodeInfo::from_node(&node).address_error.is_some(), value != "203.0.113.9");
        }
    }

    #[test]
    fn unreachable_addresses_are_never_published() {
        for address in [
            "0.0.0.0",
            "127.0.0.1",
            "169.254.1.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "::ffff:203.0.113.7",
        ] {
            let node_with_address = node("n1").internal_ip(address).build();
            assert!(
                addresses_to_publish(&node_with_address, &TYPES_WITH_EXTERNAL_FIRST).is_empty(),
                "{address}"
            );
            let annotated_node = node("n1").annotation(annotations::NODE_ADDRESS, address).build();
            assert!(
                addresses_to_publish(&annotated_node, &TYPES_WITH_EXTERNAL_FIRST).is_empty(),
                "{address}"
            );
            assert!(NodeInfo::from_node(&annotated_node).address_error.is_some(), "{address}");
        }
        let node_with_upper_case = node("n1").annotation(annotations::NODE_ADDRESS, "2001:DB8:0::9").build();
        assert_eq!(addresses_to_publish(&node_with_upper_case, &TYPES_WITH_EXTERNAL_FIRST), ["2001:db8::9"]);
    }

    #[test]
    fn policy_can_ignore_the_address_annotation_and_exclude_label() {
        let node = node("n1").internal_ip("10.0.0.1").label(EXCLUDE_LABEL, "");
        let node = node.annotation(annotations::NODE_ADDRESS, "203.0.113.9").build();
        let policy = NodePolicy { reads_address_annotation: false, ignores_exclude_label: true };
        let info = NodeInfo::new(&node, policy);
        assert_eq!(
            (info.addresses_to_publish(&TYPES_WITH_EXTERNAL_FIRST), info.exclusion_reason),
            (vec!["10.0.0.1".parse().unwrap()], None)
        );
    }

    #[test]
    fn nodes_with_an_exclusion_reason_are_not_published() {
        for excluded_node in [
            node("n1").with_ready_unknown(),
            node("n1").taint("ToBeDeletedByClusterAutoscaler"),
            node("n1").taint("node.kubernetes.io/out-of-service"),
            node("n1").taint("node.kubernetes.io/unreachable"),
            node("n1").label(EXCLUDE_LABEL, ""),
            node("n1").label(EXCLUDE_LABEL, "true"),
        ] {
            assert!(NodeInfo::from_node(&excluded_node.build()).exclusion_reason.is_some());
        }
    }

    #[test]
    fn cordoned_nodes_and_nodes_with_exclude_label_false_are_published() {
        for published_node in
            [node("n1").taint("node.kubernetes.io/unschedulable"), node("n1").label(EXCLUDE_LABEL, "false")]
        {
            assert_eq!(NodeInfo::from_node(&published_node.build()).exclusion_reason, None);
        }
    }

    #[test]
    fn taints_of_node_conditions_are_ignored() {
        let taints = |key| NodeInfo::from_node(&node("n1").taint(key).build()).taints;
        assert!(taints("node.kubernetes.io/not-ready").is_empty());
        assert_eq!(taints("dedicated").len(), 1);
    }

    #[test]
    fn unready_node_with_the_exclude_label_is_lost() {
        let unready_node =
            NodeInfo::from_node(&node("n1").label(EXCLUDE_LABEL, "").with_ready_unknown().build());
        assert!(unready_node.is_lost() && unready_node.is_unreachable());
        let ready_node = NodeInfo::from_node(&node("n1").label(EXCLUDE_LABEL, "").build());
        assert!(!ready_node.is_lost() && !ready_node.is_unreachable());
    }
}
