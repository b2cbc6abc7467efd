//! Who owns which port of which node: the oldest who wants it, whatever the order of events. Pure.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::key::ServiceKey;
use crate::node_info::NodeInfo;
use crate::spec::{HostPort, LoadBalancerSpec, NodeChoice};

/// A Service's place in the order of ownership: creation time, then UID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Precedence {
    created: Timestamp,
    uid: String,
}

impl Precedence {
    pub(crate) fn of(service: &Service) -> Self {
        let created = service.creation_timestamp().map_or(Timestamp::MAX, |time| time.0);
        Self { created, uid: service.uid().unwrap_or_default() }
    }
}

/// What one Service wants to hold: all of its ports, on each node that it may have.
#[derive(Clone, Debug)]
pub(crate) struct PortClaim {
    pub(crate) key: ServiceKey,
    pub(crate) age: Precedence,
    pub(crate) ports: BTreeSet<HostPort>,
    pub(crate) nodes: NodeSet,
}

/// The nodes of a claim.
#[derive(Clone, Debug)]
pub(crate) enum NodeSet {
    /// Those that it chooses.
    Selected(NodeChoice),
    /// These: where the last good proxies of a refused Service still run.
    Running(BTreeSet<String>),
}

impl NodeSet {
    fn includes(&self, node: &NodeInfo) -> bool {
        match self {
            Self::Selected(choice) => choice.includes(node),
            Self::Running(names) => names.contains(&node.name),
        }
    }
}

/// What became of a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Allocation {
    /// Nodes that the Service's proxies must keep off.
    pub(crate) excluded_nodes: BTreeSet<String>,
    /// Why, one entry for each port and owner.
    pub(crate) conflicts: Vec<Conflict>,
    /// Whether that leaves no node at all.
    pub(crate) no_node_left: bool,
}

impl Allocation {
    /// Whether a node may run proxies of the wish that this is the verdict on.
    pub(crate) fn allows(&self, wish: &LoadBalancerSpec, node: &NodeInfo) -> bool {
        !self.no_node_left && wish.nodes.includes(node) && !self.excluded_nodes.contains(&node.name)
    }
}

/// A port that another Service has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub(crate) port: HostPort,
    /// One of the nodes; nodePorts are held on all.
    pub(crate) node: Option<String>,
    pub(crate) owner: ServiceKey,
}

/// The nodePorts of all Services: kube-proxy holds them on every node, whoever asked first.
pub(crate) type NodePorts = BTreeMap<HostPort, ServiceKey>;

/// Gives each claim its verdict. A claim gets a node with all of its ports or not at all.
pub(crate) fn ownership(
    claims: &[PortClaim],
    nodes: &[NodeInfo],
    node_ports: &NodePorts,
) -> HashMap<ServiceKey, Allocation> {
    let contested = contested(claims, node_ports);
    let mut by_age: Vec<&PortClaim> = claims.iter().collect();
    by_age.sort_by(|one, other| oldest_first(one, other));
    let mut owners: HashMap<(&str, HostPort), &ServiceKey> = HashMap::new();
    let mut verdicts = HashMap::with_capacity(claims.len());
    for claim in by_age {
        // Most Services share no port with any other: for them nodes need not be looked at.
        let verdict = if claim.ports.is_disjoint(&contested) {
            Allocation::default()
        } else {
            decide(claim, nodes, node_ports, &mut owners)
        };
        verdicts.insert(claim.key.clone(), verdict);
    }
    verdicts
}

fn oldest_first(one: &PortClaim, other: &PortClaim) -> Ordering {
    // What runs cannot be taken back by refusing: it comes before any wish.
    let held = |claim: &PortClaim| matches!(claim.nodes, NodeSet::Running(_));
    held(other).cmp(&held(one)).then_with(|| one.age.cmp(&other.age)).then_with(|| one.key.cmp(&other.key))
}

fn contested(claims: &[PortClaim], node_ports: &NodePorts) -> BTreeSet<HostPort> {
    let (mut seen, mut twice) = (BTreeSet::new(), BTreeSet::new());
    for port in claims.iter().flat_map(|claim| &claim.ports) {
        if !seen.insert(*port) || node_ports.contains_key(port) {
            twice.insert(*port);
        }
    }
    twice
}

fn decide<'a>(
    claim: &'a PortClaim,
    nodes: &'a [NodeInfo],
    node_ports: &NodePorts,
    owners: &mut HashMap<(&'a str, HostPort), &'a ServiceKey>,
) -> Allocation {
    let mut conflicts = BTreeMap::new();
    for port in &claim.ports {
        if let Some(owner) = node_ports.get(port) {
            conflicts.insert((*port, owner), None);
        }
    }
    let (mut excluded_nodes, mut granted) = (BTreeSet::new(), 0_usize);
    let on_all = !conflicts.is_empty();
    for node in nodes.iter().filter(|node| claim.nodes.includes(node)) {
        let mut taken =
            claim.ports.iter().filter_map(|port| Some((*port, *owners.get(&(node.name.as_str(), *port))?)));
        if let Some((port, owner)) = taken.next() {
            conflicts.entry((port, owner)).or_insert(Some(&node.name));
            conflicts.extend(taken.map(|taken| (taken, Some(&node.name))));
            excluded_nodes.insert(node.name.clone());
        } else if !on_all {
            granted += 1;
            owners.extend(claim.ports.iter().map(|port| ((node.name.as_str(), *port), &claim.key)));
        }
    }
    let no_node_left = on_all || (granted == 0 && !excluded_nodes.is_empty());
    let conflicts = conflicts
        .into_iter()
        .map(|((port, owner), node)| Conflict { port, node: node.cloned(), owner: owner.clone() })
        .collect();
    Allocation { excluded_nodes, conflicts, no_node_left }
}

#[cfg(test)]
mod tests;
