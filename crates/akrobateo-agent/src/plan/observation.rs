//! The objects of the cluster and the facts about the node, from which the agent makes its plan. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use akrobateo_core::Frontend;
use akrobateo_services::agent_report::AgentReport;
use akrobateo_services::key::ServiceKey;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::config;
use crate::host::HostNetwork;
use crate::marks::{Marks, NodeNumber};

/// All facts that the agent of one node needs to make a plan.
pub(crate) struct Observation<'a> {
    /// The name of the node.
    pub(crate) node_name: &'a str,
    /// The number of the node.
    pub(crate) number: NodeNumber,
    /// The marks of packets on the node.
    pub(crate) marks: Marks,
    /// Returns the `EndpointSlices` of a Service.
    pub(crate) endpoint_slices: &'a dyn Fn(&ServiceKey) -> Vec<Arc<EndpointSlice>>,
    /// All nodes.
    pub(crate) nodes: Vec<Arc<Node>>,
    /// The reports of the other nodes' agents.
    pub(crate) peer_reports: &'a PeerReports,
    /// The pods of this node that have hostPorts.
    pub(crate) pods: Vec<HostPortPod>,
    /// The uplink and the addresses of the node.
    pub(crate) network: HostNetwork,
    /// The Services in the rules that an earlier process of the agent has installed.
    pub(crate) installed: &'a InstalledServices,
    /// Returns true if a process of the node listens on a frontend.
    pub(crate) has_listener: &'a dyn Fn(Frontend) -> bool,
}

/// The reports of the other nodes' agents.
#[derive(Clone, Debug, Default)]
pub(crate) struct PeerReports {
    /// The reports of the agents that are alive.
    pub(crate) alive: Vec<AgentReport>,
    /// The last reports of the agents that do not renew their Leases.
    pub(crate) silent: Vec<AgentReport>,
}

/// The Services in the rules that an earlier process of the agent has installed.
#[derive(Clone, Debug, Default)]
pub(crate) struct InstalledServices {
    /// The frontends in the rules, and the texts that identify their Services.
    pub(crate) frontends: BTreeMap<Frontend, String>,
    /// The Services in the configuration of the earlier process, by name. Empty if the configuration is not known.
    pub(crate) services: BTreeMap<String, config::Service>,
}

/// A pod of this node that has hostPorts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPortPod {
    /// The pod, as `<namespace>/<name>`.
    pub(crate) name: String,
    /// The ports of the node that lead to the pod.
    pub(crate) frontends: BTreeSet<Frontend>,
    /// The Service whose proxy this pod is; `None` if the pod is not a proxy.
    pub(crate) proxied_service: Option<ServiceKey>,
    /// True if the pod is ready.
    pub(crate) is_ready: bool,
}
