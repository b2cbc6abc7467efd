//! The agents of all nodes, from their Leases. Pure: the time is an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use akrobateo_services::agent_report::{AgentReport, LEASE_DURATION_SECONDS, NodeNetwork, lease_name};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;

use crate::plan::{NumberClaim, PeerReports, accepted_claims};

/// The time for which an agent counts as alive after a renewal of its Lease.
const LEASE_DURATION: Duration = Duration::from_secs(LEASE_DURATION_SECONDS.unsigned_abs() as u64);
/// The time for which a paused agent counts as alive after the last renewal of its Lease. A paused agent has announced
/// that it stops and that its rules remain in the kernel.
const MAX_PAUSE_TIME: Duration = Duration::from_mins(1);
/// The maximum time without a watch event about a renewal of this agent's own Lease. After a longer time, the watch has
/// probably failed, and this agent does not know which other agents are alive.
const MAX_TIME_WITHOUT_OWN_RENEWAL: Duration = Duration::from_secs(10);

/// The agents of all nodes.
#[derive(Debug)]
pub(crate) struct Agents {
    /// The name of the operator's instance. The names of the Leases begin with this name.
    operator_instance: String,
    /// The name of this agent's Lease.
    own_lease_name: String,
    /// The agents by the names of their Leases.
    entries: HashMap<String, AgentEntry>,
}

#[derive(Debug)]
struct AgentEntry {
    lease_created_at: Timestamp,
    renew_time: Option<MicroTime>,
    /// The time at which this process has seen the last renewal.
    renewed_at: Instant,
    /// The report in the Lease; `None` if the Lease has no report, or if the report is invalid.
    report: Option<AgentReport>,
    /// True if the agent was alive in the last result of [`Agents::peer_reports`].
    was_alive: bool,
}

impl Agents {
    /// Creates an empty list of agents. `operator_instance` and `own_node` identify this agent.
    pub(crate) fn new(operator_instance: &str, own_node: &str) -> Self {
        let own_lease_name = lease_name(operator_instance, own_node);
        Self { operator_instance: operator_instance.to_owned(), own_lease_name, entries: HashMap::new() }
    }

    /// Records the current content of a Lease; `None` means that the Lease does not exist. Returns true if the set of
    /// alive agents may have changed, or if the report has new facts for the forwarding.
    pub(crate) fn update(&mut self, name: &str, lease: Option<&Lease>, now: Instant) -> bool {
        let Some(lease) = lease else { return self.entries.remove(name).is_some() };
        let report = AgentReport::from_lease(lease).and_then(|report| {
            report
                .inspect_err(
                    |error| tracing::warn!(lease = name, %error, "cannot read the report of an agent"),
                )
                .ok()
        });
        // An admission policy allows each agent to write only the Lease with the name of its node. The policy prevents
        // an agent from reporting for another node.
        let report = report.filter(|report| lease_name(&self.operator_instance, &report.node) == name);
        let renew_time = lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
        let lease_created_at =
            lease.metadata.creation_timestamp.as_ref().map_or(Timestamp::MAX, |time| time.0);
        if name == self.own_lease_name && !self.receives_watch_events(now) {
            self.give_time_to_renew(now);
        }
        let previous = self.entries.get(name);
        let is_renewed = previous.is_none_or(|previous| previous.renew_time != renew_time);
        let previous_facts = previous.map(|entry| (forwarding_facts(entry.report.as_ref()), entry.was_alive));
        let entry = AgentEntry {
            lease_created_at,
            renew_time,
            renewed_at: previous.filter(|_| !is_renewed).map_or(now, |previous| previous.renewed_at),
            report,
            was_alive: true,
        };
        let has_changed = previous_facts != Some((forwarding_facts(entry.report.as_ref()), true));
        self.entries.insert(name.to_owned(), entry);
        has_changed
    }

    /// Returns the names of the recorded Leases.
    pub(crate) fn lease_names(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    /// Returns the node numbers that the agents claim in their reports.
    pub(crate) fn number_claims(&self) -> Vec<NumberClaim> {
        let claim = |entry: &AgentEntry| {
            let report = entry.report.as_ref()?;
            Some(NumberClaim {
                lease_created_at: entry.lease_created_at,
                node: report.node.clone(),
                number: report.network.as_ref()?.number,
            })
        };
        self.entries.values().filter_map(claim).collect()
    }

    /// Returns the reports of the other agents, sorted by node.
    ///
    /// While the watch fails, the same agents are alive as in the previous result.
    pub(crate) fn peer_reports(&mut self, now: Instant) -> PeerReports {
        if self.receives_watch_events(now) {
            for entry in self.entries.values_mut() {
                entry.was_alive = now < entry.expires_at();
            }
        }
        let claims = self.number_claims();
        let accepted_nodes: Vec<_> = accepted_claims(&claims).map(|claim| claim.node.as_str()).collect();
        let (mut alive, mut silent) = (Vec::new(), Vec::new());
        for entry in self.peers() {
            let reports = if entry.was_alive { &mut alive } else { &mut silent };
            let report = entry.report.iter().filter(|report| accepted_nodes.contains(&report.node.as_str()));
            reports.extend(report.cloned());
        }
        for reports in [&mut alive, &mut silent] {
            reports.sort_by(|report, other| report.node.cmp(&other.node));
        }
        PeerReports { alive, silent }
    }

    /// Returns the earliest time at which another agent counts as lost, unless the other agent renews its Lease before.
    /// Returns `None` while the watch fails, because agents do not expire then.
    pub(crate) fn next_expiry(&self, now: Instant) -> Option<Instant> {
        let alive_peers = self.peers().filter(|entry| entry.was_alive);
        alive_peers.map(AgentEntry::expires_at).min().filter(|_| self.receives_watch_events(now))
    }

    /// Gives the agents that were alive before the watch failed time to renew their Leases.
    fn give_time_to_renew(&mut self, now: Instant) {
        for (_, entry) in
            self.entries.iter_mut().filter(|(name, entry)| **name != self.own_lease_name && entry.was_alive)
        {
            entry.renewed_at = now;
        }
    }

    /// Returns true if the watch has recently reported a renewal of this agent's own Lease.
    fn receives_watch_events(&self, now: Instant) -> bool {
        self.entries
            .get(&self.own_lease_name)
            .is_some_and(|own| now.saturating_duration_since(own.renewed_at) < MAX_TIME_WITHOUT_OWN_RENEWAL)
    }

    fn peers(&self) -> impl Iterator<Item = &AgentEntry> {
        let other_entries = self.entries.iter().filter(|(name, _)| **name != self.own_lease_name);
        other_entries.map(|(_, entry)| entry)
    }
}

impl AgentEntry {
    fn expires_at(&self) -> Instant {
        let is_paused = self.report.as_ref().is_some_and(|report| report.is_paused);
        self.renewed_at + if is_paused { MAX_PAUSE_TIME } else { LEASE_DURATION }
    }
}

/// Returns the facts in a report that decide about forwarding: the node's name and network, and the paused state of the
/// agent.
fn forwarding_facts(report: Option<&AgentReport>) -> Option<(&str, bool, Option<&NodeNetwork>)> {
    report.map(|report| (report.node.as_str(), report.is_paused, report.network.as_ref()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use akrobateo_services::agent_report::REPORT_ANNOTATION;
    use k8s_openapi::api::coordination::v1::LeaseSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn lease(node: &str, number: u16, created_second: i64, renewed_second: i64, is_paused: bool) -> Lease {
        let report = AgentReport {
            node: node.to_owned(),
            is_paused,
            network: Some(NodeNetwork { number, ..NodeNetwork::default() }),
            ..AgentReport::default()
        };
        let mut lease = Lease::default();
        lease.metadata.annotations =
            Some(BTreeMap::from([(REPORT_ANNOTATION.to_owned(), report.to_json().unwrap())]));
        lease.metadata.creation_timestamp = Some(Time(Timestamp::from_second(created_second).unwrap()));
        let renew_time = Some(MicroTime(Timestamp::from_second(renewed_second).unwrap()));
        lease.spec = Some(LeaseSpec { renew_time, ..LeaseSpec::default() });
        lease
    }

    /// The agents as the agent of node `n1` sees them, and a clock.
    struct TestAgents {
        agents: Agents,
        start: Instant,
    }

    impl TestAgents {
        fn new() -> Self {
            Self { agents: Agents::new("akrobateo", "n1"), start: Instant::now() }
        }

        fn time_at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        /// Renews the Lease of a node. The number of the node is the last character of its name.
        fn renew_lease(&mut self, node: &str, seconds: u64) -> bool {
            let number = node[1..].parse().unwrap();
            let lease = lease(node, number, 1, seconds.try_into().unwrap(), false);
            let now = self.time_at(seconds);
            self.agents.update(&lease_name("akrobateo", node), Some(&lease), now)
        }

        fn alive_nodes(&mut self, seconds: u64) -> Vec<String> {
            let now = self.time_at(seconds);
            self.agents.peer_reports(now).alive.into_iter().map(|report| report.node).collect()
        }
    }

    #[test]
    fn renewal_with_the_same_report_does_not_count_as_a_change() {
        let mut test = TestAgents::new();
        assert!(test.renew_lease("n2", 0));
        assert!(!test.renew_lease("n2", 5));
        let paused_lease = lease("n2", 2, 1, 6, true);
        let now = test.time_at(6);
        assert!(test.agents.update(&lease_name("akrobateo", "n2"), Some(&paused_lease), now));
        assert!(
            test.agents.update(&lease_name("akrobateo", "n2"), None, now)
                && !test.agents.update(&lease_name("akrobateo", "n2"), None, now)
        );
    }

    #[test]
    fn agent_that_does_not_renew_its_lease_is_not_alive() {
        let mut test = TestAgents::new();
        for seconds in [0, 5, 10, 15] {
            test.renew_lease("n1", seconds);
        }
        test.renew_lease("n2", 0);
        test.renew_lease("n3", 5);
        assert_eq!(test.alive_nodes(14), ["n2", "n3"]);
        assert_eq!(test.agents.next_expiry(test.time_at(14)), Some(test.time_at(15)));
        assert_eq!(test.alive_nodes(15), ["n3"]);
        let now = test.time_at(15);
        assert_eq!(test.agents.peer_reports(now).silent[0].node, "n2");
        assert!(test.renew_lease("n2", 16));
        assert_eq!(test.alive_nodes(17), ["n2", "n3"]);
    }

    #[test]
    fn agent_without_watch_events_keeps_its_peers() {
        let mut test = TestAgents::new();
        assert!(test.renew_lease("n1", 0) && test.renew_lease("n2", 0));
        assert_eq!(test.alive_nodes(3600), ["n2"]);
        // An expiry in the past would cause one plan after another.
        assert_eq!(test.agents.next_expiry(test.time_at(3600)), None);
        test.renew_lease("n1", 3601);
        // After the failure of the watch, the other agents have time to renew their Leases.
        assert_eq!(test.agents.next_expiry(test.time_at(3601)), Some(test.time_at(3616)));
        assert_eq!(test.alive_nodes(3602), ["n2"]);
        (3602..3616).for_each(|second| _ = test.renew_lease("n1", second));
        assert!(test.alive_nodes(3616).is_empty());
    }

    #[test]
    fn paused_agent_is_alive_for_a_minute() {
        let mut test = TestAgents::new();
        let now = test.time_at(0);
        test.agents.update(&lease_name("akrobateo", "n2"), Some(&lease("n2", 2, 1, 0, true)), now);
        (0..14).for_each(|index| _ = test.renew_lease("n1", index * 5));
        assert_eq!(test.alive_nodes(59), ["n2"]);
        assert!(test.alive_nodes(61).is_empty());
    }

    #[test]
    fn agent_with_the_number_of_an_older_lease_is_not_a_peer() {
        let mut test = TestAgents::new();
        let now = test.time_at(0);
        test.agents.update(&lease_name("akrobateo", "n2"), Some(&lease("n2", 7, 1, 0, false)), now);
        test.agents.update(&lease_name("akrobateo", "n3"), Some(&lease("n3", 7, 2, 0, false)), now);
        assert_eq!(test.alive_nodes(1), ["n2"]);
        assert_eq!(test.agents.number_claims().len(), 2);
    }

    #[test]
    fn agent_cannot_report_for_another_node() {
        let mut test = TestAgents::new();
        let now = test.time_at(0);
        test.agents.update("akrobateo-n3", Some(&lease("n2", 2, 1, 0, false)), now);
        assert!(test.alive_nodes(1).is_empty() && test.agents.number_claims().is_empty());
    }
}
