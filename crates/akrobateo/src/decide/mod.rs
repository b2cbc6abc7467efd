//! Decides the workload, the addresses and the condition of one Service, and plans the writes. Pure.

mod actions;
mod addresses;
mod agent_status;
mod blocker;
mod condition;
mod current_condition;
mod decide_service;
mod decision;
mod dedicated;
mod deployment_scale;
mod desired_workload;
mod drift;
mod first_publication;
mod host_ip;
mod host_port_family;
mod node_readiness;
mod note;
mod notes;
mod occupied_ports;
mod pod;
mod pod_changes;
mod pod_digest;
mod pod_failure;
mod pod_status;
mod proxy_config;
mod refusals;
mod rejected;
mod rollout;
mod rollout_limits;
mod rollout_nodes;
mod service_state;
mod shared;
mod shared_blocker;
mod shared_service;
mod status_owner;
mod traffic_policy;
mod unpublished;
mod workload;
mod write_conflict;
mod write_history;
mod write_limits;
mod written_addresses;

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod workload_fixtures;

pub(crate) use actions::{Action, plan_actions};
pub(crate) use agent_status::{
    AgentState, AgentStates, AgentStatus, ObservedReport, RequiredVersions, is_waiting_for_proxy,
    lacks_settings, service_problems,
};
pub(crate) use condition::Exposure;
pub(crate) use decide_service::decide;
pub(crate) use decision::{Decision, ProxyDecision};
pub(crate) use drift::{is_applied_by, relevant_managed_fields};
pub(crate) use host_port_family::needed_frontends;
pub(crate) use node_readiness::agent_status;
pub(crate) use occupied_ports::{occupied_ports, pod_frontends};
pub(crate) use pod_changes::PodChanges;
pub(crate) use pod_status::{has_ready_pod, runs_on};
pub(crate) use proxy_config::{ProxyConfig, ProxyNamespace, ProxyNamespaceMismatch};
pub(crate) use refusals::describe_port_owner;
pub(crate) use rollout::{OutdatedProxy, PodReference};
pub(crate) use service_state::{ObservedVersion, PodChangeTimes, ServiceState};
pub(crate) use traffic_policy::{is_published_without_endpoint, local_traffic_policy, publishes_all_nodes};
pub(crate) use workload::Workload;
pub(crate) use write_history::{WriteHistory, with_reported_conflicts};
