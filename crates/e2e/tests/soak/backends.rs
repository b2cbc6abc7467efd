//! A model of the backend pods of the changed Services. Pure.

use std::collections::BTreeMap;

use e2e::backend::{EchoPod, echo_pod};
use fastrand::Rng;

/// The groups of backend pods. Each changed Service selects one group.
pub(crate) const GROUPS: [&str; 2] = ["changed-a", "changed-b"];
/// The label that selects the pods of a group. The test library uses the same label for its backend.
pub(crate) const GROUP_LABEL: &str = "app";

/// A change of the backend pods.
#[derive(Clone, Debug)]
pub(crate) struct BackendChange {
    pub(crate) deleted_pod: Option<String>,
    pub(crate) created_pod: Option<BackendPod>,
}

/// A backend pod: its name, its group, and the index of its node.
#[derive(Clone, Debug)]
pub(crate) struct BackendPod {
    pub(crate) name: String,
    pub(crate) group: usize,
    pub(crate) node: usize,
}

impl BackendPod {
    /// Returns the pod on the node with this name.
    pub(crate) fn build(&self, node_name: &str) -> EchoPod {
        echo_pod(&self.name).label(GROUP_LABEL, GROUPS[self.group]).on_node(node_name)
    }
}

/// The desired backend pods: for each group and node at most one pod.
pub(crate) struct Backends {
    node_count: usize,
    name_by_node: [BTreeMap<usize, String>; GROUPS.len()],
    next_pod_number: u32,
}

impl Backends {
    /// Returns the backends at the start: each group has a pod on every node.
    pub(crate) fn new(node_count: usize) -> (Self, Vec<BackendPod>) {
        let mut backends = Self { node_count, name_by_node: Default::default(), next_pod_number: 0 };
        let positions = (0..GROUPS.len()).flat_map(|group| (0..node_count).map(move |node| (group, node)));
        let pods = positions.map(|(group, node)| backends.create(group, node)).collect();
        (backends, pods)
    }

    /// Returns the nodes on which the group has a pod, with the names of the pods.
    pub(crate) fn pods_of_group(&self, group: usize) -> &BTreeMap<usize, String> {
        &self.name_by_node[group]
    }

    /// Deletes, creates or replaces a random pod. Each group keeps at least one pod.
    pub(crate) fn change_one_pod(&mut self, rng: &mut Rng) -> BackendChange {
        let (group, node) = (rng.usize(..GROUPS.len()), rng.usize(..self.node_count));
        let deletes_only = self.name_by_node[group].len() > 1 && rng.bool();
        let deleted_pod = self.name_by_node[group].remove(&node);
        let is_only_deleted = deleted_pod.is_some() && deletes_only;
        let created_pod = (!is_only_deleted).then(|| self.create(group, node));
        BackendChange { deleted_pod, created_pod }
    }

    /// A new pod has another name, because the previous pod may still be terminating.
    fn create(&mut self, group: usize, node: usize) -> BackendPod {
        let name = format!("{}-{}", GROUPS[group], self.next_pod_number);
        self.next_pod_number += 1;
        self.name_by_node[group].insert(node, name.clone());
        BackendPod { name, group, node }
    }
}
