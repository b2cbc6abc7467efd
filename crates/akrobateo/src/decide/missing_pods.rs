//! Remembers since when published nodes have had no proxy pod at all: pods cannot tell. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::jiff::Timestamp;

use crate::decide::{is_published, runs_on};
use crate::key::ServiceKey;
use crate::node_info::NodeInfo;

/// For each Service, its published nodes without a pod.
#[derive(Debug, Default)]
pub(crate) struct MissingPods(HashMap<ServiceKey, BTreeMap<String, Timestamp>>);

impl MissingPods {
    /// Takes note of what is missing now.
    pub(crate) fn update(
        &mut self,
        key: &ServiceKey,
        service: &Service,
        pods: &[Arc<Pod>],
        nodes: &[NodeInfo],
        now: Timestamp,
    ) -> BTreeMap<String, Timestamp> {
        let before = self.0.remove(key).unwrap_or_default();
        let missing = nodes
            .iter()
            .filter(|node| is_published(service, node) && !pods.iter().any(|pod| runs_on(pod, &node.name)));
        let since = |node: &NodeInfo| (node.name.clone(), before.get(&node.name).copied().unwrap_or(now));
        let gaps: BTreeMap<_, _> = missing.map(since).collect();
        if !gaps.is_empty() {
            self.0.insert(key.clone(), gaps.clone());
        }
        gaps
    }

    /// Forgets a Service that is gone.
    pub(crate) fn forget(&mut self, key: &ServiceKey) -> BTreeMap<String, Timestamp> {
        self.0.remove(key);
        BTreeMap::new()
    }
}
