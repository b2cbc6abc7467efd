//! Decides the workload, the addresses and the condition of one Service, and plans the writes. Pure.

mod actions;
mod addresses;
mod blocker;
mod condition;
mod decision;
mod drift;
mod missing_pods;
mod pod;
mod pod_failure;
mod pod_status;
mod proxy_config;
mod service_state;
mod traffic_policy;
mod workload;

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;

pub(crate) use actions::{Action, plan_actions};
pub(crate) use addresses::{is_published, published_addresses};
pub(crate) use decision::{Decision, ProxyDecision, decide};
pub(crate) use drift::foreign_fields;
pub(crate) use missing_pods::MissingPods;
pub(crate) use pod_status::{has_ready_pod, runs_on};
pub(crate) use proxy_config::{ProxyConfig, ProxyNamespace};
pub(crate) use service_state::ServiceState;
pub(crate) use workload::Workload;
