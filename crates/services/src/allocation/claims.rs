//! Decides which Service owns which port of which node, for all claims together. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use akrobateo_core::{Frontend, HostPort};

use super::claim::Claim;
use super::node_owners::NodeOwners;
use super::node_ports::{NodePortKind, NodePorts};
use crate::key::ServiceKey;
use crate::node_info::NodeInfo;
use crate::spec::LoadBalancerSpec;

/// The nodes that a Service got for its ports, and the conflicts on the other nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocation {
    /// The nodes on which the Service owns its ports; `None` if the Service owns its ports on every selected node.
    pub owned_nodes: Option<BTreeSet<String>>,
    /// The selected nodes on which another Service owns one of the ports.
    pub taken_nodes: BTreeSet<String>,
    /// The nodes that a Service may publish without running proxies on them. Only a Service with externalTrafficPolicy
    /// Local and without endpoints has such nodes. Other Services own the ports on these nodes, but have no endpoint
    /// there.
    pub unclaimed_nodes: BTreeSet<String>,
    /// The conflicts about the Service's ports: one entry for each port and owner.
    pub conflicts: Vec<Conflict>,
    /// The Service's ports that are now nodePorts of other Services. The Service keeps these ports.
    pub shared_node_ports: Vec<Conflict>,
}

impl Allocation {
    /// Returns true if the node may run a proxy. This allocation and `spec` must belong to the same Service.
    #[must_use]
    pub fn allows(&self, spec: &LoadBalancerSpec, node: &NodeInfo) -> bool {
        self.owned_nodes.as_ref().map_or_else(|| spec.nodes.matches(node), |nodes| nodes.contains(&node.name))
    }

    /// Returns true if conflicts prevent the publication of the Service on all nodes.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        self.is_empty() && self.unclaimed_nodes.is_empty() && !self.conflicts.is_empty()
    }

    /// Returns true if the Service does not own its ports on any node.
    pub fn is_empty(&self) -> bool {
        self.owned_nodes.as_ref().is_some_and(BTreeSet::is_empty)
    }
}

/// A claimed port that another Service owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The port.
    pub port: HostPort,
    /// The Service that owns the port.
    pub owner: ServiceKey,
    /// The nodes on which the owner has the port.
    pub scope: ConflictScope,
}

/// The nodes of a conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConflictScope {
    /// The node on which the owner's proxies have the port: the first of these nodes in alphabetical order.
    Node(String),
    /// kube-proxy uses the port for the owner on every node.
    EveryNode(NodePortKind),
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { port, owner, scope } = self;
        match scope {
            ConflictScope::Node(node) => write!(f, "port {port} on node {node} belongs to Service {owner}"),
            ConflictScope::EveryNode(kind) => write!(f, "port {port} is the {kind} of Service {owner}"),
        }
    }
}

/// The allocation of a claim, and the nodes on which the claim got its ports.
#[derive(Debug)]
pub(super) struct ClaimResult {
    pub(super) allocation: Allocation,
    pub(super) granted_nodes: BTreeSet<String>,
}

/// Allocates ports to claims. On each node a claim gets either all of its ports or none.
pub(super) fn allocate_claims(
    claims: &[Claim],
    nodes: &[NodeInfo],
    node_ports: &NodePorts,
) -> HashMap<ServiceKey, ClaimResult> {
    let mut allocations: HashMap<_, _> =
        claims.iter().map(|claim| (claim.key().clone(), PendingAllocation::new(claim))).collect();
    for node in nodes {
        allocate_node(node, claims, node_ports, &mut allocations);
    }
    allocations.into_iter().map(|(key, pending)| (key, pending.finish(node_ports))).collect()
}

/// Allocates the ports of one node, and adds the result to the allocations.
fn allocate_node<'a>(
    node: &'a NodeInfo,
    claims: &'a [Claim],
    node_ports: &NodePorts,
    allocations: &mut HashMap<ServiceKey, PendingAllocation<'a>>,
) {
    let selecting_claims: Vec<&Claim> = claims.iter().filter(|claim| claim.selects(node)).collect();
    let is_blocked = |claim: &Claim, frontend: Frontend| {
        node_ports.get_other_owner(frontend, claim.key()).is_some()
            && claim.find_port_evidence(&node.name, frontend).is_none()
    };
    let candidates = selecting_claims.iter().copied().filter(|claim| {
        claim.claims_ports_on(node) && !claim.frontends.iter().any(|frontend| is_blocked(claim, *frontend))
    });
    let owners = NodeOwners::new(&node.name, candidates.collect());
    for claim in selecting_claims {
        let Some(allocation) = allocations.get_mut(claim.key()) else { continue };
        if owners.is_granted(claim) {
            allocation.granted_nodes.insert(node.name.clone());
            continue;
        }
        allocation.has_all_selected_nodes = false;
        if owners.may_publish_without_ports(claim)
            && !claim.frontends.iter().any(|port| is_blocked(claim, *port))
        {
            allocation.unclaimed_nodes.insert(node.name.clone());
            continue;
        }
        let is_claimed = claim.claims_ports_on(node);
        for &frontend in &claim.frontends {
            let port = frontend.host_port();
            if let Some(owner) = owners.owner(frontend) {
                allocation.taken_nodes.insert(node.name.clone());
                if is_claimed {
                    // The message mentions only the node that comes first in alphabetical order, so that the message
                    // rarely changes when nodes change.
                    let first_node = allocation.conflicts.entry((port, owner.key())).or_insert(&node.name);
                    *first_node = (*first_node).min(&node.name);
                }
            }
            if is_claimed && is_blocked(claim, frontend) {
                allocation.blocked_frontends.insert(frontend);
            }
        }
    }
}

/// The incomplete allocation of one claim. `allocate_node` completes the allocation node by node.
struct PendingAllocation<'a> {
    claim: &'a Claim,
    granted_nodes: BTreeSet<String>,
    has_all_selected_nodes: bool,
    taken_nodes: BTreeSet<String>,
    unclaimed_nodes: BTreeSet<String>,
    conflicts: BTreeMap<(HostPort, &'a ServiceKey), &'a str>,
    /// The ports that a nodePort of another Service blocks.
    blocked_frontends: BTreeSet<Frontend>,
}

impl<'a> PendingAllocation<'a> {
    const fn new(claim: &'a Claim) -> Self {
        Self {
            claim,
            granted_nodes: BTreeSet::new(),
            has_all_selected_nodes: true,
            taken_nodes: BTreeSet::new(),
            unclaimed_nodes: BTreeSet::new(),
            conflicts: BTreeMap::new(),
            blocked_frontends: BTreeSet::new(),
        }
    }

    fn finish(self, node_ports: &NodePorts) -> ClaimResult {
        let (mut conflicts, mut shared_node_ports) = (BTreeMap::new(), BTreeMap::new());
        for ((port, owner), node) in self.conflicts {
            conflicts.insert((port, owner), ConflictScope::Node(node.to_owned()));
        }
        for &frontend in &self.claim.frontends {
            let Some((owner, kind)) = node_ports.get_other_owner(frontend, self.claim.key()) else {
                continue;
            };
            let entry = ((frontend.host_port(), owner), ConflictScope::EveryNode(*kind));
            if self.blocked_frontends.contains(&frontend) {
                conflicts.extend([entry]);
            } else if !self.granted_nodes.is_empty() {
                shared_node_ports.extend([entry]);
            }
        }
        let allocation = Allocation {
            owned_nodes: (!self.has_all_selected_nodes).then(|| self.granted_nodes.clone()),
            taken_nodes: self.taken_nodes,
            unclaimed_nodes: self.unclaimed_nodes,
            conflicts: to_conflicts(conflicts),
            shared_node_ports: to_conflicts(shared_node_ports),
        };
        ClaimResult { allocation, granted_nodes: self.granted_nodes }
    }
}

fn to_conflicts(conflicts: BTreeMap<(HostPort, &ServiceKey), ConflictScope>) -> Vec<Conflict> {
    let conflict =
        |((port, owner), scope): ((_, &ServiceKey), _)| Conflict { port, owner: owner.clone(), scope };
    conflicts.into_iter().map(conflict).collect()
}
