//! The agents of all nodes, from their Leases. Pure: the time is an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use akrobateo_services::agent_report::{AgentReport, LEASE_DURATION_SECONDS, NodeNetwork, lease_name};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;

use crate::plan::{NumberClaim, rightful_claims};

/// The time after which an agent that does not renew its Lease counts as lost.
const LEASE_DURATION: Duration = Duration::from_secs(LEASE_DURATION_SECONDS.unsigned_abs() as u64);
/// The time for which the rules of an agent that has announced its end count as valid.
const MAX_PAUSE: Duration = Duration::from_mins(1);
/// The longest time between two renewals of this agent's Lease, as this agent sees it. A longer time means that this
/// agent receives no events of the watch, so that it does not know the state of the other agents.
const MAX_OWN_SILENCE: Duration = Duration::from_secs(10);

/// The agents of all nodes.
#[derive(Debug)]
pub(crate) struct Agents {
    /// The name of the operator's instance, with which the names of Leases begin.
    instance: String,
    /// The name of this agent's Lease.
    own_lease: String,
    entries: HashMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    created: Timestamp,
    renew_time: Option<MicroTime>,
    /// The time at which this process has seen the last renewal.
    renewed_at: Instant,
    /// `None` if the Lease has no report, or one that cannot be read.
    report: Option<AgentReport>,
    /// True if the agent counted as alive in the last result.
    was_alive: bool,
}

impl Agents {
    /// Returns no agents. The agent itself belongs to this instance and node.
    pub(crate) fn new(instance: &str, node: &str) -> Self {
        let own_lease = lease_name(instance, node);
        Self { instance: instance.to_owned(), own_lease, entries: HashMap::new() }
    }

    /// Records the current content of a Lease, or that the Lease does not exist. Returns true if the agents that are
    /// alive, or the facts about them, changed.
    pub(crate) fn update(&mut self, name: &str, lease: Option<&Lease>, now: Instant) -> bool {
        let Some(lease) = lease else { return self.entries.remove(name).is_some() };
        let report = AgentReport::from_lease(lease).and_then(|report| {
            report
                .inspect_err(
                    |error| tracing::warn!(lease = name, %error, "cannot read the report of an agent"),
                )
                .ok()
        });
        // The policy for Leases ties the name of a Lease to the agent's node. So no agent can report for another node.
        let report = report.filter(|report| lease_name(&self.instance, &report.node) == name);
        let renew_time = lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
        let created = lease.metadata.creation_timestamp.as_ref().map_or(Timestamp::MAX, |time| time.0);
        let previous = self.entries.get(name);
        let is_renewed = previous.is_none_or(|previous| previous.renew_time != renew_time);
        let previous_facts = previous.map(|entry| (facts(entry.report.as_ref()), entry.was_alive));
        let entry = Entry {
            created,
            renew_time,
            renewed_at: previous.filter(|_| !is_renewed).map_or(now, |previous| previous.renewed_at),
            report,
            was_alive: true,
        };
        let has_changed = previous_facts != Some((facts(entry.report.as_ref()), true));
        self.entries.insert(name.to_owned(), entry);
        has_changed
    }

    /// Returns the names of the recorded Leases.
    pub(crate) fn lease_names(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    /// Returns the numbers in all Leases.
    pub(crate) fn number_claims(&self) -> Vec<NumberClaim> {
        let claim = |entry: &Entry| {
            let report = entry.report.as_ref()?;
            Some(NumberClaim {
                created: entry.created,
                node: report.node.clone(),
                number: report.network.as_ref()?.number,
            })
        };
        self.entries.values().filter_map(claim).collect()
    }

    /// Returns the reports of the other agents that are alive, sorted by node. If this agent receives no
    /// events of the watch, the result does not change.
    pub(crate) fn alive(&mut self, now: Instant) -> Vec<AgentReport> {
        let receives_events = self
            .entries
            .get(&self.own_lease)
            .is_some_and(|own| now.saturating_duration_since(own.renewed_at) < MAX_OWN_SILENCE);
        if receives_events {
            for entry in self.entries.values_mut() {
                entry.was_alive = now < entry.expiry();
            }
        }
        let claims = self.number_claims();
        let rightful: Vec<_> = rightful_claims(&claims).map(|claim| claim.node.as_str()).collect();
        let others = self.entries.iter().filter(|(name, entry)| **name != self.own_lease && entry.was_alive);
        let mut reports: Vec<_> = others
            .filter_map(|(_, entry)| entry.report.clone())
            .filter(|report| rightful.contains(&report.node.as_str()))
            .collect();
        reports.sort_by(|left, right| left.node.cmp(&right.node));
        reports
    }

    /// Returns the time at which the next agent counts as lost, if it does not renew its Lease.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        let others = self.entries.iter().filter(|(name, entry)| **name != self.own_lease && entry.was_alive);
        others.map(|(_, entry)| entry.expiry()).min()
    }
}

impl Entry {
    fn expiry(&self) -> Instant {
        let is_paused = self.report.as_ref().is_some_and(|report| report.is_paused);
        self.renewed_at + if is_paused { MAX_PAUSE } else { LEASE_DURATION }
    }
}

/// The facts in a report that decide about forwarding: the node, whether the agent is paused, its network, and the
/// Services with their own proxies that it still serves.
type Facts<'a> = (&'a str, bool, Option<&'a NodeNetwork>, &'a [String]);

/// Returns the facts in a report that decide about forwarding.
fn facts(report: Option<&AgentReport>) -> Option<Facts<'_>> {
    report.map(|it| (it.node.as_str(), it.is_paused, it.network.as_ref(), &it.handing_over[..]))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use akrobateo_services::agent_report::REPORT_ANNOTATION;
    use k8s_openapi::api::coordination::v1::LeaseSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn lease(node: &str, number: u16, created: i64, renewed: i64, is_paused: bool) -> Lease {
        let report = AgentReport {
            node: node.to_owned(),
            is_paused,
            network: Some(NodeNetwork { number, ..NodeNetwork::default() }),
            ..AgentReport::default()
        };
        let mut lease = Lease::default();
        lease.metadata.annotations =
            Some(BTreeMap::from([(REPORT_ANNOTATION.to_owned(), report.to_json().unwrap())]));
        lease.metadata.creation_timestamp = Some(Time(Timestamp::from_second(created).unwrap()));
        let renew_time = Some(MicroTime(Timestamp::from_second(renewed).unwrap()));
        lease.spec = Some(LeaseSpec { renew_time, ..LeaseSpec::default() });
        lease
    }

    struct World {
        agents: Agents,
        start: Instant,
    }

    impl World {
        fn new() -> Self {
            Self { agents: Agents::new("akrobateo", "n1"), start: Instant::now() }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        /// Renews the Lease of a node. The number of the node is the last character of its name.
        fn renew(&mut self, node: &str, seconds: u64) -> bool {
            let number = node[1..].parse().unwrap();
            let lease = lease(node, number, 1, seconds.try_into().unwrap(), false);
            let now = self.at(seconds);
            self.agents.update(&lease_name("akrobateo", node), Some(&lease), now)
        }

        fn alive(&mut self, seconds: u64) -> Vec<String> {
            let now = self.at(seconds);
            self.agents.alive(now).into_iter().map(|report| report.node).collect()
        }
    }

    #[test]
    fn only_a_changed_report_is_a_change() {
        let mut world = World::new();
        assert!(world.renew("n2", 0));
        assert!(!world.renew("n2", 5));
        let paused = lease("n2", 2, 1, 6, true);
        let now = world.at(6);
        assert!(world.agents.update(&lease_name("akrobateo", "n2"), Some(&paused), now));
        assert!(
            world.agents.update(&lease_name("akrobateo", "n2"), None, now)
                && !world.agents.update(&lease_name("akrobateo", "n2"), None, now)
        );
    }

    #[test]
    fn silent_agent_is_lost_after_its_lease() {
        let mut world = World::new();
        for seconds in [0, 5, 10, 15] {
            world.renew("n1", seconds);
        }
        world.renew("n2", 0);
        world.renew("n3", 5);
        assert_eq!(world.alive(14), ["n2", "n3"]);
        assert_eq!(world.agents.next_expiry(), Some(world.at(15)));
        assert_eq!(world.alive(15), ["n3"]);
        assert!(world.renew("n2", 16));
        assert_eq!(world.alive(17), ["n2", "n3"]);
    }

    #[test]
    fn agent_without_watch_events_keeps_its_peers() {
        let mut world = World::new();
        assert!(world.renew("n1", 0) && world.renew("n2", 0));
        assert_eq!(world.alive(3600), ["n2"]);
        world.renew("n1", 3601);
        assert!(world.alive(3602).is_empty());
    }

    #[test]
    fn paused_agent_is_alive_for_a_minute() {
        let mut world = World::new();
        let now = world.at(0);
        world.agents.update(&lease_name("akrobateo", "n2"), Some(&lease("n2", 2, 1, 0, true)), now);
        (0..14).for_each(|index| _ = world.renew("n1", index * 5));
        assert_eq!(world.alive(59), ["n2"]);
        assert!(world.alive(61).is_empty());
    }

    #[test]
    fn agent_with_the_number_of_an_older_lease_is_no_peer() {
        let mut world = World::new();
        let now = world.at(0);
        world.agents.update(&lease_name("akrobateo", "n2"), Some(&lease("n2", 7, 1, 0, false)), now);
        world.agents.update(&lease_name("akrobateo", "n3"), Some(&lease("n3", 7, 2, 0, false)), now);
        assert_eq!(world.alive(1), ["n2"]);
        assert_eq!(world.agents.number_claims().len(), 2);
    }

    #[test]
    fn agent_cannot_report_for_another_node() {
        let mut world = World::new();
        let now = world.at(0);
        world.agents.update("akrobateo-n3", Some(&lease("n2", 2, 1, 0, false)), now);
        assert!(world.alive(1).is_empty() && world.agents.number_claims().is_empty());
    }
}
