//! The number of a Deployment's proxies, and how many of them a rollout may replace at the same time. Pure.

use k8s_openapi::api::core::v1::Pod;

use super::pod_digest::is_outdated;
use super::pod_status::{is_ready, is_scheduled, runs_on};
use super::rollout_limits::{MAX_FAILED_ATTEMPTS, max_simultaneous_replacements};
use super::service_state::ServiceState;
use super::workload::{DeploymentScale, Workload};
use crate::allocation::Allocation;
use crate::spec::{LoadBalancerSpec, WorkloadSpec};

/// Returns the scale of a Service's Deployment. A pod that has no node would wait for ever for the ports of the others.
pub(super) fn deployment_scale(
    state: &ServiceState,
    spec: &LoadBalancerSpec,
    allocation: &Allocation,
) -> DeploymentScale {
    let WorkloadSpec::Deployment { replicas } = spec.workload else { return DeploymentScale::default() };
    let owned = state.nodes.iter().filter(|node| allocation.allows(spec, node)).count();
    // Without a cluster, no node is known.
    let replicas = if state.nodes.is_empty() { replicas.into() } else { spec.proxy_count(owned).max(1) };
    let max_unavailable = max_unavailable(state, replicas);
    DeploymentScale { replicas: to_i32(replicas), max_unavailable: to_i32(max_unavailable) }
}

/// Returns how many pods may be unavailable: besides those that the rollout replaces also those that cannot run now. The
/// Deployment controller waits for every unavailable pod, and so one lost node would stop the rollout.
fn max_unavailable(state: &ServiceState, replicas: usize) -> usize {
    let simultaneous = max_simultaneous_replacements(replicas);
    let Some(existing) = state.workloads.iter().find(|workload| matches!(workload, Workload::Deployment(_)))
    else {
        return simultaneous;
    };
    let is_lost = |pod: &Pod| state.nodes.iter().any(|node| runs_on(pod, &node.name) && node.is_lost());
    let reachable: Vec<_> = state.pods.iter().filter(|pod| !is_lost(pod)).collect();
    let is_changing =
        |pod: &Pod| pod.metadata.deletion_timestamp.is_some() || (is_scheduled(pod) && !is_ready(pod));
    // A pod often waits for a node for a moment, because its predecessor still has the ports.
    if reachable.iter().any(|pod| is_changing(pod)) {
        return existing.max_unavailable().unwrap_or(simultaneous);
    }
    let is_deleted = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
    let lost = state.pods.iter().filter(|pod| is_lost(pod) && !is_deleted(pod)).count();
    let outdated = |pod: &Pod| existing.pod_template().is_some_and(|template| is_outdated(pod, template));
    let waiting: Vec<_> = reachable.iter().filter(|pod| !is_scheduled(pod)).collect();
    let waiting_outdated = waiting.iter().filter(|pod| outdated(pod)).count();
    let waiting_current = waiting.len() - waiting_outdated;
    let unable = simultaneous + lost + waiting_outdated;
    let has_success = reachable.iter().any(|pod| is_ready(pod) && !outdated(pod));
    let waiting_current = if has_success {
        waiting_current
    } else {
        // Perhaps no pod of the new template can run on any node. The last pod that is ready stays.
        waiting_current.min(MAX_FAILED_ATTEMPTS - 1).min(replicas.saturating_sub(1 + unable))
    };
    (unable + waiting_current).min(replicas)
}

fn to_i32(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
