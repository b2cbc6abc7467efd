//! Counts the node agents by state, for metrics and alerts. Pure.

use std::time::Duration;

use akrobateo_services::agent_report::AgentReport;

use crate::metrics::AgentCounts;

/// The time in which an agent should apply a change of a Service. Without this time, each change would make all agents
/// outdated for a moment.
pub(super) const MAX_APPLY_TIME: Duration = Duration::from_mins(1);

/// All states.
const STATES: [&str; 5] = ["ok", "silent", "paused", "failing", "outdated"];

/// Counts the agents by state. Each report comes with a flag that is true if the agent is silent. The rules of each
/// agent should contain the Services up to `expected_version`.
pub(super) fn count_agents<'a>(
    reports: impl Iterator<Item = (&'a AgentReport, bool)>,
    expected_version: u64,
) -> AgentCounts {
    let mut counts: AgentCounts = STATES.map(|state| (state, 0)).into();
    for (report, is_silent) in reports {
        *counts.entry(agent_state(report, is_silent, expected_version)).or_default() += 1;
    }
    counts
}

fn agent_state(report: &AgentReport, is_silent: bool, expected_version: u64) -> &'static str {
    match &report.applied_versions {
        _ if is_silent => "silent",
        _ if report.is_paused => "paused",
        _ if report.error.is_some() => "failing",
        // An agent that has not written its first rules yet is also outdated.
        Some(applied) if applied.services >= expected_version => "ok",
        _ => "outdated",
    }
}

#[cfg(test)]
mod tests {
    use akrobateo_services::agent_report::AppliedVersions;

    use super::*;

    #[test]
    fn agents_are_counted_by_state() {
        let applied = |services| Some(AppliedVersions { services, endpoint_slices: 0 });
        let current_report = AgentReport { applied_versions: applied(7), ..AgentReport::default() };
        let paused_report = AgentReport { is_paused: true, ..current_report.clone() };
        let failing_report = AgentReport { error: Some("no nf_tables".to_owned()), ..current_report.clone() };
        let outdated_report = AgentReport { applied_versions: applied(6), ..AgentReport::default() };
        let starting_report = AgentReport::default();
        let reports = [
            (&current_report, false),
            (&current_report, true),
            (&paused_report, true),
            (&paused_report, false),
            (&failing_report, false),
            (&outdated_report, false),
            (&starting_report, false),
        ];
        let expected = [("ok", 1), ("silent", 2), ("paused", 1), ("failing", 1), ("outdated", 2)];
        assert_eq!(count_agents(reports.into_iter(), 7), expected.into());
        assert_eq!(count_agents([].into_iter(), 7), STATES.map(|state| (state, 0)).into());
    }
}
