//! Decides which claims get one node. Pure.

use std::collections::BTreeMap;

use akrobateo_core::Frontend;

use super::claim::{Claim, Hold};

/// The claims on one node, and the claims that get it.
pub(super) struct NodeOwners<'a> {
    node: &'a str,
    owners: BTreeMap<Frontend, &'a Claim>,
}

impl<'a> NodeOwners<'a> {
    /// Decides which of the claims get the node. A claim gets all of its ports or none.
    ///
    /// `claims` contains no claim that is blocked by a nodePort of another Service.
    pub(super) fn new(node: &'a str, mut claims: Vec<&'a Claim>) -> Self {
        claims.sort_by_key(|claim| (!claim.published_nodes.contains(node), &claim.seniority));
        let (last_claims, first_claims): (Vec<_>, Vec<_>) =
            claims.into_iter().partition(|claim| claim.has_lowest_precedence());
        let mut owners = Self { node, owners: BTreeMap::new() };
        for claims in [first_claims, last_claims] {
            owners.keep_holders(&claims);
            // The remaining claims get the remaining ports in their order.
            for claim in claims {
                owners.grant_if_free(claim);
            }
        }
        owners
    }

    /// Returns the owner of a port.
    pub(super) fn owner(&self, frontend: Frontend) -> Option<&'a Claim> {
        self.owners.get(&frontend).copied()
    }

    /// Returns true if the claim got the node.
    pub(super) fn is_granted(&self, claim: &Claim) -> bool {
        let mut frontends = claim.frontends.iter();
        frontends.all(|frontend| self.owner(*frontend).is_some_and(|owner| owner.key() == claim.key()))
    }

    /// Returns true if the Service has no endpoint, and the owners of its ports have none on the node either. The
    /// Service may then publish the node, because no other Service loses clients.
    pub(super) fn is_left_unclaimed(&self, claim: &Claim) -> bool {
        let mut owners = claim.frontends.iter().filter_map(|frontend| self.owner(*frontend));
        claim.has_lowest_precedence() && owners.all(|owner| !owner.can_answer(self.node))
    }

    fn grant_if_free(&mut self, claim: &'a Claim) {
        if claim.frontends.iter().all(|frontend| self.owner(*frontend).is_none()) {
            self.owners.extend(claim.frontends.iter().map(|frontend| (*frontend, claim)));
        }
    }

    /// Gives the node to the claims that hold ports there, unless they also claim a port that another claim holds.
    ///
    /// A claim on such a port loses the node, because a claim gets all of its ports or none.
    fn keep_holders(&mut self, claims: &[&'a Claim]) {
        let holds_any =
            |claim: &Claim| claim.frontends.iter().any(|frontend| claim.hold(self.node, *frontend).is_some());
        let mut undecided: Vec<&Claim> = claims.iter().copied().filter(|claim| holds_any(claim)).collect();
        while !undecided.is_empty() {
            let holders = self.holders(&undecided);
            let has_blocker = |claim: &Claim, holders: &BTreeMap<Frontend, &Claim>| {
                let mut frontends = claim.frontends.iter();
                frontends
                    .any(|frontend| holders.get(frontend).is_some_and(|holder| holder.key() != claim.key()))
            };
            let (blocked, free): (Vec<_>, Vec<_>) =
                undecided.iter().copied().partition(|claim| has_blocker(claim, &holders));
            // Two of these claims may include the same additional port.
            for claim in free {
                self.grant_if_free(claim);
            }
            let before = undecided.len();
            undecided = blocked;
            undecided.retain(|claim| !has_blocker(claim, &self.owners));
            if undecided.len() == before {
                // These claims block each other. The last one gives up first.
                undecided.pop();
            }
        }
    }

    /// Returns the holder of each port: the claim with the strongest evidence, then the first in the order of claims.
    fn holders(&self, claims: &[&'a Claim]) -> BTreeMap<Frontend, &'a Claim> {
        let mut holders: BTreeMap<Frontend, (Hold, &Claim)> = BTreeMap::new();
        for &claim in claims {
            for &frontend in &claim.frontends {
                let Some(hold) = claim.hold(self.node, frontend) else { continue };
                let current = holders.entry(frontend).or_insert((hold, claim));
                if hold < current.0 {
                    *current = (hold, claim);
                }
            }
        }
        holders.into_iter().map(|(frontend, (_, claim))| (frontend, claim)).collect()
    }
}
