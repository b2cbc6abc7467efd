//! The number of a Deployment's proxies, and the number of proxies that a rollout may replace at the same time. Pure.

use akrobateo_services::allocation::Allocation;
use akrobateo_services::spec::{LoadBalancerSpec, ProxyWorkload};
use k8s_openapi::api::core::v1::Pod;

use super::pod_digest::is_outdated;
use super::pod_status::{is_ready, is_scheduled, runs_on};
use super::rollout_limits::{MAX_FAILED_ATTEMPTS, max_simultaneous_replacements};
use super::service_state::ServiceState;
use super::workload::{DeploymentScale, Workload};

/// Returns the scale of a Service's Deployment. The Deployment has at most one pod for each node, because two pods
/// cannot use the same hostPorts of a node.
pub(super) fn calculate_deployment_scale(
    state: &ServiceState,
    spec: &LoadBalancerSpec,
    kind: ProxyWorkload,
    allocation: &Allocation,
) -> DeploymentScale {
    let ProxyWorkload::Deployment { replicas } = kind else { return DeploymentScale::default() };
    let owned_node_count = state.nodes.iter().filter(|node| allocation.allows(spec, node)).count();
    // A command that runs without a cluster does not know any nodes.
    let replicas =
        if state.nodes.is_empty() { replicas.into() } else { spec.proxy_count(owned_node_count).max(1) };
    let max_unavailable = calculate_max_unavailable(state, replicas);
    DeploymentScale { replicas: to_i32(replicas), max_unavailable: to_i32(max_unavailable) }
}

/// Returns the number of pods that may be unavailable: the pods that the rollout replaces now, and the pods that cannot
/// run.
///
/// The Deployment controller waits for every unavailable pod. The number includes the pods that cannot run, because
/// otherwise one lost node would stop the rollout.
fn calculate_max_unavailable(state: &ServiceState, replicas: usize) -> usize {
    let replaced_count = max_simultaneous_replacements(replicas);
    let Some(existing_deployment) =
        state.workloads.iter().find(|workload| matches!(workload, Workload::Deployment(_)))
    else {
        return replaced_count;
    };
    let is_on_lost_node =
        |pod: &Pod| state.nodes.iter().any(|node| runs_on(pod, &node.name) && node.is_lost());
    let reachable_pods: Vec<_> = state.pods.iter().filter(|pod| !is_on_lost_node(pod)).collect();
    let is_changing =
        |pod: &Pod| pod.metadata.deletion_timestamp.is_some() || (is_scheduled(pod) && !is_ready(pod));
    // During a replacement, the new pod often has no node for a moment, because the old pod still uses the ports. The
    // number therefore stays unchanged during a replacement.
    if reachable_pods.iter().any(|pod| is_changing(pod)) {
        return existing_deployment.max_unavailable().unwrap_or(replaced_count);
    }
    let is_deleted = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
    let lost_count = state.pods.iter().filter(|pod| is_on_lost_node(pod) && !is_deleted(pod)).count();
    let is_outdated_pod =
        |pod: &Pod| existing_deployment.pod_template().is_some_and(|template| is_outdated(pod, template));
    let unscheduled_pods: Vec<_> = reachable_pods.iter().filter(|pod| !is_scheduled(pod)).collect();
    let unscheduled_outdated_count = unscheduled_pods.iter().filter(|pod| is_outdated_pod(pod)).count();
    let unscheduled_current_count = unscheduled_pods.len() - unscheduled_outdated_count;
    let unavailable_count = replaced_count + lost_count + unscheduled_outdated_count;
    let has_ready_current_pod = reachable_pods.iter().any(|pod| is_ready(pod) && !is_outdated_pod(pod));
    let unavailable_current_count = if has_ready_current_pod {
        unscheduled_current_count
    } else {
        // The last ready pod must stay, because the pods of the new template may be unable to run on any node.
        unscheduled_current_count
            .min(MAX_FAILED_ATTEMPTS - 1)
            .min(replicas.saturating_sub(1 + unavailable_count))
    };
    (unavailable_count + unavailable_current_count).min(replicas)
}

fn to_i32(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
