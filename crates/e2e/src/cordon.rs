//! Cordons nodes, so that the scheduler starts no pod on them. Does I/O.

use serde_json::json;

use crate::failure::Failure;
use crate::faults::Faults;

impl Faults {
    /// Cordons a node. Running pods and the pods of `DaemonSets` stay on the node.
    pub async fn cordon_node(&self, node: &str) -> Result<(), Failure> {
        self.patch_node(node, json!({ "spec": { "unschedulable": true } })).await
    }

    /// Lets the scheduler start pods on a node again.
    pub async fn uncordon_node(&self, node: &str) -> Result<(), Failure> {
        self.patch_node(node, json!({ "spec": { "unschedulable": null } })).await
    }
}
