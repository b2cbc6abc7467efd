//! Chooses the number of the node. Each agent writes its number into its Lease. Two nodes must not have the same
//! number. Pure.

use std::collections::BTreeSet;

use akrobateo_core::digest;
use k8s_openapi::jiff::Timestamp;

use crate::marks::{MAX_NODE_NUMBER, NodeNumber};

/// The number of a node, and the Lease that contains the number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NumberClaim {
    /// The time at which the Lease was created. If two nodes have the same number, the node with the older Lease keeps
    /// it.
    pub(crate) lease_created_at: Timestamp,
    /// The name of the node.
    pub(crate) node: String,
    /// The number.
    pub(crate) number: NodeNumber,
}

impl NumberClaim {
    fn comes_before(&self, other: &Self) -> bool {
        (self.lease_created_at, &self.node) < (other.lease_created_at, &other.node)
    }
}

/// Returns the number of this node. The node keeps the number of its Lease if no older Lease has the same number.
pub(crate) fn choose_number(node: &str, claims: &[NumberClaim]) -> NodeNumber {
    let other_claims = || claims.iter().filter(|claim| claim.node != node);
    if let Some(own_claim) = claims.iter().find(|claim| claim.node == node && is_valid(claim.number))
        && !other_claims().any(|other| other.number == own_claim.number && other.comes_before(own_claim))
    {
        return own_claim.number;
    }
    let used_numbers: BTreeSet<_> = other_claims().map(|claim| claim.number).collect();
    // The search starts at a number that depends on the node's name. Two nodes that start at the same time therefore
    // rarely choose the same number.
    let start = u16::from_str_radix(&digest(node)[..4], 16).unwrap_or_default() % MAX_NODE_NUMBER;
    let candidates = (0..MAX_NODE_NUMBER).map(|offset| (start + offset) % MAX_NODE_NUMBER + 1);
    candidates.into_iter().find(|number| !used_numbers.contains(number)).unwrap_or(MAX_NODE_NUMBER)
}

/// Returns the claims that all agents accept: the number is valid, and no older Lease has the same number.
pub(crate) fn accepted_claims(claims: &[NumberClaim]) -> impl Iterator<Item = &NumberClaim> {
    claims.iter().filter(|claim| {
        is_valid(claim.number)
            && !claims.iter().any(|other| other.number == claim.number && other.comes_before(claim))
    })
}

fn is_valid(number: NodeNumber) -> bool {
    (1..=MAX_NODE_NUMBER).contains(&number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(node: &str, number: NodeNumber, seconds: i64) -> NumberClaim {
        let lease_created_at = Timestamp::from_second(seconds).unwrap();
        NumberClaim { lease_created_at, node: node.to_owned(), number }
    }

    #[test]
    fn node_keeps_the_number_of_its_lease() {
        let claims = [claim("n1", 7, 1), claim("n2", 8, 2)];
        assert_eq!((choose_number("n1", &claims), choose_number("n2", &claims)), (7, 8));
    }

    #[test]
    fn older_lease_keeps_a_number_that_two_leases_have() {
        let claims = [claim("n1", 7, 1), claim("n2", 7, 2), claim("n3", 7, 2)];
        assert_eq!(choose_number("n1", &claims), 7);
        assert_ne!(choose_number("n2", &claims), 7);
        let accepted_nodes: Vec<_> = accepted_claims(&claims).map(|claim| claim.node.as_str()).collect();
        assert_eq!(accepted_nodes, ["n1"]);
    }

    #[test]
    fn new_node_gets_a_free_number() {
        let mut claims: Vec<NumberClaim> = Vec::new();
        for index in 0..200 {
            let node = format!("n{index}");
            let number = choose_number(&node, &claims);
            assert!(is_valid(number) && !claims.iter().any(|claim| claim.number == number));
            claims.push(claim(&node, number, index));
        }
        assert_ne!(choose_number("a", &[]), choose_number("b", &[]));
        assert!(is_valid(choose_number("n1", &[claim("n1", 0, 1)])));
    }
}
