//! Writes the agent's report from its plan and the state of its data path. Pure.

use std::collections::{BTreeMap, BTreeSet};

use akrobateo_services::agent_report::{AgentReport, AppliedVersions, ConntrackUse, MasqueradedPeer};

use crate::agent::Modes;
use crate::marks::NodeNumber;
use crate::plan::Plan;
use crate::probe::{ForwardingMode, MasqueradeReason};

/// The state of the data path.
#[derive(Debug, Default)]
pub(super) struct DataPathState {
    /// The versions of the objects that the rules contain.
    pub(super) applied: Option<AppliedVersions>,
    /// The error of the last attempt to change the rules.
    pub(super) error: Option<String>,
    /// The treatment of clients' addresses towards each peer.
    pub(super) modes: Modes,
}

/// Returns the report of a node.
pub(super) fn report(
    node: &str,
    plan: &Plan,
    state: &DataPathState,
    peers: &[AgentReport],
    conntrack: Option<ConntrackUse>,
) -> AgentReport {
    AgentReport {
        node: node.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        is_paused: false,
        applied: state.applied.clone(),
        served_count: plan.config.services.iter().filter(|service| !service.families.is_empty()).count(),
        refused: plan.refused.clone(),
        shared_ports: plan.shared_ports.clone(),
        handing_over: plan.handing_over.clone(),
        error: state.error.clone(),
        network: Some(plan.network.clone()),
        masqueraded_peers: masqueraded_peers(&state.modes, peers),
        conntrack,
    }
}

/// Returns the peers to whose endpoints clients' addresses are lost. An undecided peer is none of them, because its
/// state lasts only for the first seconds.
fn masqueraded_peers(modes: &Modes, peers: &[AgentReport]) -> Vec<MasqueradedPeer> {
    let names: BTreeMap<NodeNumber, &str> =
        peers.iter().filter_map(|peer| Some((peer.network.as_ref()?.number, peer.node.as_str()))).collect();
    let masqueraded = modes.iter().filter_map(|(id, mode)| match mode {
        ForwardingMode::Masquerade(MasqueradeReason::Undecided) | ForwardingMode::Keep(_) => None,
        ForwardingMode::Masquerade(reason) => Some(MasqueradedPeer {
            node: (*names.get(&id.peer)?).to_owned(),
            reason: format!("{}: {reason}", id.family),
        }),
    });
    let masqueraded: BTreeSet<_> = masqueraded.collect();
    masqueraded.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use akrobateo_core::Family;
    use akrobateo_services::agent_report::NodeNetwork;

    use super::*;
    use crate::probe::{TargetId, Way};

    #[test]
    fn report_names_the_peers_to_which_addresses_are_lost() {
        let peer = |node: &str, number| AgentReport {
            node: node.to_owned(),
            network: Some(NodeNetwork { number, ..NodeNetwork::default() }),
            ..AgentReport::default()
        };
        let id = |peer| TargetId { peer, family: Family::V4 };
        let modes = Modes::from([
            (id(2), ForwardingMode::Keep(Way::Direct)),
            (id(3), ForwardingMode::Masquerade(MasqueradeReason::Undecided)),
            (id(4), ForwardingMode::Masquerade(MasqueradeReason::OneWay)),
            (id(5), ForwardingMode::Masquerade(MasqueradeReason::NoAnswer)),
        ]);
        let found = masqueraded_peers(&modes, &[peer("n2", 2), peer("n3", 3), peer("n4", 4)]);
        let [n4] = &found[..] else { panic!("{found:?}") };
        assert_eq!(n4.node, "n4");
        assert!(n4.reason.starts_with("IPv4: ") && n4.reason.contains("one direction"), "{}", n4.reason);
    }
}
