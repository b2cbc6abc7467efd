//! The claim of one Service: the ports and nodes that the Service claims, and the ports that the Service already has.
//! Pure.

use std::collections::BTreeSet;

use akrobateo_core::Frontend;
use k8s_openapi::jiff::Timestamp;

use crate::key::ServiceKey;
use crate::node_info::NodeInfo;
use crate::spec::NodeSelection;

/// The sort key of claims on ports that no Service has yet: the creation time, then the namespace and the name.
///
/// Services of one `kubectl apply` have the same creation time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClaimOrder {
    pub(super) created_at: Timestamp,
    pub(super) key: ServiceKey,
}

/// The ports that a Service occupies through its own workload or through the node agents, and the nodes of these ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OccupiedPorts {
    /// The address families, protocols and ports.
    pub frontends: BTreeSet<Frontend>,
    /// The nodes that the workload selects, the nodes where one of its pods runs, and the nodes whose agents serve the
    /// Service.
    pub nodes: BTreeSet<String>,
    /// True if no report names the ports. After a start, the operator does not know which ports the agents serve for a
    /// rejected Service. It assumes the ports in the present spec, which the Service's author may have changed.
    pub is_assumed: bool,
}

/// The claim of a Service. The Service claims all of its ports on each of its nodes.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) order: ClaimOrder,
    pub(super) frontends: BTreeSet<Frontend>,
    pub(super) nodes: ClaimedNodes,
    /// True if the node agents forward the Service; false if its own proxies forward the Service.
    pub(super) is_shared: bool,
    /// The ports that the Service occupies through its own workload or through the node agents.
    pub(super) occupied_ports: OccupiedPorts,
    /// The ports that the previous allocation gave to the Service. The Service's workload may not exist yet.
    pub(super) allocated_ports: OccupiedPorts,
    /// The nodes with an address in the Service's status.
    pub(super) published_nodes: BTreeSet<String>,
}

/// The nodes of a claim.
#[derive(Clone, Debug)]
pub(super) enum ClaimedNodes {
    /// The nodes that the Service selects.
    Selected(NodeSelection),
    /// With externalTrafficPolicy Local: the selected nodes with an endpoint.
    SelectedWithEndpoint {
        selection: NodeSelection,
        /// The nodes that have an endpoint now.
        endpoint_nodes: BTreeSet<String>,
        /// The nodes that have an endpoint now or had an endpoint a short time ago.
        recent_endpoint_nodes: BTreeSet<String>,
    },
    /// With externalTrafficPolicy Local and without any endpoint: the selected nodes that no Service with an endpoint
    /// claims. No node can answer clients yet. But some programs wait for the address of the Service before they start
    /// the backends.
    SelectedWithoutEndpoint(NodeSelection),
    /// The nodes where the previous proxies of a rejected Service keep running.
    KeptByRejectedService {
        /// The nodes that the previous allocation gave to the Service. A node that got a matching label after this
        /// allocation is not in the set, because the node may belong to another Service.
        kept_nodes: BTreeSet<String>,
    },
}

/// The evidence that a Service already has a port. The first variant is the strongest evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PortEvidence {
    /// The agent of the node serves the port. The rules of the agent receive packets before a proxy can receive them.
    ServedByAgent,
    /// The Service is rejected, and its previous proxies keep running. These proxies keep the port even if the previous
    /// allocation gave the port to another Service.
    RunningProxies,
    /// The previous allocation gave the port to the Service.
    PreviousAllocation,
    /// The Service's workload has the port.
    Workload,
}

impl Claim {
    pub(super) const fn key(&self) -> &ServiceKey {
        &self.order.key
    }

    /// Returns true if the Service's proxies may run on the node.
    pub(super) fn selects(&self, node: &NodeInfo) -> bool {
        match &self.nodes {
            ClaimedNodes::Selected(selection)
            | ClaimedNodes::SelectedWithEndpoint { selection, .. }
            | ClaimedNodes::SelectedWithoutEndpoint(selection) => {
                // A running pod stays on its node when the node gets a taint with the effect NoSchedule.
                selection.matches(node)
                    || (self.occupied_ports.nodes.contains(&node.name) && selection.matches_running_pod(node))
            }
            ClaimedNodes::KeptByRejectedService { .. } => self.occupied_ports.nodes.contains(&node.name),
        }
    }

    /// Returns true if the Service claims its ports on this node. The Service must select the node.
    pub(super) fn claims_ports_on(&self, node: &NodeInfo) -> bool {
        match &self.nodes {
            ClaimedNodes::SelectedWithEndpoint { recent_endpoint_nodes, .. } => {
                recent_endpoint_nodes.contains(&node.name)
            }
            ClaimedNodes::Selected(_)
            | ClaimedNodes::SelectedWithoutEndpoint(_)
            | ClaimedNodes::KeptByRejectedService { .. } => true,
        }
    }

    /// Returns true if the Service has no endpoint on any node. The claim of such a Service comes after all other
    /// claims.
    pub(super) const fn has_lowest_precedence(&self) -> bool {
        matches!(self.nodes, ClaimedNodes::SelectedWithoutEndpoint(_))
    }

    /// Returns false if externalTrafficPolicy is Local and the node has no endpoint of the Service.
    pub(super) fn can_answer(&self, node: &str) -> bool {
        match &self.nodes {
            ClaimedNodes::SelectedWithEndpoint { endpoint_nodes, .. } => endpoint_nodes.contains(node),
            ClaimedNodes::SelectedWithoutEndpoint(_) => false,
            ClaimedNodes::Selected(_) | ClaimedNodes::KeptByRejectedService { .. } => true,
        }
    }

    /// Returns the evidence that the Service already has a port of a node; `None` if the Service does not have the port
    /// there.
    pub(super) fn find_port_evidence(&self, node: &str, frontend: Frontend) -> Option<PortEvidence> {
        let has_port =
            |ports: &OccupiedPorts| ports.frontends.contains(&frontend) && ports.nodes.contains(node);
        if self.is_shared && has_port(&self.occupied_ports) {
            return Some(PortEvidence::ServedByAgent);
        }
        match &self.nodes {
            ClaimedNodes::KeptByRejectedService { kept_nodes } if kept_nodes.contains(node) => {
                has_port(&self.occupied_ports).then_some(PortEvidence::RunningProxies)
            }
            _ if has_port(&self.allocated_ports) => Some(PortEvidence::PreviousAllocation),
            _ if self.occupied_ports.is_assumed => None,
            _ => has_port(&self.occupied_ports).then_some(PortEvidence::Workload),
        }
    }
}
