//! Decides which Service owns which port of which node. The oldest Service that claims a port owns it; the order of
//! events does not matter. Pure.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use akrobateo_core::HostPort;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::key::ServiceKey;
use crate::node_info::NodeInfo;
use crate::spec::{LoadBalancerSpec, NodeSelection};

/// A Service's place in the order of allocation: by creation time, then by UID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Precedence {
    creation_time: Timestamp,
    uid: String,
}

impl Precedence {
    pub(crate) fn from_service(service: &Service) -> Self {
        let creation_time = service.creation_timestamp().map_or(Timestamp::MAX, |time| time.0);
        Self { creation_time, uid: service.uid().unwrap_or_default() }
    }
}

/// The ports that a Service claims on each of its nodes.
#[derive(Clone, Debug)]
pub(crate) struct PortClaim {
    pub(crate) key: ServiceKey,
    pub(crate) precedence: Precedence,
    pub(crate) ports: BTreeSet<HostPort>,
    pub(crate) nodes: NodeSet,
}

/// The nodes on which a claim needs its ports.
#[derive(Clone, Debug)]
pub(crate) enum NodeSet {
    /// The nodes that the Service selects.
    SelectedNodes(NodeSelection),
    /// The nodes where the previous proxies of a rejected Service still run.
    NodesWithProxies(BTreeSet<String>),
}

impl NodeSet {
    fn contains(&self, node: &NodeInfo) -> bool {
        match self {
            Self::SelectedNodes(selection) => selection.matches(node),
            Self::NodesWithProxies(names) => names.contains(&node.name),
        }
    }
}

/// The result of port allocation for a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Allocation {
    /// The selected nodes on which the Service does not get its ports.
    pub(crate) excluded_nodes: BTreeSet<String>,
    /// The conflicts that the Service has: one entry for each port and owner.
    pub(crate) conflicts: Vec<Conflict>,
    /// True if the Service has conflicts and no selected node remains for it.
    pub(crate) has_no_node: bool,
}

impl Allocation {
    /// Returns true if the node may run a proxy. This allocation and `spec` must belong to the same Service.
    pub(crate) fn allows(&self, spec: &LoadBalancerSpec, node: &NodeInfo) -> bool {
        !self.has_no_node && spec.nodes.matches(node) && !self.excluded_nodes.contains(&node.name)
    }
}

/// A claimed port that another Service owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub(crate) port: HostPort,
    /// The first node with this conflict, or `None` for a nodePort, because a nodePort is in use on all nodes.
    pub(crate) node: Option<String>,
    pub(crate) owner: ServiceKey,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { port, node, owner } = self;
        match node {
            Some(node) => write!(f, "port {port} on node {node} belongs to Service {owner}"),
            None => write!(f, "port {port} is the nodePort of Service {owner}"),
        }
    }
}

/// The Service that owns each nodePort. kube-proxy uses nodePorts on every node, so they have precedence over all
/// claims.
pub(crate) type NodePortOwners = BTreeMap<HostPort, ServiceKey>;

/// Allocates ports to all claims. On each node a claim gets either all of its ports or none.
pub(crate) fn allocate_claims(
    claims: &[PortClaim],
    nodes: &[NodeInfo],
    node_port_owners: &NodePortOwners,
) -> HashMap<ServiceKey, Allocation> {
    let contested_ports = contested_ports(claims, node_port_owners);
    let mut ordered_claims: Vec<&PortClaim> = claims.iter().collect();
    ordered_claims.sort_by(|left, right| compare_precedence(left, right));
    let mut owners: HashMap<(&str, HostPort), &ServiceKey> = HashMap::new();
    let mut allocations = HashMap::with_capacity(claims.len());
    for claim in ordered_claims {
        // Most Services share no port with another Service. For such a Service the loop checks no nodes.
        let allocation = if claim.ports.is_disjoint(&contested_ports) {
            Allocation::default()
        } else {
            allocate_claim(claim, nodes, node_port_owners, &mut owners)
        };
        allocations.insert(claim.key.clone(), allocation);
    }
    allocations
}

/// Orders claims for allocation. Running proxies come first, because they already occupy their ports. The other claims
/// come next, ordered from the oldest to the newest Service.
fn compare_precedence(left: &PortClaim, right: &PortClaim) -> Ordering {
    let has_running_proxies = |claim: &PortClaim| matches!(claim.nodes, NodeSet::NodesWithProxies(_));
    has_running_proxies(right)
        .cmp(&has_running_proxies(left))
        .then_with(|| left.precedence.cmp(&right.precedence))
        .then_with(|| left.key.cmp(&right.key))
}

/// Returns the ports that several Services claim, and the claimed ports that are nodePorts.
fn contested_ports(claims: &[PortClaim], node_port_owners: &NodePortOwners) -> BTreeSet<HostPort> {
    let (mut claimed, mut contested) = (BTreeSet::new(), BTreeSet::new());
    for port in claims.iter().flat_map(|claim| &claim.ports) {
        if !claimed.insert(*port) || node_port_owners.contains_key(port) {
            contested.insert(*port);
        }
    }
    contested
}

/// Allocates ports to one claim. All claims with a higher precedence already have their ports.
fn allocate_claim<'a>(
    claim: &'a PortClaim,
    nodes: &'a [NodeInfo],
    node_port_owners: &NodePortOwners,
    owners: &mut HashMap<(&'a str, HostPort), &'a ServiceKey>,
) -> Allocation {
    let mut conflicts = BTreeMap::new();
    for port in &claim.ports {
        if let Some(owner) = node_port_owners.get(port) {
            conflicts.insert((*port, owner), None);
        }
    }
    let has_node_port_conflict = !conflicts.is_empty();
    let (mut excluded_nodes, mut allocated_nodes) = (BTreeSet::new(), 0_usize);
    for node in nodes.iter().filter(|node| claim.nodes.contains(node)) {
        let owner_of = |port: HostPort| owners.get(&(node.name.as_str(), port)).copied();
        let ports_of_other_services: Vec<_> =
            claim.ports.iter().filter_map(|port| Some((*port, owner_of(*port)?))).collect();
        if ports_of_other_services.is_empty() && !has_node_port_conflict {
            allocated_nodes += 1;
            owners.extend(claim.ports.iter().map(|port| ((node.name.as_str(), *port), &claim.key)));
        } else if !ports_of_other_services.is_empty() {
            excluded_nodes.insert(node.name.clone());
            for conflict in ports_of_other_services {
                // Each conflict keeps its first node. So the condition's message stays the same when another node gets
                // this conflict.
                conflicts.entry(conflict).or_insert(Some(&node.name));
            }
        }
    }
    let has_no_node = has_node_port_conflict || (allocated_nodes == 0 && !excluded_nodes.is_empty());
    let conflicts = conflicts
        .into_iter()
        .map(|((port, owner), node)| Conflict { port, node: node.cloned(), owner: owner.clone() })
        .collect();
    Allocation { excluded_nodes, conflicts, has_no_node }
}

#[cfg(test)]
mod tests;
