//! The input of the decisions about one Service. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::jiff::Timestamp;

use super::Workload;
use crate::allocation::Admission;
use crate::node_info::NodeInfo;

/// Everything about one Service that decisions rest on.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceState {
    /// The Service, unless it is gone.
    pub(crate) service: Option<Arc<Service>>,
    /// What it asks for and gets, unless it is not ours.
    pub(crate) case: Option<Admission>,
    /// The workloads made for it: at most one, unless names or settings have changed.
    pub(crate) workloads: Vec<Workload>,
    /// The proxies' pods.
    pub(crate) pods: Vec<Arc<Pod>>,
    /// All nodes.
    pub(crate) nodes: Arc<Vec<NodeInfo>>,
    /// The nodes with a ready endpoint.
    pub(crate) endpoint_nodes: BTreeSet<String>,
    /// Published nodes without a proxy pod, and since when.
    pub(crate) missing: BTreeMap<String, Timestamp>,
}
