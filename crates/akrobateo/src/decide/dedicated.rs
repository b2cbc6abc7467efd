//! Decides the desired state of an accepted Service in dedicated mode: the Service's own proxies forward. Pure.

use akrobateo_services::allocation::Allocation;
use akrobateo_services::key::ServiceKey;
use akrobateo_services::node_info::NodeInfo;
use akrobateo_services::spec::{IpMode, LoadBalancerSpec, ProxyWorkload};
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};
use k8s_openapi::jiff::Timestamp;

use super::addresses::{
    AddressInputs, PublishableNodes, build_ingress, select_nodes_to_publish,
    select_nodes_until_first_ready_node,
};
use super::blocker::{Blocker, POD_CREATION_TIMEOUT};
use super::condition::{Exposure, ExposureFacts};
use super::decision::{Decision, DesiredStatus, ProxyDecision};
use super::desired_workload::build_desired_workload;
use super::node_readiness::{previous_agent_readiness, proxy_readiness};
use super::notes::find_notes;
use super::pod::ProxyRole;
use super::pod_status::nodes_with_ready_pod;
use super::proxy_config::ProxyConfig;
use super::rollout::Rollout;
use super::rollout_limits::replacement_time;
use super::service_state::ServiceState;
use super::traffic_policy::{
    MissingEndpointsPolicy, choose_proxy_role, endpoints_allow_publication, has_forwarding_program,
    must_keep_vip,
};
use super::unpublished::find_unpublished_nodes;
use super::workload::Workload;

/// Returns the existing workload if it has all desired fields. Fields that another program added are ignored, because
/// the operator may leave these fields in place for hours.
fn find_applied_workload<'a>(state: &'a ServiceState, desired: &Workload) -> Option<&'a Workload> {
    let existing_workload =
        state.workloads.iter().find(|existing_workload| existing_workload.has_same_identity(desired));
    existing_workload.filter(|existing_workload| existing_workload.matches(desired))
}

/// Decides the desired state of an accepted Service in dedicated mode: the Service's own proxies forward.
pub(super) fn decide_dedicated_service(
    config: &ProxyConfig,
    state: &ServiceState,
    service: &Service,
    (spec, workload_kind): (&LoadBalancerSpec, ProxyWorkload),
    allocation: &Allocation,
    now: Timestamp,
) -> Decision {
    let role = choose_proxy_role(spec, &state.nodes);
    // The allocation is empty in this case: all endpoints are on nodes that the Service does not select, and other
    // Services use the same ports.
    let desired = (!allocation.is_empty())
        .then(|| build_desired_workload(config, state, service, spec, workload_kind, allocation, role));
    let applied_workload = desired.as_ref().and_then(|desired| find_applied_workload(state, desired));
    // The rollout begins when the workload in the cluster has the desired spec.
    let rollout = applied_workload.map(|workload| Rollout::plan(workload, state, now)).unwrap_or_default();
    let missing_endpoints_policy = MissingEndpointsPolicy::find(state, spec);
    let endpoints_allow_node =
        |node: &NodeInfo| endpoints_allow_publication(state, spec, missing_endpoints_policy, node);
    let publishable_nodes = select_publishable_nodes(
        state,
        service,
        (spec, workload_kind),
        allocation,
        role,
        &endpoints_allow_node,
        now,
    );
    let addresses = build_addresses(state, service, spec, allocation, &publishable_nodes.nodes);
    let pod_deadline = state.pod_change_times.without_pods_since.map(|since| since + POD_CREATION_TIMEOUT);
    let are_pods_overdue = pod_deadline.is_some_and(|deadline| deadline <= now);
    let blocker = addresses
        .is_empty()
        .then(|| Blocker::find(state, spec, allocation, role, &publishable_nodes.nodes, are_pods_overdue));
    let unpublished_nodes = find_unpublished_nodes(
        state,
        spec,
        allocation,
        role,
        &endpoints_allow_node,
        &publishable_nodes.nodes,
    );
    let proxy_nodes: Vec<_> = state.nodes.iter().filter(|node| allocation.allows(spec, node)).collect();
    let exposure = Exposure::for_accepted_service(&ExposureFacts {
        has_addresses: !addresses.is_empty(),
        blocker: blocker.flatten(),
        missing_endpoints_message: missing_endpoints_policy.map(|policy| policy.message(spec)),
        unpublished_nodes: &unpublished_nodes,
        allocation,
        pods: &state.pods,
        proxy_nodes: &proxy_nodes,
        outdated_proxies: &rollout.outdated_proxies,
        notes: find_notes(&config.instance, state, service, spec, Some(role), &addresses),
    });
    let next_checks =
        [publishable_nodes.recheck_at, pod_deadline.filter(|deadline| *deadline > now), rollout.recheck_at];
    Decision {
        is_workload_applied: applied_workload.is_some(),
        unpublished_nodes,
        rollout,
        recheck_at: next_checks.into_iter().flatten().min(),
        ..Decision::new(
            desired.map_or(ProxyDecision::DeleteWorkloads, ProxyDecision::RunWorkload),
            Some(DesiredStatus { addresses, exposure: Some(exposure) }),
        )
    }
}

/// Returns the entries of the status for the addresses of these nodes.
fn build_addresses(
    state: &ServiceState,
    service: &Service,
    spec: &LoadBalancerSpec,
    allocation: &Allocation,
    nodes: &[&NodeInfo],
) -> Vec<LoadBalancerIngress> {
    build_ingress(spec, nodes, &|node, address| {
        // Several Services may publish an unclaimed node with the same port. kube-proxy must not forward for any of these
        // Services, because its rules for one Service would reject the clients of another Service.
        if allocation.unclaimed_nodes.contains(&node.name) {
            IpMode::Proxy
        } else if must_keep_vip(state, service, spec, node, address) {
            IpMode::Vip
        } else {
            spec.ip_mode
        }
    })
}

/// Returns the nodes whose addresses the Service publishes. If the Service has moved from shared to dedicated mode, the
/// nodes of its agents also count as ready until enough proxies are ready.
fn select_publishable_nodes<'a>(
    state: &'a ServiceState,
    service: &Service,
    (spec, workload_kind): (&LoadBalancerSpec, ProxyWorkload),
    allocation: &Allocation,
    role: ProxyRole,
    endpoints_allow_node: &dyn Fn(&NodeInfo) -> bool,
    now: Timestamp,
) -> PublishableNodes<'a> {
    // A running pod stays on its node even if the node gets a taint with the effect NoSchedule.
    let may_keep_proxy = |node: &NodeInfo| {
        !allocation.taken_nodes.contains(&node.name) && spec.nodes.matches_running_pod(node)
    };
    let may_stay_published =
        |node: &NodeInfo| may_keep_proxy(node) && has_forwarding_program(spec, role, node);
    let (key, ready_nodes) = (ServiceKey::from_service(service), nodes_with_ready_pod(&state.pods));
    let grace_period = replacement_time(spec.host_ports().len());
    let proxy_nodes = state.nodes.iter().filter(|node| allocation.allows(spec, node));
    let (proxy_nodes, ready_proxy_nodes): (Vec<_>, Vec<_>) = {
        let ready = proxy_nodes.clone().filter(|node| ready_nodes.contains(node.name.as_str()));
        (proxy_nodes.collect(), ready.collect())
    };
    let are_proxies_missing = ready_proxy_nodes.len() < spec.proxy_count(proxy_nodes.len());
    let readiness = |node: &NodeInfo| {
        let may_run_proxy = allocation.allows(spec, node);
        let readiness_by_proxy = proxy_readiness(state, &ready_nodes, node, may_run_proxy, grace_period);
        let readiness_by_agent = are_proxies_missing.then(|| previous_agent_readiness(state, &key, node));
        readiness_by_agent
            .map_or(readiness_by_proxy, |readiness_by_agent| readiness_by_proxy.max(readiness_by_agent))
    };
    let inputs = AddressInputs {
        nodes: &state.nodes,
        readiness: &readiness,
        may_be_published: &|node| may_stay_published(node) && endpoints_allow_node(node),
        unclaimed_nodes: &allocation.unclaimed_nodes,
        proxies_can_move: workload_kind != ProxyWorkload::DaemonSet,
        now,
    };
    let publishable_nodes = select_nodes_to_publish(service, &inputs);
    if publishable_nodes.nodes.is_empty() {
        select_nodes_until_first_ready_node(service, &inputs, &may_stay_published)
    } else {
        publishable_nodes
    }
}
