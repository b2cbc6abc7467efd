//! The reports of the node agents, and the times when the operator saw their Leases change. Pure: the time is an
//! argument.
//!
//! The clocks of two machines may differ, so the operator never compares the time in a Lease with its own clock.
//! Instead, the operator measures how long the time in a Lease has not changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use akrobateo_services::agent_report::{AgentReport, LEASE_DURATION_SECONDS, REPORT_ANNOTATION};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::SignedDuration;
use kube::ResourceExt;

use super::clock::Clock;
use super::lease_report::parse_report;
use crate::decide::{AgentState, AgentStates, ObservedReport};

/// The time after which an agent is silent if it has not renewed its Lease.
const LEASE_DURATION: Duration = Duration::from_secs(LEASE_DURATION_SECONDS.unsigned_abs() as u64);
/// The time after which an agent that has ended in an orderly way becomes silent. The next agent of the node usually
/// starts earlier.
const PAUSE_DURATION: Duration = Duration::from_mins(1);
/// The time after which the operator has probably lost contact with the API server, if no agent has renewed its Lease.
/// Each agent renews its Lease every 5 seconds.
const CONTACT_TIMEOUT: Duration = Duration::from_millis(7500);

/// The agents, by the names of their Leases.
#[derive(Debug, Default)]
pub(super) struct AgentRegistry {
    agents: BTreeMap<String, Agent>,
    /// The annotations with reports that cannot be parsed, by the names of their Leases. The registry logs each of
    /// these annotations only once.
    invalid_reports: BTreeMap<String, String>,
    /// The time of the last renewal of any agent.
    last_renewal: Option<Instant>,
}

/// An agent, as its Lease describes it.
#[derive(Clone, Debug)]
struct Agent {
    report: Arc<AgentReport>,
    /// The annotation from which the report was parsed.
    report_text: String,
    renew_time: Option<MicroTime>,
    /// The time when the operator saw the last renewal.
    renewed_at: Instant,
    /// The time when the operator first saw that the agent has an error or has not written its rules; `None` while the
    /// agent works.
    failing_since: Option<Instant>,
    is_silent: bool,
    /// True if the agent became silent while the operator had lost contact, so the agent may have worked all the time.
    is_silent_by_lost_contact: bool,
    /// True if the Lease no longer exists. The agent usually creates it again.
    is_deleted: bool,
}

/// A change in an agent's state, which may change the readiness of the agent's node.
#[derive(Clone, Debug)]
pub(super) struct AgentChange {
    pub(super) node: String,
    pub(super) previous_report: Option<ObservedReport>,
    pub(super) current_report: Option<ObservedReport>,
}

impl AgentRegistry {
    /// Returns the agents of these Leases. The registry treats each Lease as renewed now.
    pub(super) fn from_leases(instance: &str, leases: &[Arc<Lease>], now: Instant) -> Self {
        let mut registry = Self::default();
        for lease in leases {
            registry.update(instance, &lease.name_any(), Some(lease), now);
        }
        registry
    }

    /// Records the current state of a Lease; `None` if the Lease no longer exists. Returns the changed agents. A renewal
    /// is not a change, but the first renewal after a lost contact changes all agents that became silent meanwhile.
    pub(super) fn update(
        &mut self,
        instance: &str,
        name: &str,
        lease: Option<&Lease>,
        now: Instant,
    ) -> Vec<AgentChange> {
        let Some(lease) = lease else {
            self.invalid_reports.remove(name);
            if let Some(agent) = self.agents.get_mut(name) {
                agent.is_deleted = true;
            }
            return Vec::new();
        };
        let report_text = lease.annotations().get(REPORT_ANNOTATION).map(String::as_str).unwrap_or_default();
        let renew_time = lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
        let previous_agent = self.agents.get(name);
        let is_renewed = previous_agent.is_none_or(|agent| agent.renew_time != renew_time);
        let is_report_changed = previous_agent.is_none_or(|agent| agent.report_text != report_text);
        let report = match previous_agent.filter(|_| !is_report_changed) {
            Some(agent) => agent.report.clone(),
            None if self.invalid_reports.get(name).is_some_and(|it| it == report_text) => return Vec::new(),
            None => {
                let Some(report) = parse_report(instance, name, lease) else {
                    self.invalid_reports.insert(name.to_owned(), report_text.to_owned());
                    return self.remove(name).into_iter().collect();
                };
                Arc::new(report)
            }
        };
        let renewed_at = previous_agent.filter(|_| !is_renewed).map_or(now, |agent| agent.renewed_at);
        let failing_since = previous_agent.and_then(|agent| agent.failing_since);
        let agent = Agent {
            failing_since: is_failing(&report).then(|| failing_since.unwrap_or(now)),
            report,
            report_text: report_text.to_owned(),
            renew_time,
            renewed_at,
            is_silent: !is_renewed && previous_agent.is_some_and(|agent| agent.is_silent),
            is_silent_by_lost_contact: previous_agent.is_some_and(|agent| agent.is_silent_by_lost_contact),
            is_deleted: false,
        };
        self.invalid_reports.remove(name);
        let (node, current_report) = (agent.report.node.clone(), agent.observed());
        let previous_report = self.agents.insert(name.to_owned(), agent).map(|agent| agent.observed());
        let has_changed =
            !previous_report.as_ref().is_some_and(|report| report.is_equivalent(&current_report));
        let change = AgentChange { node, previous_report, current_report: Some(current_report) };
        let mut changes: Vec<_> = has_changed.then_some(change).into_iter().collect();
        if is_renewed {
            changes.extend(self.on_renewal(now));
        }
        changes
    }

    /// Records a renewal. If the operator had lost contact, all agents get time to renew their Leases, except those that
    /// were silent before. Otherwise, the operator would remove the addresses of all nodes except the first one. Returns
    /// the agents that are no longer silent.
    fn on_renewal(&mut self, now: Instant) -> Vec<AgentChange> {
        let had_lost_contact = self.has_lost_contact(now);
        self.last_renewal = Some(now);
        if !had_lost_contact {
            return Vec::new();
        }
        let mut changes = Vec::new();
        for agent in self.agents.values_mut() {
            let (previous_report, was_silent) = (Some(agent.observed()), agent.is_silent);
            if was_silent && !agent.is_silent_by_lost_contact {
                continue;
            }
            agent.renewed_at = now;
            agent.is_silent = false;
            if was_silent {
                let (node, current_report) = (agent.report.node.clone(), Some(agent.observed()));
                changes.push(AgentChange { node, previous_report, current_report });
            }
        }
        changes
    }

    fn has_lost_contact(&self, now: Instant) -> bool {
        self.last_renewal.is_some_and(|last_renewal| now.duration_since(last_renewal) > CONTACT_TIMEOUT)
    }

    fn remove(&mut self, name: &str) -> Option<AgentChange> {
        let agent = self.agents.remove(name)?;
        let node = agent.report.node.clone();
        Some(AgentChange { node, previous_report: Some(agent.observed()), current_report: None })
    }

    /// Marks the agents that have not renewed their Leases in time as silent. Removes the agents whose Leases no longer
    /// exist. Returns the changed agents.
    ///
    /// If the operator has lost contact, all agents become silent at the same time. Without this rule, the operator
    /// would remove the addresses of nodes that still work, one after another.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<AgentChange> {
        let expired_agents =
            self.agents.iter().filter(|(_, agent)| agent.is_deleted && agent.deadline() <= now);
        let expired_names: Vec<_> = expired_agents.map(|(name, _)| name.clone()).collect();
        let mut changes: Vec<_> = expired_names.iter().filter_map(|name| self.remove(name)).collect();
        if self.silence_deadline(now).is_none_or(|deadline| deadline > now) {
            return changes;
        }
        let has_lost_contact = self.has_lost_contact(now);
        for agent in self.agents.values_mut().filter(|agent| !agent.is_silent && agent.deadline() <= now) {
            let previous_report = Some(agent.observed());
            (agent.is_silent, agent.is_silent_by_lost_contact) = (true, has_lost_contact);
            let (node, current_report) = (agent.report.node.clone(), Some(agent.observed()));
            changes.push(AgentChange { node, previous_report, current_report });
        }
        changes
    }

    /// Returns the time of the next call of [`Self::expire`] that may change an agent; `None` if no agent can change.
    pub(super) fn next_expiry(&self, now: Instant) -> Option<Instant> {
        let deletion_deadlines = self.agents.values().filter(|agent| agent.is_deleted).map(Agent::deadline);
        deletion_deadlines.chain(self.silence_deadline(now)).min()
    }

    /// Returns the time when [`Self::expire`] next marks an agent as silent. Usually this time is the earliest deadline
    /// of all agents. If the operator has lost contact, this time is the latest deadline. Agents that ended in an
    /// orderly way do not count.
    fn silence_deadline(&self, now: Instant) -> Option<Instant> {
        let reporting_agents = || self.agents.values().filter(|agent| !agent.is_silent);
        let first_deadline = reporting_agents().map(Agent::deadline).min()?;
        if !self.has_lost_contact(now.max(first_deadline)) {
            return Some(first_deadline);
        }
        let last_deadline =
            reporting_agents().filter(|agent| !agent.report.is_paused).map(Agent::deadline).max();
        Some(last_deadline.unwrap_or(first_deadline).max(first_deadline))
    }

    /// Marks an agent as silent if its Lease is too old: the newest Lease is newer by more than the duration of a
    /// Lease. Commands need this comparison, because a command reads each Lease only once.
    pub(super) fn mark_silent_by_renew_times(&mut self) {
        let newest_time = self.agents.values().filter_map(|agent| agent.renew_time.as_ref()).max().cloned();
        for agent in self.agents.values_mut() {
            let duration = if agent.report.is_paused { PAUSE_DURATION } else { LEASE_DURATION };
            let max_age = SignedDuration::try_from(duration).unwrap_or_default();
            agent.is_silent = match (&agent.renew_time, &newest_time) {
                (Some(renewed), Some(newest)) => newest.0.duration_since(renewed.0) > max_age,
                (None, _) => true,
                (Some(_), None) => false,
            };
        }
    }

    /// Returns the last report of each agent. The value is true if the agent is silent.
    pub(super) fn reports(&self) -> impl Iterator<Item = (&AgentReport, bool)> {
        self.agents.values().map(|agent| (&*agent.report, agent.is_silent))
    }

    /// Returns the names of all agents' Leases.
    pub(super) fn lease_names(&self) -> impl Iterator<Item = String> {
        self.agents.keys().cloned()
    }

    /// Returns the state of all agents.
    pub(super) fn states(&self, clock: Clock) -> AgentStates {
        let states = self.agents.values().map(|agent| {
            let state = AgentState {
                observed_report: agent.observed(),
                renewed_at: agent.renew_time.as_ref().map(|time| time.0),
                silent_at: clock.to_timestamp(agent.deadline()),
                failing_since: agent.failing_since.map(|since| clock.to_timestamp(since)),
            };
            (agent.report.node.clone(), state)
        });
        states.collect()
    }
}

impl Agent {
    fn observed(&self) -> ObservedReport {
        ObservedReport { report: self.report.clone(), is_silent: self.is_silent }
    }

    /// Returns the time when the agent becomes silent if it does not renew its Lease.
    fn deadline(&self) -> Instant {
        self.renewed_at + if self.report.is_paused { PAUSE_DURATION } else { LEASE_DURATION }
    }
}

/// Returns true if the agent has failed to change its rules, or has not written them yet.
fn is_failing(report: &AgentReport) -> bool {
    report.error.is_some() || report.applied_versions.is_none()
}

#[cfg(test)]
mod tests;
