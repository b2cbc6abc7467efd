//! Decides which claims get one node. Pure.

use std::collections::BTreeMap;

use akrobateo_core::Frontend;

use super::claim::{Claim, PortEvidence};

/// The claims that own the ports of one node.
pub(super) struct NodeOwners<'a> {
    node: &'a str,
    owners: BTreeMap<Frontend, &'a Claim>,
}

impl<'a> NodeOwners<'a> {
    /// Decides which of the claims get the node. A claim gets all of its ports or none.
    ///
    /// Claims that a nodePort of another Service blocks are not in `claims`.
    pub(super) fn new(node: &'a str, mut claims: Vec<&'a Claim>) -> Self {
        // Assumed ports come after the ports of published Services, because the author of a rejected Service can write
        // any port into its spec. They come before the ports of Services that are not published, because the agents
        // probably serve them.
        claims.sort_by_key(|claim| {
            let is_published = claim.published_nodes.contains(node);
            (!is_published, claim.occupied_ports.is_assumed, &claim.order)
        });
        let (low_precedence_claims, normal_claims): (Vec<_>, Vec<_>) =
            claims.into_iter().partition(|claim| claim.has_lowest_precedence());
        let mut owners = Self { node, owners: BTreeMap::new() };
        for claims in [normal_claims, low_precedence_claims] {
            owners.grant_to_current_owners(&claims);
            // The remaining claims get the free ports in the sorted order.
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

    /// Returns true if the Service may publish the node although other Services own the ports of this Service on the
    /// node. The Service must have no endpoint, and the owners must have no endpoint on the node. None of these
    /// Services can then answer clients on the node.
    pub(super) fn may_publish_without_ports(&self, claim: &Claim) -> bool {
        let mut owners = claim.frontends.iter().filter_map(|frontend| self.owner(*frontend));
        claim.has_lowest_precedence() && owners.all(|owner| !owner.can_answer(self.node))
    }

    fn grant_if_free(&mut self, claim: &'a Claim) {
        if claim.frontends.iter().all(|frontend| self.owner(*frontend).is_none()) {
            self.owners.extend(claim.frontends.iter().map(|frontend| (*frontend, claim)));
        }
    }

    /// Gives the node to the claims that already have ports there. A claim gets all of its ports or none. If another
    /// claim already has one of the needed ports, the claim does not get the node.
    fn grant_to_current_owners(&mut self, claims: &[&'a Claim]) {
        let has_any_port = |claim: &Claim| {
            claim.frontends.iter().any(|frontend| claim.find_port_evidence(self.node, *frontend).is_some())
        };
        let mut undecided_claims: Vec<&Claim> =
            claims.iter().copied().filter(|claim| has_any_port(claim)).collect();
        while !undecided_claims.is_empty() {
            let current_owners = self.current_owners(&undecided_claims);
            let has_blocker = |claim: &Claim, current_owners: &BTreeMap<Frontend, &Claim>| {
                let mut frontends = claim.frontends.iter();
                frontends.any(|frontend| {
                    current_owners
                        .get(frontend)
                        .is_some_and(|current_owner| current_owner.key() != claim.key())
                })
            };
            let (blocked_claims, free_claims): (Vec<_>, Vec<_>) =
                undecided_claims.iter().copied().partition(|claim| has_blocker(claim, &current_owners));
            // Two of the free claims may need the same unowned port.
            for claim in free_claims {
                self.grant_if_free(claim);
            }
            let previous_count = undecided_claims.len();
            undecided_claims = blocked_claims;
            undecided_claims.retain(|claim| !has_blocker(claim, &self.owners));
            if undecided_claims.len() == previous_count {
                // These claims block each other. The last claim does not get the node.
                undecided_claims.pop();
            }
        }
    }

    /// Returns the current owner of each port: the claim with the strongest evidence. Of two claims with equal
    /// evidence, the first claim is the owner.
    fn current_owners(&self, claims: &[&'a Claim]) -> BTreeMap<Frontend, &'a Claim> {
        let mut current_owners: BTreeMap<Frontend, (PortEvidence, &Claim)> = BTreeMap::new();
        for &claim in claims {
            for &frontend in &claim.frontends {
                let Some(evidence) = claim.find_port_evidence(self.node, frontend) else { continue };
                let strongest_claim = current_owners.entry(frontend).or_insert((evidence, claim));
                if evidence < strongest_claim.0 {
                    *strongest_claim = (evidence, claim);
                }
            }
        }
        current_owners.into_iter().map(|(frontend, (_, claim))| (frontend, claim)).collect()
    }
}
