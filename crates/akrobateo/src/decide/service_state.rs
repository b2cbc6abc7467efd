//! The current state of one Service: the input of a decision. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use akrobateo_services::allocation::AllocationResult;
use akrobateo_services::node_info::NodeInfo;
use akrobateo_services::spec::PortSet;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::jiff::Timestamp;

use super::agent_status::AgentStates;
use super::workload::Workload;

/// The current state of one Service, and of its workloads, pods and nodes.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceState {
    /// The Service, or `None` if the Service does not exist.
    pub(crate) service: Option<Arc<Service>>,
    /// The spec and the port allocation of the Service; `None` if the Service is not eligible.
    pub(crate) allocation_result: Option<AllocationResult>,
    /// The Service's workloads. More than one workload exists only after a change of the workload's name, kind or
    /// namespace.
    pub(crate) workloads: Vec<Workload>,
    /// The workloads of a deleted Service that had the name of this Service. The operator never reuses these workloads.
    pub(crate) obsolete_workloads: Vec<Workload>,
    /// The pods of the proxies.
    pub(crate) pods: Vec<Arc<Pod>>,
    /// All nodes of the cluster.
    pub(crate) nodes: Arc<Vec<NodeInfo>>,
    /// The names of the nodes with a ready endpoint. If the Service has no ready endpoint, the names of the
    /// nodes with a serving, terminating endpoint.
    pub(crate) nodes_with_ready_endpoint: BTreeSet<String>,
    pub(crate) pod_change_times: PodChangeTimes,
    /// The ports that no Service may use.
    pub(crate) reserved_ports: PortSet,
    /// True if no address of a node may be published with ipMode VIP.
    pub(crate) is_vip_dangerous: bool,
    /// The node agents.
    pub(crate) agents: Arc<AgentStates>,
    /// The version of the Service that the rules of the agents must contain.
    pub(crate) version: ObservedVersion,
    /// The versions of the `EndpointSlices` that the rules of the agents must contain, for each node with an endpoint.
    /// Only Services with externalTrafficPolicy Local have such versions.
    pub(crate) endpoint_versions: BTreeMap<String, ObservedVersion>,
}

/// The resourceVersion of a change, and the time when the operator first saw this change, by the operator's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ObservedVersion {
    pub(crate) version: u64,
    pub(crate) seen_at: Timestamp,
}

/// The times of changes of a Service's proxy pods, by the operator's clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodChangeTimes {
    /// For each node, the time of the last change of its pods or of its allocation to the Service.
    pub(crate) last_change_times: BTreeMap<String, Timestamp>,
    /// For each node, the time when the operator last saw a ready pod. Nodes that never had a ready pod are missing.
    pub(crate) last_ready_times: BTreeMap<String, Timestamp>,
    /// The time when the operator first saw the Service without a pod; `None` if the Service has a pod.
    pub(crate) without_pods_since: Option<Timestamp>,
}
