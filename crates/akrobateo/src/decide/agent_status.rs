//! The state of the node agents as the operator observes it, and the status of one Service on the node of an agent.
//! Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use akrobateo_services::agent_report::{AgentReport, PortProblem};
use akrobateo_services::key::ServiceKey;
use k8s_openapi::jiff::Timestamp;

/// The agents of all nodes, by the name of the node.
pub(crate) type AgentStates = BTreeMap<String, AgentState>;

/// The state of the agent of one node. The times are times of the operator's clock, except `renewed_at`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AgentState {
    pub(crate) observed_report: ObservedReport,
    /// The time in the Lease, by the clock of the agent. Only commands show this time.
    pub(crate) renewed_at: Option<Timestamp>,
    /// The time when the agent becomes silent if it does not renew its Lease.
    pub(crate) silent_at: Timestamp,
    /// The time when the operator first saw that the agent has an error or has not written its rules; `None` while the
    /// agent works.
    pub(crate) failing_since: Option<Timestamp>,
}

/// The last report of an agent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ObservedReport {
    pub(crate) report: Arc<AgentReport>,
    /// True if the agent has not renewed its Lease in time.
    pub(crate) is_silent: bool,
}

impl ObservedReport {
    /// Returns true if both reports lead to the same decisions.
    pub(crate) fn is_equivalent(&self, other: &Self) -> bool {
        self.is_silent == other.is_silent && self.report.equals_except_conntrack(&other.report)
    }
}

/// The resourceVersions that the rules of an agent must contain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequiredVersions {
    pub(crate) service: u64,
    pub(crate) endpoint_slices: u64,
}

/// The status of one Service on the node of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AgentStatus {
    /// The node has no agent.
    Absent,
    /// The agent has not renewed its Lease in time.
    Silent,
    /// The agent refuses the Service. The list has at least one element.
    Refusing(Vec<PortProblem>),
    /// The agent has ended in an orderly way, and the next agent will continue. The rules remain in the kernel.
    Paused,
    /// The agent cannot change the rules in the kernel.
    Failing(String),
    /// The rules do not contain the current versions of the Service and its endpoints yet.
    Outdated,
    /// The node can answer.
    Serving,
}

impl AgentStatus {
    /// Returns the status of a Service on a node whose agent has sent this report.
    ///
    /// A refusal has precedence over outdated versions, so that a restart of the operator does not change the message.
    /// After a restart, the operator requires the newest version of each Service.
    pub(crate) fn new(
        observed_report: Option<&ObservedReport>,
        key: &ServiceKey,
        required_versions: RequiredVersions,
    ) -> Self {
        let Some(ObservedReport { report, is_silent }) = observed_report else { return Self::Absent };
        if *is_silent {
            return Self::Silent;
        }
        let refusals = report.refusals(&key.to_string());
        if !refusals.is_empty() {
            Self::Refusing(refusals)
        } else if report.is_paused {
            Self::Paused
        } else if let Some(error) = &report.error {
            Self::Failing(error.clone())
        } else if report.has_applied(required_versions.service, required_versions.endpoint_slices) {
            Self::Serving
        } else {
            Self::Outdated
        }
    }
}

/// Returns true if the cluster has agents, and no agent has renewed its Lease in time. If this function returns true,
/// the operator itself has probably lost contact with the API server.
///
/// An agent that has just started and has not written its rules yet does not count. When all agents return, the first one
/// must not remove the addresses of the others before it serves itself.
pub(crate) fn are_all_silent(agents: &AgentStates) -> bool {
    let is_starting = |report: &AgentReport| report.applied_versions.is_none() && report.error.is_none();
    let mut reports = agents.values().map(|agent| &agent.observed_report).peekable();
    reports.peek().is_some() && reports.all(|it| it.is_silent || is_starting(&it.report))
}

/// Returns the problems of one Service.
pub(crate) fn service_problems(problems: &[PortProblem], key: &ServiceKey) -> Vec<PortProblem> {
    let service = key.to_string();
    problems.iter().filter(|problem| problem.service == service).cloned().collect()
}

/// Returns true if the agent still serves a Service that has proxies of its own now.
pub(crate) fn is_waiting_for_proxy(report: &AgentReport, key: &ServiceKey) -> bool {
    let service = key.to_string();
    report.services_waiting_for_proxies.contains(&service)
}

/// Returns true if the agent does not serve a rejected Service, because the agent does not know the last valid settings
/// of the Service.
pub(crate) fn lacks_settings(report: &AgentReport, key: &ServiceKey) -> bool {
    let service = key.to_string();
    report.unserved_services.contains(&service)
}

#[cfg(test)]
mod tests {
    use akrobateo_services::agent_report::{AppliedVersions, PortOwner};

    use super::*;
    use crate::decide::fixtures::key;

    fn status(change: impl FnOnce(&mut AgentReport), is_silent: bool) -> AgentStatus {
        let mut report = AgentReport {
            applied_versions: Some(AppliedVersions { services: 7, endpoint_slices: 5 }),
            ..AgentReport::default()
        };
        change(&mut report);
        let observed_report = ObservedReport { report: Arc::new(report), is_silent };
        AgentStatus::new(
            Some(&observed_report),
            &key("web"),
            RequiredVersions { service: 7, endpoint_slices: 5 },
        )
    }

    fn build_refusal(service: &str) -> PortProblem {
        PortProblem { service: service.to_owned(), port: "80/TCP".to_owned(), owner: PortOwner::Process }
    }

    #[test]
    fn node_serves_only_if_its_report_is_recent_and_contains_no_problem() {
        assert_eq!(status(|_| (), false), AgentStatus::Serving);
        assert_eq!(status(|_| (), true), AgentStatus::Silent);
        assert_eq!(status(|report| report.is_paused = true, false), AgentStatus::Paused);
        assert_eq!(
            status(|report| report.error = Some("no nf_tables".to_owned()), false),
            AgentStatus::Failing("no nf_tables".to_owned())
        );
        assert_eq!(status(|report| report.applied_versions = None, false), AgentStatus::Outdated);
        for applied in [(6, 5), (7, 4)] {
            let applied = AppliedVersions { services: applied.0, endpoint_slices: applied.1 };
            assert_eq!(
                status(|report| report.applied_versions = Some(applied), false),
                AgentStatus::Outdated
            );
        }
        let refusal = || vec![build_refusal("default/web")];
        assert_eq!(
            status(|report| report.refused_ports = refusal(), false),
            AgentStatus::Refusing(refusal())
        );
        assert_eq!(
            status(|report| report.refused_ports = vec![build_refusal("default/api")], false),
            AgentStatus::Serving
        );
        assert_eq!(AgentStatus::new(None, &key("web"), RequiredVersions::default()), AgentStatus::Absent);
    }

    #[test]
    fn cluster_without_agents_does_not_count_as_silent() {
        let agent = |is_silent, report| AgentState {
            observed_report: ObservedReport { report: Arc::new(report), is_silent },
            renewed_at: None,
            silent_at: Timestamp::UNIX_EPOCH,
            failing_since: None,
        };
        let working = || AgentReport {
            applied_versions: Some(AppliedVersions { services: 7, endpoint_slices: 5 }),
            ..AgentReport::default()
        };
        let failing = || AgentReport { error: Some("cannot write".to_owned()), ..AgentReport::default() };
        let agents = |agents: Vec<AgentState>| {
            let agents = agents.into_iter().enumerate();
            agents.map(|(number, agent)| (format!("n{number}"), agent)).collect()
        };
        assert!(are_all_silent(&agents(vec![agent(true, working()), agent(true, working())])));
        assert!(!are_all_silent(&agents(vec![agent(true, working()), agent(false, working())])));
        assert!(!are_all_silent(&agents(vec![agent(true, working()), agent(false, failing())])));
        assert!(!are_all_silent(&agents(Vec::new())));
        // The second agent has just started.
        assert!(are_all_silent(&agents(vec![agent(true, working()), agent(false, AgentReport::default())])));
    }
}
