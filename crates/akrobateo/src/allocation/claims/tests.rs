//! Port ownership: examples, and what must hold for any Services and nodes in any order.

use akrobateo_core::Protocol;
use proptest::prelude::*;

use super::*;
use crate::decide::fixtures::{key, node};
use crate::spec::parse_node_selector;

fn age(seconds: i64) -> Precedence {
    Precedence { created: Timestamp::from_second(seconds).unwrap(), uid: format!("uid-{seconds}") }
}

fn claim(name: &str, created: i64, ports: &[u16], selector: &str) -> PortClaim {
    let requirements = parse_node_selector(selector).unwrap();
    PortClaim {
        key: key(name),
        age: age(created),
        ports: ports.iter().map(|&port| (Protocol::Tcp, port)).collect(),
        nodes: NodeSet::Selected(NodeChoice { requirements, tolerations: Vec::new() }),
    }
}

fn nodes(names: &[&str]) -> Vec<NodeInfo> {
    names.iter().map(|name| NodeInfo::of(&node(name).label("name", name).build())).collect()
}

fn verdict(claims: &[PortClaim], name: &str) -> Allocation {
    ownership(claims, &nodes(&["n1", "n2", "n3"]), &NodePorts::new()).remove(&key(name)).unwrap()
}

#[test]
fn the_oldest_owns_a_port_and_the_younger_gets_nothing() {
    let claims = [claim("young", 2, &[80], ""), claim("old", 1, &[80, 443], "")];
    assert_eq!(verdict(&claims, "old"), Allocation::default());
    let young = verdict(&claims, "young");
    assert!(young.no_node_left);
    assert_eq!(young.conflicts.len(), 1);
    assert_eq!(young.conflicts[0].owner, key("old"));
}

#[test]
fn services_on_disjoint_nodes_share_a_port() {
    let claims = [claim("a", 1, &[80], "name=n1"), claim("b", 2, &[80], "name!=n1")];
    assert_eq!(verdict(&claims, "b"), Allocation::default());
}

#[test]
fn where_only_some_nodes_overlap_the_younger_keeps_off_those() {
    let claims = [claim("a", 1, &[80], "name=n1"), claim("b", 2, &[80], "")];
    let verdict = verdict(&claims, "b");
    assert!(!verdict.no_node_left);
    assert_eq!(verdict.excluded_nodes, BTreeSet::from(["n1".to_owned()]));
    assert_eq!(verdict.conflicts[0].node.as_deref(), Some("n1"));
}

#[test]
fn a_loser_holds_nothing_so_that_its_other_ports_are_free_for_younger_ones() {
    let claims = [claim("a", 1, &[80], ""), claim("b", 2, &[80, 443], ""), claim("c", 3, &[443], "")];
    assert!(verdict(&claims, "b").no_node_left);
    assert_eq!(verdict(&claims, "c"), Allocation::default());
}

#[test]
fn a_node_port_is_held_on_every_node() {
    let held = NodePorts::from([((Protocol::Tcp, 30_080), key("np"))]);
    let claims = [claim("a", 1, &[30_080], "")];
    let verdict = ownership(&claims, &nodes(&["n1"]), &held).remove(&key("a")).unwrap();
    assert!(verdict.no_node_left);
    assert_eq!(verdict.conflicts, [Conflict { port: (Protocol::Tcp, 30_080), node: None, owner: key("np") }]);
}

#[test]
fn the_last_good_proxies_of_a_refused_service_keep_their_ports() {
    let mut refused = claim("refused", 9, &[80], "");
    refused.nodes = NodeSet::Running(BTreeSet::from(["n2".to_owned()]));
    let claims = [claim("old", 1, &[80], ""), refused];
    assert_eq!(verdict(&claims, "old").excluded_nodes, BTreeSet::from(["n2".to_owned()]));
}

#[test]
fn tcp_and_udp_do_not_meet() {
    let mut udp = claim("udp", 2, &[], "");
    udp.ports.insert((Protocol::Udp, 53));
    assert_eq!(verdict(&[claim("tcp", 1, &[53], ""), udp], "udp"), Allocation::default());
}

const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];

fn any_claims() -> impl Strategy<Value = Vec<PortClaim>> {
    let ports = prop::collection::btree_set(80_u16..86, 1..4);
    let subset = prop::sample::subsequence(&NODES[..], 0..=NODES.len());
    prop::collection::vec((ports, subset, 0_i64..5), 1..9).prop_map(|claims| {
        let made = claims.into_iter().enumerate().map(|(index, (ports, subset, created))| {
            let selector =
                if subset.is_empty() { String::new() } else { format!("name in ({})", subset.join(",")) };
            let ports: Vec<u16> = ports.into_iter().collect();
            let mut claim = claim(&format!("s{index}"), created, &ports, &selector);
            claim.age.uid = format!("uid-{index}");
            claim
        });
        made.collect()
    })
}

/// The nodes on which a claim's proxies run.
fn granted(
    claim: &PortClaim,
    verdicts: &HashMap<ServiceKey, Allocation>,
    nodes: &[NodeInfo],
) -> BTreeSet<String> {
    let verdict = &verdicts[&claim.key];
    let chosen = nodes.iter().filter(|node| claim.nodes.includes(node)).map(|node| node.name.clone());
    if verdict.no_node_left {
        BTreeSet::new()
    } else {
        chosen.filter(|name| !verdict.excluded_nodes.contains(name)).collect()
    }
}

proptest! {
    #[test]
    fn on_every_node_a_port_has_at_most_one_owner(claims in any_claims()) {
        let nodes = nodes(&NODES);
        let verdicts = ownership(&claims, &nodes, &NodePorts::new());
        let mut held = BTreeSet::new();
        for claim in &claims {
            for node in granted(claim, &verdicts, &nodes) {
                for port in &claim.ports {
                    prop_assert!(held.insert((node.clone(), *port)), "{node} {port:?} twice");
                }
            }
        }
    }

    #[test]
    fn who_keeps_off_a_node_gives_way_to_an_older_one_that_is_there(claims in any_claims()) {
        let nodes = nodes(&NODES);
        let verdicts = ownership(&claims, &nodes, &NodePorts::new());
        for claim in &claims {
            for node in &verdicts[&claim.key].excluded_nodes {
                let older = claims.iter().any(|other| {
                    other.age < claim.age
                        && !other.ports.is_disjoint(&claim.ports)
                        && granted(other, &verdicts, &nodes).contains(node)
                });
                prop_assert!(older, "{} keeps off {node} for nobody", claim.key);
            }
        }
    }

    #[test]
    fn the_order_of_services_and_nodes_changes_nothing(
        (claims, shuffled) in any_claims().prop_flat_map(|claims| (Just(claims.clone()), Just(claims).prop_shuffle())),
    ) {
        let nodes = nodes(&NODES);
        let reversed: Vec<_> = nodes.iter().rev().cloned().collect();
        let one = ownership(&claims, &nodes, &NodePorts::new());
        let other = ownership(&shuffled, &reversed, &NodePorts::new());
        for claim in &claims {
            let (one, other) = (&one[&claim.key], &other[&claim.key]);
            prop_assert_eq!((&one.excluded_nodes, one.no_node_left), (&other.excluded_nodes, other.no_node_left));
        }
    }

    #[test]
    fn a_newcomer_disturbs_nobody(claims in any_claims()) {
        let nodes = nodes(&NODES);
        let newest = claims.iter().max_by(|one, other| one.age.cmp(&other.age)).unwrap().clone();
        let before: Vec<_> = claims.iter().filter(|claim| claim.key != newest.key).cloned().collect();
        let (with, without) =
            (ownership(&claims, &nodes, &NodePorts::new()), ownership(&before, &nodes, &NodePorts::new()));
        for claim in &before {
            prop_assert_eq!(&with[&claim.key], &without[&claim.key]);
        }
    }
}
