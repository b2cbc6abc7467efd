//! The builders of objects for tests, and the configuration of proxies in tests. Pure.

use std::sync::Arc;

use akrobateo_services::agent_report::{AgentReport, AppliedVersions, PortOwner, PortProblem};
pub(crate) use akrobateo_services::fixtures::*;

use super::agent_status::{AgentState, ObservedReport};
use super::proxy_config::{ProxyConfig, ProxyNamespace};

pub(crate) fn proxy_config() -> ProxyConfig {
    ProxyConfig {
        instance: INSTANCE.to_owned(),
        proxy_namespace: ProxyNamespace::SharedNamespace("akrobateo-proxies".to_owned()),
        former_proxy_namespaces: Vec::new(),
        image: "lb:test".to_owned(),
    }
}

/// Returns the agent of a node. The agent has applied all versions up to 10, and renewed its Lease at 1000 s.
pub(crate) fn agent(node: &str) -> AgentState {
    let report = AgentReport {
        node: node.to_owned(),
        version: "0.1.0".to_owned(),
        applied_versions: Some(AppliedVersions { services: 10, endpoint_slices: 10 }),
        ..AgentReport::default()
    };
    AgentState {
        observed_report: ObservedReport { report: Arc::new(report), is_silent: false },
        renewed_at: Some(at(1000)),
        silent_at: at(1015),
        failing_since: None,
    }
}

impl AgentState {
    /// Changes the report.
    pub(crate) fn with_changed_report(mut self, change: impl FnOnce(&mut AgentReport)) -> Self {
        change(Arc::make_mut(&mut self.observed_report.report));
        self
    }

    pub(crate) fn silent(mut self) -> Self {
        self.observed_report.is_silent = true;
        self
    }

    /// Makes the agent refuse port 80/TCP to the Service `default/web`.
    pub(crate) fn refusing(self, owner: PortOwner) -> Self {
        self.with_changed_report(|report| report.refused_ports.push(port_problem(owner)))
    }
}

/// Returns a problem with port 80/TCP of the Service `default/web`.
pub(crate) fn port_problem(owner: PortOwner) -> PortProblem {
    PortProblem { service: "default/web".to_owned(), port: "80/TCP".to_owned(), owner }
}
