//! Builds the agent's report from its plan and the state of its data path. Pure.

use std::collections::{BTreeMap, BTreeSet};

use akrobateo_services::agent_report::{AgentReport, AppliedVersions, ConntrackUse, MasqueradedPeer};

use super::report_length::limit_length;
use crate::agent::Modes;
use crate::marks::NodeNumber;
use crate::plan::{PeerReports, Plan};
use crate::probe::{ForwardingMode, MasqueradeReason};

/// The state of the data path.
#[derive(Debug, Default)]
pub(super) struct DataPathState {
    /// The versions of the objects that the rules contain.
    pub(super) applied_versions: Option<AppliedVersions>,
    /// The error of the last attempt to change the rules.
    pub(super) error: Option<String>,
    /// The forwarding mode of each peer.
    pub(super) modes: Modes,
    /// The error of the last attempt to read the node's network.
    pub(super) host_error: Option<String>,
}

/// Returns the report of a node.
pub(super) fn build_report(
    node_name: &str,
    plan: &Plan,
    state: &DataPathState,
    peer_reports: &PeerReports,
    conntrack: Option<ConntrackUse>,
) -> AgentReport {
    limit_length(AgentReport {
        node: node_name.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        is_paused: false,
        applied_versions: state.applied_versions.clone(),
        served_count: plan.config.services.iter().filter(|service| !service.families.is_empty()).count(),
        refused_ports: plan.refused_ports.clone(),
        refused_services: Vec::new(),
        unserved_services: plan.unserved_services.clone(),
        doubly_used_ports: plan.doubly_used_ports.clone(),
        services_waiting_for_proxies: plan.services_waiting_for_proxies.clone(),
        error: state.error.clone().or_else(|| state.host_error.clone()),
        network: Some(plan.network.clone()),
        masqueraded_peers: masqueraded_peers(&plan.nodes_without_agent, &state.modes, peer_reports),
        conntrack,
    })
}

/// Returns true if the agent must write the new report at once. Otherwise the next renewal of the Lease contains the
/// report.
///
/// In a large cluster, some endpoints change all the time. If each agent wrote each new version at once, the agents would
/// overload the API server. So new versions are urgent only if the operator may wait for `awaited` versions.
pub(super) fn is_urgent(previous: &AgentReport, current: &AgentReport, awaited: &AppliedVersions) -> bool {
    if previous == current {
        return false;
    }
    let without_versions = |report: &AgentReport| AgentReport { applied_versions: None, ..report.clone() };
    if !without_versions(previous).equals_except_conntrack(&without_versions(current)) {
        return true;
    }
    match (&previous.applied_versions, &current.applied_versions) {
        (Some(previous), Some(current)) => {
            previous.services < current.services.min(awaited.services)
                || previous.endpoint_slices < current.endpoint_slices.min(awaited.endpoint_slices)
        }
        (previous, current) => previous != current,
    }
}

/// Returns the nodes whose endpoints do not see the addresses of this node's clients. Omits the peers about which the
/// probe is undecided, because the probe decides within seconds.
fn masqueraded_peers(
    nodes_without_agent: &BTreeSet<String>,
    modes: &Modes,
    peer_reports: &PeerReports,
) -> Vec<MasqueradedPeer> {
    let nodes_without_agent = nodes_without_agent
        .iter()
        .map(|node| MasqueradedPeer { node: node.clone(), reason: "no node agent reports there".to_owned() });

    let number_and_name = |report: &AgentReport| Some((report.network.as_ref()?.number, report.node.clone()));
    let names: BTreeMap<NodeNumber, String> = peer_reports.alive.iter().filter_map(number_and_name).collect();
    let silent_peers = peer_reports.silent.iter().map(|report| MasqueradedPeer {
        node: report.node.clone(),
        reason: "its node agent does not renew its Lease".to_owned(),
    });
    let masqueraded_peers = modes.iter().filter_map(|(id, mode)| match mode {
        ForwardingMode::Masquerade(MasqueradeReason::Undecided) | ForwardingMode::Keep(_) => None,
        ForwardingMode::Masquerade(reason) => Some(MasqueradedPeer {
            node: names.get(&id.peer)?.clone(),
            reason: format!("{}: {reason}", id.family),
        }),
    });
    let sorted_peers: BTreeSet<_> =
        masqueraded_peers.chain(silent_peers).chain(nodes_without_agent).collect();
    sorted_peers.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use akrobateo_core::Family;
    use akrobateo_services::agent_report::{NodeNetwork, PortOwner, PortProblem};

    use super::*;
    use crate::config::fixtures::config;
    use crate::probe::{PeerPath, TargetId};

    #[test]
    fn report_is_urgent_only_if_the_operator_may_wait_for_it() {
        let versions = |services, endpoint_slices| AppliedVersions { services, endpoint_slices };
        let report = |services, endpoint_slices| AgentReport {
            applied_versions: Some(versions(services, endpoint_slices)),
            conntrack: Some(ConntrackUse { count: services, max: 9 }),
            ..AgentReport::default()
        };
        let is_urgent_after_7_7 = |current: &AgentReport| is_urgent(&report(7, 7), current, &versions(9, 8));
        // The versions 8 to 11 are status writes, except that version 9 changed the settings of a Service.
        assert!(!is_urgent_after_7_7(&report(7, 7)));
        assert!(is_urgent_after_7_7(&report(8, 7)) && is_urgent_after_7_7(&report(11, 7)));
        assert!(is_urgent_after_7_7(&report(7, 8)));
        assert!(!is_urgent(&report(9, 8), &report(11, 12), &versions(9, 8)));
        assert!(is_urgent(&report(9, 8), &AgentReport { served_count: 1, ..report(9, 8) }, &versions(9, 8)));
        assert!(is_urgent(&AgentReport::default(), &report(9, 8), &versions(0, 0)));
    }

    #[test]
    fn report_of_many_refused_services_fits_into_an_annotation() {
        let problem = |index: usize| PortProblem {
            service: format!("default/web-{index}"),
            port: "80/TCP".to_owned(),
            owner: PortOwner::Process,
        };
        let plan = Plan {
            config: config(),
            network: NodeNetwork::default(),
            refused_ports: (0..6_000).map(problem).collect(),
            unserved_services: Vec::new(),
            doubly_used_ports: Vec::new(),
            services_waiting_for_proxies: Vec::new(),
            nodes_without_agent: BTreeSet::new(),
            next_plan_at: None,
        };
        let report = build_report("n1", &plan, &DataPathState::default(), &PeerReports::default(), None);
        assert!(report.to_json().unwrap().len() < 256 * 1024);
        assert_eq!(report.all_refused_services().len(), 6_000);
    }

    #[test]
    fn report_names_the_peers_whose_endpoints_do_not_see_the_client() {
        let peer = |node: &str, number| AgentReport {
            node: node.to_owned(),
            network: Some(NodeNetwork { number, ..NodeNetwork::default() }),
            ..AgentReport::default()
        };
        let id = |peer| TargetId { peer, family: Family::V4 };
        let modes = Modes::from([
            (id(2), ForwardingMode::Keep(PeerPath::Direct)),
            (id(3), ForwardingMode::Masquerade(MasqueradeReason::Undecided)),
            (id(4), ForwardingMode::Masquerade(MasqueradeReason::OneWay)),
            (id(5), ForwardingMode::Masquerade(MasqueradeReason::NoAnswer)),
        ]);
        let alive = vec![peer("n2", 2), peer("n3", 3), peer("n4", 4)];
        let peers = PeerReports { alive, silent: vec![peer("n5", 5)] };
        let found_peers = masqueraded_peers(&["n9".to_owned()].into(), &modes, &peers);
        let [n4, n5, n9] = &found_peers[..] else { panic!("{found_peers:?}") };
        assert_eq!((&*n5.node, &*n5.reason), ("n5", "its node agent does not renew its Lease"));
        assert_eq!((&*n9.node, &*n9.reason), ("n9", "no node agent reports there"));
        assert_eq!(n4.node, "n4");
        assert!(n4.reason.starts_with("IPv4: ") && n4.reason.contains("one direction"), "{}", n4.reason);
    }
}
