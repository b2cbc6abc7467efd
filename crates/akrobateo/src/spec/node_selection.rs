//! The nodes that may run a Service's proxies. Pure.

use k8s_openapi::api::core::v1::Toleration;

use super::node_selector::Requirement;
use super::tolerations::tolerates;
use crate::node_info::NodeInfo;

/// The node selector and the tolerations of a Service's proxies.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct NodeSelection {
    pub(crate) requirements: Vec<Requirement>,
    pub(crate) tolerations: Vec<Toleration>,
}

impl NodeSelection {
    /// Returns true if a node's operating system, labels and permanent taints allow proxies.
    pub(crate) fn matches(&self, node: &NodeInfo) -> bool {
        self.matches_labels(node) && node.taints.iter().all(|taint| tolerates(&self.tolerations, taint))
    }

    /// Returns true if a proxy that runs on a node may stay there. A taint with the effect `NoSchedule` evicts no pod.
    pub(crate) fn matches_running_pod(&self, node: &NodeInfo) -> bool {
        let mut evicting = node.taints.iter().filter(|taint| taint.effect == "NoExecute");
        self.matches_labels(node) && evicting.all(|taint| tolerates(&self.tolerations, taint))
    }

    fn matches_labels(&self, node: &NodeInfo) -> bool {
        node.is_linux && self.requirements.iter().all(|requirement| requirement.matches(&node.labels))
    }
}
