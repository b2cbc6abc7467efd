//! Records the time at which a published node lost its proxy pod, because the API server has no record of deleted pods.
//! Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::jiff::Timestamp;

use super::addresses::is_published;
use super::pod_status::runs_on;
use crate::key::ServiceKey;
use crate::node_info::NodeInfo;

/// For each Service, the time when the pod was first missing on each published node without a pod.
#[derive(Debug, Default)]
pub(crate) struct MissingPods(HashMap<ServiceKey, BTreeMap<String, Timestamp>>);

impl MissingPods {
    /// Records the published nodes on which the Service has no pod, and returns them. A node that already has a record
    /// keeps its time.
    pub(crate) fn update(
        &mut self,
        key: &ServiceKey,
        service: &Service,
        pods: &[Arc<Pod>],
        nodes: &[NodeInfo],
        now: Timestamp,
    ) -> BTreeMap<String, Timestamp> {
        let previous_records = self.0.remove(key).unwrap_or_default();
        let nodes_without_pod = nodes
            .iter()
            .filter(|node| is_published(service, node) && !pods.iter().any(|pod| runs_on(pod, &node.name)));
        let missing_since: BTreeMap<_, _> = nodes_without_pod
            .map(|node| (node.name.clone(), previous_records.get(&node.name).copied().unwrap_or(now)))
            .collect();
        if !missing_since.is_empty() {
            self.0.insert(key.clone(), missing_since.clone());
        }
        missing_since
    }

    /// Removes the records of a Service that no longer exists.
    pub(crate) fn forget(&mut self, key: &ServiceKey) {
        self.0.remove(key);
    }
}
