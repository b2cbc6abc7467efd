//! Builds the desired workload of an accepted Service. Pure.
//!
//! The pod template of a Deployment lists the excluded nodes. Each change of this list replaces all pods of the
//! Deployment, so an old list stays in use while it is sufficient.

use std::collections::BTreeSet;

use akrobateo_services::allocation::Allocation;
use akrobateo_services::node_info::NodeInfo;
use akrobateo_services::spec::{LoadBalancerSpec, ProxyWorkload};
use k8s_openapi::api::core::v1::{NodeSelectorRequirement, Service};

use super::deployment_scale::calculate_deployment_scale;
use super::host_port_family::host_port_family;
use super::pod::{PodNodes, PodPlacement, ProxyRole};
use super::pod_status::{NODE_NAME_FIELD, is_terminating, required_node_terms, runs_on};
use super::proxy_config::ProxyConfig;
use super::service_state::ServiceState;
use super::workload::Workload;

/// Returns the desired workload of an accepted Service.
pub(super) fn build_desired_workload(
    config: &ProxyConfig,
    state: &ServiceState,
    service: &Service,
    spec: &LoadBalancerSpec,
    kind: ProxyWorkload,
    allocation: &Allocation,
    role: ProxyRole,
) -> Workload {
    let host_port_family = host_port_family(spec, || role, &state.nodes);
    let scale = calculate_deployment_scale(state, spec, kind, allocation);
    let build_workload = |nodes: PodNodes| {
        let placement = PodPlacement { nodes, host_port_family };
        Workload::new(config, service, spec, kind, placement, role, scale)
    };
    if kind == ProxyWorkload::DaemonSet {
        return build_workload(PodNodes::from_owned(allocation.owned_nodes.as_ref()));
    }
    let previously_excluded_nodes = state.workloads.iter().find_map(find_excluded_nodes);
    if let Some(excluded_nodes) = previously_excluded_nodes
        .filter(|excluded_nodes| may_keep_excluded_nodes(excluded_nodes, state, spec, allocation))
    {
        let workload = build_workload(PodNodes::ExceptListed(&excluded_nodes));
        if state.workloads.iter().any(|existing| existing.has_same_template(&workload)) {
            return workload;
        }
    }
    let must_exclude = |node: &&NodeInfo| spec.nodes.matches(node) && !allocation.allows(spec, node);
    let excluded_nodes = state.nodes.iter().filter(must_exclude).map(|node| node.name.clone()).collect();
    build_workload(PodNodes::ExceptListed(&excluded_nodes))
}

/// Returns the nodes that the pod template of a Deployment excludes by name.
fn find_excluded_nodes(workload: &Workload) -> Option<BTreeSet<String>> {
    if matches!(workload, Workload::DaemonSet(_)) {
        return None;
    }
    let terms = required_node_terms(workload.pod_spec()?).unwrap_or_default().iter();
    let fields = terms.flat_map(|term| term.match_fields.iter().flatten());
    let excludes_node =
        |field: &&NodeSelectorRequirement| field.key == NODE_NAME_FIELD && field.operator == "NotIn";
    Some(fields.filter(excludes_node).flat_map(|field| field.values.iter().flatten().cloned()).collect())
}

/// Returns true if the list of excluded nodes may stay unchanged. The list may stay under two conditions: enough nodes
/// remain, and the list contains each node of another Service on which a pod of this Service runs.
///
/// The list need not contain further nodes of other Services, because the scheduler does not assign a pod to a node on
/// which the hostPorts of the pod are in use.
fn may_keep_excluded_nodes(
    excluded_nodes: &BTreeSet<String>,
    state: &ServiceState,
    spec: &LoadBalancerSpec,
    allocation: &Allocation,
) -> bool {
    let owned_nodes: Vec<_> = state.nodes.iter().filter(|node| allocation.allows(spec, node)).collect();
    let usable_node_count = owned_nodes.iter().filter(|node| !excluded_nodes.contains(&node.name)).count();
    let has_misplaced_pod = |node: &NodeInfo| {
        allocation.taken_nodes.contains(&node.name)
            && !excluded_nodes.contains(&node.name)
            && state.pods.iter().any(|pod| !is_terminating(pod) && runs_on(pod, &node.name))
    };
    usable_node_count >= spec.proxy_count(owned_nodes.len()) && !state.nodes.iter().any(has_misplaced_pod)
}
