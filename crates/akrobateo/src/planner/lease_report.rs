//! Reads the report of a node agent from its Lease. Pure.

use akrobateo_services::agent_report::{AgentReport, lease_name};
use k8s_openapi::api::coordination::v1::Lease;

/// Parses the report in a Lease. If the report is invalid or is about another node, logs a warning and returns `None`.
pub(super) fn parse_report(instance: &str, name: &str, lease: &Lease) -> Option<AgentReport> {
    match AgentReport::from_lease(lease) {
        Some(Ok(report)) if name == lease_name(instance, &report.node) => Some(report),
        Some(Ok(report)) => {
            tracing::warn!(lease = name, node = report.node, "ignoring a report about another node");
            None
        }
        Some(Err(error)) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(lease = name, error, "ignoring a report that cannot be parsed");
            None
        }
        None => None,
    }
}
