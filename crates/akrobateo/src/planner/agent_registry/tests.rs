//! Tests of the registry: renewals, silence, lost contact and deleted Leases.

use std::collections::BTreeMap;

use akrobateo_services::agent_report::{ConntrackUse, lease_name};

use super::*;

/// Returns the Lease of a node's agent. The Lease was renewed at this time, by the clock of the agent.
fn lease(node: &str, renewed_at: i64, change: impl FnOnce(&mut AgentReport)) -> (String, Lease) {
    let mut report = AgentReport { node: node.to_owned(), ..AgentReport::default() };
    report.applied_versions = Some(akrobateo_services::agent_report::AppliedVersions::default());
    change(&mut report);
    let mut lease = Lease::default();
    let annotations = BTreeMap::from([(REPORT_ANNOTATION.to_owned(), report.to_json().unwrap())]);
    lease.metadata.annotations = Some(annotations);
    lease.metadata.name = Some(lease_name("akrobateo", node));
    let renew_time = k8s_openapi::jiff::Timestamp::from_second(renewed_at).unwrap();
    lease.spec.get_or_insert_default().renew_time = Some(MicroTime(renew_time));
    (lease_name("akrobateo", node), lease)
}

fn renew(registry: &mut AgentRegistry, node: &str, number: i64, now: Instant) -> Vec<AgentChange> {
    let (name, lease) = lease(node, number, |_| ());
    registry.update("akrobateo", &name, Some(&lease), now)
}

fn silent_nodes(registry: &AgentRegistry) -> Vec<String> {
    let silent_agents = registry.agents.values().filter(|agent| agent.is_silent);
    silent_agents.map(|agent| agent.report.node.clone()).collect()
}

/// Simulates the agents for this number of seconds. The agent of each node in `nodes` renews its Lease every 5
/// seconds. Returns the time at the end.
fn run_agents(registry: &mut AgentRegistry, nodes: &[&str], start: Instant, seconds: u64) -> Instant {
    for second in 1..=seconds {
        let now = start + Duration::from_secs(second);
        for node in nodes.iter().filter(|_| second % 5 == 0) {
            let number = registry.agents[&lease_name("akrobateo", node)].renew_time.clone().unwrap();
            renew(registry, node, number.0.as_second() + 1, now);
        }
        while registry.next_expiry(now).is_some_and(|expiry| expiry <= now) {
            registry.expire(now);
        }
    }
    start + Duration::from_secs(seconds)
}

#[test]
fn changed_use_of_conntrack_does_not_change_the_agent_facts() {
    let mut registry = AgentRegistry::default();
    let mut is_change = |count| {
        let (name, lease) = lease("n1", 1, |it| it.conntrack = Some(ConntrackUse { count, max: 9 }));
        !registry.update("akrobateo", &name, Some(&lease), Instant::now()).is_empty()
    };
    assert!(is_change(1) && !is_change(2));
}

#[test]
fn agent_without_renewals_is_silent_after_15_seconds() {
    let (mut registry, start) = (AgentRegistry::default(), Instant::now());
    for node in ["n1", "n2", "n3"] {
        renew(&mut registry, node, 1, start);
    }
    let now = run_agents(&mut registry, &["n1", "n2"], start, 14);
    assert!(silent_nodes(&registry).is_empty());
    let now = run_agents(&mut registry, &["n1", "n2"], now, 2);
    assert_eq!(silent_nodes(&registry), ["n3"]);
    assert_eq!(renew(&mut registry, "n3", 2, now).len(), 1);
    assert!(silent_nodes(&registry).is_empty());
}

#[test]
fn agents_become_silent_together_if_the_operator_loses_contact() {
    let (mut registry, start) = (AgentRegistry::default(), Instant::now());
    for (index, node) in ["n1", "n2", "n3"].into_iter().enumerate() {
        renew(&mut registry, node, 1, start + Duration::from_secs(2 * index as u64));
    }
    // The deadlines of the agents are 15, 17 and 19 seconds after the start.
    let now = run_agents(&mut registry, &[], start, 18);
    assert!(silent_nodes(&registry).is_empty());
    let now = run_agents(&mut registry, &[], now, 1);
    assert_eq!(silent_nodes(&registry), ["n1", "n2", "n3"]);
    assert!(registry.next_expiry(now).is_none());
}

#[test]
fn agents_get_time_to_renew_after_lost_contact() {
    let (mut registry, start) = (AgentRegistry::default(), Instant::now());
    renew(&mut registry, "n1", 1, start);
    renew(&mut registry, "n2", 1, start + Duration::from_secs(4));
    let now = run_agents(&mut registry, &[], start, 16);
    // The watch continues, and the first event is about n2.
    renew(&mut registry, "n2", 2, now);
    registry.expire(now);
    assert!(silent_nodes(&registry).is_empty());
    run_agents(&mut registry, &["n2"], now, 16);
    assert_eq!(silent_nodes(&registry), ["n1"]);
}

#[test]
fn agents_that_became_silent_by_lost_contact_are_alive_after_the_first_renewal() {
    let (mut registry, start) = (AgentRegistry::default(), Instant::now());
    for node in ["n1", "n2", "n3"] {
        renew(&mut registry, node, 1, start);
    }
    let now = run_agents(&mut registry, &["n1", "n2"], start, 20);
    assert_eq!(silent_nodes(&registry), ["n3"]);
    let now = run_agents(&mut registry, &[], now, 30);
    assert_eq!(silent_nodes(&registry), ["n1", "n2", "n3"]);
    // The agent n3 was silent before, so it has probably ended.
    let changes = renew(&mut registry, "n2", 100, now);
    assert_eq!(changes.iter().map(|change| change.node.as_str()).collect::<Vec<_>>(), ["n2", "n1"]);
    assert_eq!(silent_nodes(&registry), ["n3"]);
    registry.expire(now);
    run_agents(&mut registry, &["n2"], now, 16);
    assert_eq!(silent_nodes(&registry), ["n1", "n3"]);
}

#[test]
fn paused_agent_is_silent_after_one_minute() {
    let (mut registry, start) = (AgentRegistry::default(), Instant::now());
    renew(&mut registry, "n1", 1, start);
    let (name, lease) = lease("n2", 1, |report| report.is_paused = true);
    registry.update("akrobateo", &name, Some(&lease), start);
    let now = run_agents(&mut registry, &["n1"], start, 59);
    assert!(silent_nodes(&registry).is_empty());
    run_agents(&mut registry, &["n1"], now, 2);
    assert_eq!(silent_nodes(&registry), ["n2"]);
}

#[test]
fn agent_without_a_lease_disappears_after_15_seconds() {
    let (mut registry, start) = (AgentRegistry::default(), Instant::now());
    let name = lease_name("akrobateo", "n1");
    renew(&mut registry, "n1", 1, start);
    assert!(registry.update("akrobateo", &name, None, start).is_empty());
    // The agent creates its Lease again.
    assert!(renew(&mut registry, "n1", 2, start).is_empty());
    registry.update("akrobateo", &name, None, start);
    assert!(registry.expire(start + Duration::from_secs(14)).is_empty());
    let changes = registry.expire(start + Duration::from_secs(15));
    assert!(matches!(&changes[..], [AgentChange { current_report: None, .. }]));
    assert_eq!(registry.lease_names().count(), 0);
}

#[test]
fn failing_time_starts_with_the_first_error() {
    let (mut registry, start) = (AgentRegistry::default(), Instant::now());
    let mut failing_since = |number: i64, error: Option<&str>| {
        let now = start + Duration::from_secs(u64::try_from(number).unwrap());
        let (name, lease) = lease("n1", number, |report| report.error = error.map(str::to_owned));
        registry.update("akrobateo", &name, Some(&lease), now);
        registry.agents[&name].failing_since.map(|since| since.duration_since(start).as_secs())
    };
    assert_eq!(failing_since(1, None), None);
    assert_eq!(failing_since(2, Some("busy")), Some(2));
    assert_eq!(failing_since(3, Some("no nf_tables")), Some(2));
    assert_eq!(failing_since(4, None), None);
}

#[test]
fn command_finds_silent_agents_by_the_times_in_leases() {
    let (mut registry, now) = (AgentRegistry::default(), Instant::now());
    renew(&mut registry, "n1", 100, now);
    renew(&mut registry, "n2", 86, now);
    renew(&mut registry, "n3", 84, now);
    registry.mark_silent_by_renew_times();
    assert_eq!(silent_nodes(&registry), ["n3"]);
}
