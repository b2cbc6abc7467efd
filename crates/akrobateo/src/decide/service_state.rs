//! The current state of one Service: the input of a decision. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::jiff::Timestamp;

use super::workload::Workload;
use crate::allocation::AllocationResult;
use crate::node_info::NodeInfo;

/// The current state of one Service and of everything that belongs to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceState {
    /// The Service, or `None` if the Service does not exist.
    pub(crate) service: Option<Arc<Service>>,
    /// The result of validation and allocation, or `None` if the Service is not eligible.
    pub(crate) allocation_result: Option<AllocationResult>,
    /// The workloads with the Service's labels: at most one, except after a change of name, kind or namespace.
    pub(crate) workloads: Vec<Workload>,
    /// The pods of the proxies.
    pub(crate) pods: Vec<Arc<Pod>>,
    /// All nodes of the cluster.
    pub(crate) nodes: Arc<Vec<NodeInfo>>,
    /// The names of the nodes with a ready endpoint of the Service.
    pub(crate) nodes_with_ready_endpoint: BTreeSet<String>,
    /// The published nodes without a proxy pod, with the time when the pod was first missing.
    pub(crate) pod_missing_since: BTreeMap<String, Timestamp>,
}
