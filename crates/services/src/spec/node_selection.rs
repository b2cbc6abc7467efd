//! The nodes that may run a Service's proxies. Pure.

use k8s_openapi::api::core::v1::Toleration;

use super::node_selector::LabelRequirement;
use super::tolerations::tolerates;
use crate::node_info::NodeInfo;

/// The node selector and the tolerations of a Service's proxies.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeSelection {
    /// The requirements on the labels of a node.
    pub requirements: Vec<LabelRequirement>,
    /// The taints that the proxies tolerate.
    pub tolerations: Vec<Toleration>,
}

impl NodeSelection {
    /// Returns true if a node's operating system, labels and taints allow a new proxy.
    #[must_use]
    pub fn matches(&self, node: &NodeInfo) -> bool {
        self.matches_labels(node) && node.taints.iter().all(|taint| tolerates(&self.tolerations, taint))
    }

    /// Returns true if a running proxy may stay on the node. A taint with the effect `NoSchedule` does not evict pods.
    #[must_use]
    pub fn matches_running_pod(&self, node: &NodeInfo) -> bool {
        let mut evicting_taints = node.taints.iter().filter(|taint| taint.effect == "NoExecute");
        self.matches_labels(node) && evicting_taints.all(|taint| tolerates(&self.tolerations, taint))
    }

    /// Returns the requirements on the labels as one selector in kubectl's syntax. The selector is empty if all labels are
    /// allowed.
    #[must_use]
    pub fn label_selector(&self) -> String {
        self.requirements.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    fn matches_labels(&self, node: &NodeInfo) -> bool {
        node.is_linux && self.requirements.iter().all(|requirement| requirement.matches(&node.labels))
    }
}
