//! The claim of one Service: the ports and nodes that the Service claims, and the ports that it holds already. Pure.

use std::collections::BTreeSet;

use akrobateo_core::Frontend;
use k8s_openapi::jiff::Timestamp;

use crate::key::ServiceKey;
use crate::node_info::NodeInfo;
use crate::spec::NodeSelection;

/// The order of claims on ports that no Service holds: by creation time, then by namespace and name.
///
/// Services of one `kubectl apply` have the same creation time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seniority {
    pub(super) created: Timestamp,
    pub(super) key: ServiceKey,
}

/// The ports that a Service's own workload holds, and the nodes on which it holds them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OccupiedPorts {
    pub(crate) frontends: BTreeSet<Frontend>,
    /// The nodes that the workload selects, and those where one of its pods runs.
    pub(crate) nodes: BTreeSet<String>,
}

/// The ports that a Service claims, all of them on each of its nodes.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) seniority: Seniority,
    pub(super) frontends: BTreeSet<Frontend>,
    pub(super) nodes: ClaimedNodes,
    /// The ports that the Service's own workload holds.
    pub(super) held: OccupiedPorts,
    /// The ports that the previous allocation gave to the Service. Its workload may not exist yet.
    pub(super) allocated: OccupiedPorts,
    /// The nodes with an address in the Service's status.
    pub(super) published_nodes: BTreeSet<String>,
}

/// The nodes of a claim.
#[derive(Clone, Debug)]
pub(super) enum ClaimedNodes {
    /// The nodes that the Service selects.
    Selected(NodeSelection),
    /// With externalTrafficPolicy Local: `current` has the selected nodes with an endpoint. `recent` also has the
    /// nodes that had an endpoint a short time ago.
    SelectedWithEndpoint { nodes: NodeSelection, recent: BTreeSet<String>, current: BTreeSet<String> },
    /// With externalTrafficPolicy Local and without any endpoint: the selected nodes that no Service with an endpoint
    /// claims. No node can answer a client, but a program may wait for the address before it starts the backends.
    SelectedWithoutEndpoint(NodeSelection),
    /// The nodes where the previous proxies of a rejected Service keep running. `kept` has only the nodes that the
    /// previous allocation gave to the Service, because a node with a new label may belong to another Service.
    Held { kept: BTreeSet<String> },
}

/// The strength of the evidence that a Service holds a port. The first variant is the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Hold {
    /// The proxies of a rejected Service keep running, also if the allocation gave the port to another Service.
    Running,
    /// The previous allocation gave the port to the Service.
    Allocated,
    /// The Service's workload has the port.
    Workload,
}

impl Claim {
    pub(super) const fn key(&self) -> &ServiceKey {
        &self.seniority.key
    }

    /// Returns true if the Service's proxies may run on the node.
    pub(super) fn selects(&self, node: &NodeInfo) -> bool {
        match &self.nodes {
            ClaimedNodes::Selected(selection)
            | ClaimedNodes::SelectedWithEndpoint { nodes: selection, .. }
            | ClaimedNodes::SelectedWithoutEndpoint(selection) => {
                // A pod that runs stays on its node if the node gets a taint with the effect NoSchedule.
                selection.matches(node)
                    || (self.held.nodes.contains(&node.name) && selection.matches_running_pod(node))
            }
            ClaimedNodes::Held { .. } => self.held.nodes.contains(&node.name),
        }
    }

    /// Returns true if the Service claims its ports on a node that it selects.
    pub(super) fn claims_ports_on(&self, node: &NodeInfo) -> bool {
        match &self.nodes {
            ClaimedNodes::SelectedWithEndpoint { recent, .. } => recent.contains(&node.name),
            ClaimedNodes::Selected(_)
            | ClaimedNodes::SelectedWithoutEndpoint(_)
            | ClaimedNodes::Held { .. } => true,
        }
    }

    /// Returns true if all other claims come before this claim, because no node can answer for the Service.
    pub(super) const fn has_lowest_precedence(&self) -> bool {
        matches!(self.nodes, ClaimedNodes::SelectedWithoutEndpoint(_))
    }

    /// Returns false if the Service has no endpoint that clients of this node can reach.
    pub(super) fn can_answer(&self, node: &str) -> bool {
        match &self.nodes {
            ClaimedNodes::SelectedWithEndpoint { current, .. } => current.contains(node),
            ClaimedNodes::SelectedWithoutEndpoint(_) => false,
            ClaimedNodes::Selected(_) | ClaimedNodes::Held { .. } => true,
        }
    }

    /// Returns why the Service counts as the holder of a port of a node; `None` if it does not hold the port there.
    pub(super) fn hold(&self, node: &str, frontend: Frontend) -> Option<Hold> {
        let holds = |held: &OccupiedPorts| held.frontends.contains(&frontend) && held.nodes.contains(node);
        match &self.nodes {
            ClaimedNodes::Held { kept } if kept.contains(node) => holds(&self.held).then_some(Hold::Running),
            _ if holds(&self.allocated) => Some(Hold::Allocated),
            _ => holds(&self.held).then_some(Hold::Workload),
        }
    }
}
