//! Port allocation: examples, and properties that hold for any Services and nodes in any order.

use akrobateo_core::Protocol;
use proptest::prelude::*;

use super::*;
use crate::decide::fixtures::{key, node};
use crate::spec::parse_node_selector;

fn tcp(port: u16) -> HostPort {
    HostPort { protocol: Protocol::Tcp, port }
}

fn precedence(seconds: i64) -> Precedence {
    Precedence { creation_time: Timestamp::from_second(seconds).unwrap(), uid: format!("uid-{seconds}") }
}

fn claim(name: &str, creation_time: i64, ports: &[u16], selector: &str) -> PortClaim {
    let requirements = parse_node_selector(selector).unwrap();
    PortClaim {
        key: key(name),
        precedence: precedence(creation_time),
        ports: ports.iter().map(|&port| tcp(port)).collect(),
        nodes: NodeSet::SelectedNodes(NodeSelection { requirements, tolerations: Vec::new() }),
    }
}

fn nodes(names: &[&str]) -> Vec<NodeInfo> {
    names.iter().map(|name| NodeInfo::from_node(&node(name).label("name", name).build())).collect()
}

/// Allocates on three nodes and returns the allocation of one claim.
fn allocate(claims: &[PortClaim], name: &str) -> Allocation {
    allocate_claims(claims, &nodes(&["n1", "n2", "n3"]), &NodePortOwners::new()).remove(&key(name)).unwrap()
}

#[test]
fn the_oldest_service_owns_a_port_and_younger_ones_get_no_node() {
    let claims = [claim("young", 2, &[80], ""), claim("old", 1, &[80, 443], "")];
    assert_eq!(allocate(&claims, "old"), Allocation::default());
    let allocation = allocate(&claims, "young");
    assert!(allocation.has_no_node);
    assert_eq!(allocation.conflicts.len(), 1);
    assert_eq!(allocation.conflicts[0].owner, key("old"));
}

#[test]
fn services_on_different_nodes_share_a_port() {
    let claims = [claim("a", 1, &[80], "name=n1"), claim("b", 2, &[80], "name!=n1")];
    assert_eq!(allocate(&claims, "b"), Allocation::default());
}

#[test]
fn the_younger_service_loses_only_the_shared_nodes() {
    let claims = [claim("a", 1, &[80], "name=n1"), claim("b", 2, &[80], "")];
    let allocation = allocate(&claims, "b");
    assert!(!allocation.has_no_node);
    assert_eq!(allocation.excluded_nodes, BTreeSet::from(["n1".to_owned()]));
    assert_eq!(allocation.conflicts[0].node.as_deref(), Some("n1"));
}

#[test]
fn each_port_conflict_names_its_first_node() {
    let claims = [claim("a", 1, &[80, 443], "name in (n1,n2)"), claim("b", 2, &[80, 443], "")];
    let conflict_nodes = |nodes: &[NodeInfo]| {
        let allocation = allocate_claims(&claims, nodes, &NodePortOwners::new()).remove(&key("b")).unwrap();
        allocation.conflicts.into_iter().map(|conflict| conflict.node.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(conflict_nodes(&nodes(&["n1", "n3"])), ["n1", "n1"]);
    assert_eq!(conflict_nodes(&nodes(&["n1", "n2", "n3"])), ["n1", "n1"]);
}

#[test]
fn a_service_without_nodes_owns_no_port() {
    let claims = [claim("a", 1, &[80], ""), claim("b", 2, &[80, 443], ""), claim("c", 3, &[443], "")];
    assert!(allocate(&claims, "b").has_no_node);
    assert_eq!(allocate(&claims, "c"), Allocation::default());
}

#[test]
fn a_node_port_is_in_use_on_every_node() {
    let node_ports = NodePortOwners::from([(tcp(30_080), key("np"))]);
    let claims = [claim("a", 1, &[30_080], "")];
    let allocation = allocate_claims(&claims, &nodes(&["n1"]), &node_ports).remove(&key("a")).unwrap();
    assert!(allocation.has_no_node);
    assert_eq!(allocation.conflicts, [Conflict { port: tcp(30_080), node: None, owner: key("np") }]);
}

#[test]
fn the_running_proxies_of_a_rejected_service_keep_their_ports() {
    let mut rejected_claim = claim("rejected", 9, &[80], "");
    rejected_claim.nodes = NodeSet::NodesWithProxies(BTreeSet::from(["n2".to_owned()]));
    let claims = [claim("old", 1, &[80], ""), rejected_claim];
    assert_eq!(allocate(&claims, "old").excluded_nodes, BTreeSet::from(["n2".to_owned()]));
}

#[test]
fn a_tcp_port_and_a_udp_port_do_not_conflict() {
    let mut udp = claim("udp", 2, &[], "");
    udp.ports.insert(HostPort { protocol: Protocol::Udp, port: 53 });
    assert_eq!(allocate(&[claim("tcp", 1, &[53], ""), udp], "udp"), Allocation::default());
}

const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];

fn any_claims() -> impl Strategy<Value = Vec<PortClaim>> {
    let ports = prop::collection::btree_set(80_u16..86, 1..4);
    let node_names = prop::sample::subsequence(&NODES[..], 0..=NODES.len());
    prop::collection::vec((ports, node_names, 0_i64..5), 1..9).prop_map(|claims| {
        let claims = claims.into_iter().enumerate().map(|(index, (ports, node_names, creation_time))| {
            let selector = if node_names.is_empty() {
                String::new()
            } else {
                format!("name in ({})", node_names.join(","))
            };
            let ports: Vec<u16> = ports.into_iter().collect();
            let mut claim = claim(&format!("s{index}"), creation_time, &ports, &selector);
            claim.precedence.uid = format!("uid-{index}");
            claim
        });
        claims.collect()
    })
}

/// Returns the nodes on which a claim got its ports.
fn allocated_nodes(
    claim: &PortClaim,
    allocations: &HashMap<ServiceKey, Allocation>,
    nodes: &[NodeInfo],
) -> BTreeSet<String> {
    let allocation = &allocations[&claim.key];
    if allocation.has_no_node {
        return BTreeSet::new();
    }
    let selected_nodes = nodes.iter().filter(|node| claim.nodes.contains(node)).map(|node| node.name.clone());
    selected_nodes.filter(|name| !allocation.excluded_nodes.contains(name)).collect()
}

proptest! {
    #[test]
    fn a_port_has_at_most_one_owner_on_every_node(claims in any_claims()) {
        let nodes = nodes(&NODES);
        let allocations = allocate_claims(&claims, &nodes, &NodePortOwners::new());
        let mut owned_ports = BTreeSet::new();
        for claim in &claims {
            for node in allocated_nodes(claim, &allocations, &nodes) {
                for port in &claim.ports {
                    prop_assert!(owned_ports.insert((node.clone(), *port)), "{node} {port} twice");
                }
            }
        }
    }

    #[test]
    fn a_node_is_excluded_only_if_an_older_service_has_a_port_there(claims in any_claims()) {
        let nodes = nodes(&NODES);
        let allocations = allocate_claims(&claims, &nodes, &NodePortOwners::new());
        for claim in &claims {
            for node in &allocations[&claim.key].excluded_nodes {
                let has_older_owner = claims.iter().any(|older| {
                    older.precedence < claim.precedence
                        && !older.ports.is_disjoint(&claim.ports)
                        && allocated_nodes(older, &allocations, &nodes).contains(node)
                });
                prop_assert!(has_older_owner, "{} has no conflict on {node}", claim.key);
            }
        }
    }

    #[test]
    fn the_order_of_services_and_nodes_does_not_matter(
        (claims, shuffled) in any_claims().prop_flat_map(|claims| (Just(claims.clone()), Just(claims).prop_shuffle())),
    ) {
        let nodes = nodes(&NODES);
        let reversed_nodes: Vec<_> = nodes.iter().rev().cloned().collect();
        let expected_allocations = allocate_claims(&claims, &nodes, &NodePortOwners::new());
        let allocations_of_shuffled_claims = allocate_claims(&shuffled, &reversed_nodes, &NodePortOwners::new());
        for claim in &claims {
            let (left, right) = (&expected_allocations[&claim.key], &allocations_of_shuffled_claims[&claim.key]);
            prop_assert_eq!((&left.excluded_nodes, left.has_no_node), (&right.excluded_nodes, right.has_no_node));
        }
    }

    #[test]
    fn a_new_service_does_not_change_the_allocations_of_older_ones(claims in any_claims()) {
        let nodes = nodes(&NODES);
        let newest_claim = claims.iter().max_by(|left, right| left.precedence.cmp(&right.precedence)).unwrap().clone();
        let older_claims: Vec<_> = claims.iter().filter(|claim| claim.key != newest_claim.key).cloned().collect();
        let allocations_with_newest = allocate_claims(&claims, &nodes, &NodePortOwners::new());
        let allocations_without_newest = allocate_claims(&older_claims, &nodes, &NodePortOwners::new());
        for claim in &older_claims {
            prop_assert_eq!(&allocations_with_newest[&claim.key], &allocations_without_newest[&claim.key]);
        }
    }
}
