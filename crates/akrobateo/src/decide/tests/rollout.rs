//! Tests of rollouts of outdated proxies: the plan for one Service, the condition, and the writes.

use super::super::rollout::{OutdatedProxy, Rollout, RolloutDelay};
use super::super::rollout_limits::replacement_time;
use super::super::workload_fixtures::{daemonset_with_image, pod_from_template, ready_pod_from_template};
use super::*;

/// Returns a pod with the image `old` or `new` on a node.
fn pod_with_image(image: &str, node: &str, is_ready: bool) -> Pod {
    let build_pod = if is_ready { ready_pod_from_template } else { pod_from_template };
    let mut pod = build_pod(daemonset_with_image(image).pod_template().unwrap(), node);
    pod.metadata.uid = Some(format!("uid-of-{image}-{node}"));
    pod
}

fn state_with_pods(pods: Vec<Pod>, nodes: &[Node]) -> ServiceState {
    let nodes: Vec<_> = nodes.iter().map(NodeInfo::from_node).collect();
    let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
    let pod_change_times = PodChanges::default().update(&key("web"), true, &pods, &nodes, |_| true, at(0));
    ServiceState { pods, nodes: Arc::new(nodes), pod_change_times, ..ServiceState::default() }
}

fn three_nodes() -> Vec<Node> {
    ["n1", "n2", "n3"].map(|name| node(name).build()).into()
}

fn plan_rollout(state: &ServiceState, now_seconds: i64) -> Rollout {
    Rollout::plan(&daemonset_with_image("new"), state, at(now_seconds))
}

fn nodes_of_deleted_pods(rollout: &Rollout) -> Vec<&str> {
    rollout.pods_to_delete.iter().map(|pod| pod.node.as_str()).collect()
}

#[test]
fn lost_node_does_not_delay_the_rollout_on_other_nodes() {
    let mut nodes = three_nodes();
    nodes[0] = node("n1").with_ready_unknown().build();
    let pods = vec![
        pod_with_image("old", "n1", false),
        pod_with_image("old", "n2", true),
        pod_with_image("new", "n3", true),
    ];
    let rollout = plan_rollout(&state_with_pods(pods, &nodes), 100);
    assert_eq!(nodes_of_deleted_pods(&rollout), ["n2"]);
    let outdated_proxy = |node: &str, delay| OutdatedProxy { node: node.to_owned(), delay };
    assert_eq!(
        rollout.outdated_proxies,
        [outdated_proxy("n1", Some(RolloutDelay::NodeLost)), outdated_proxy("n2", None)]
    );
}

#[test]
fn unavailable_proxies_are_replaced_at_once_if_a_new_proxy_is_ready() {
    let pods_with_first =
        |first: Pod| vec![first, pod_with_image("old", "n2", false), pod_with_image("old", "n3", false)];
    let plan_without_ready_new_proxy = plan_rollout(
        &state_with_pods(pods_with_first(pod_with_image("old", "n1", true)), &three_nodes()),
        100,
    );
    assert_eq!(nodes_of_deleted_pods(&plan_without_ready_new_proxy), ["n1"]);
    let plan_with_ready_new_proxy = plan_rollout(
        &state_with_pods(pods_with_first(pod_with_image("new", "n1", true)), &three_nodes()),
        100,
    );
    assert_eq!(nodes_of_deleted_pods(&plan_with_ready_new_proxy), ["n2", "n3"]);
    let plan_without_available_proxy = plan_rollout(
        &state_with_pods(pods_with_first(pod_with_image("old", "n1", false)), &three_nodes()),
        100,
    );
    assert_eq!(nodes_of_deleted_pods(&plan_without_available_proxy), ["n1", "n2", "n3"]);
}

#[test]
fn unscheduled_outdated_pod_is_replaced() {
    let waiting_pod =
        pod("waiting").host_port(80).restricted_to_node("n2").unscheduled("no free ports").build();
    let pods = vec![pod_with_image("new", "n1", true), waiting_pod, pod_with_image("new", "n3", true)];
    assert_eq!(nodes_of_deleted_pods(&plan_rollout(&state_with_pods(pods, &three_nodes()), 100)), ["n2"]);
}

#[test]
fn next_proxy_is_replaced_after_the_previous_replacement() {
    let pods =
        |second: Pod| vec![pod_with_image("new", "n1", true), second, pod_with_image("old", "n3", true)];
    let state_with_starting_pod = state_with_pods(pods(pod_with_image("new", "n2", false)), &three_nodes());
    let rollout = plan_rollout(&state_with_starting_pod, 10);
    assert_eq!((nodes_of_deleted_pods(&rollout), rollout.recheck_at.is_some()), (vec![], true));
    assert_eq!(nodes_of_deleted_pods(&plan_rollout(&state_with_starting_pod, 100)), ["n3"]);
    let mut failing_pod = pod_with_image("new", "n2", false);
    failing_pod.status = pod("failing").waiting("ErrImagePull").build().status;
    assert_eq!(
        nodes_of_deleted_pods(&plan_rollout(&state_with_pods(pods(failing_pod), &three_nodes()), 10)),
        ["n3"]
    );
    let state_with_ready_pod = state_with_pods(pods(pod_with_image("new", "n2", true)), &three_nodes());
    assert_eq!(nodes_of_deleted_pods(&plan_rollout(&state_with_ready_pod, 10)), ["n3"]);
}

#[test]
fn missing_pod_stops_a_rollout_without_a_ready_new_proxy() {
    // Kubernetes does not create the pod, for example because the priority class is missing.
    let pods = vec![pod_with_image("old", "n2", true), pod_with_image("old", "n3", true)];
    let rollout = plan_rollout(&state_with_pods(pods, &three_nodes()), 1000);
    assert_eq!(nodes_of_deleted_pods(&rollout), Vec::<&str>::new());
    let is_stopped = |proxy: &OutdatedProxy| proxy.delay == Some(RolloutDelay::ReplacementsFail);
    assert!(rollout.outdated_proxies.iter().all(is_stopped), "{rollout:?}");
}

#[test]
fn new_nodes_and_terminating_pods_do_not_cause_a_warning_at_first() {
    let mut terminating_pod = pod_with_image("old", "n2", false);
    terminating_pod.metadata.deletion_timestamp =
        pod("ending").terminating(0).build().metadata.deletion_timestamp;
    // The proxy of n2 was not ready, and the pod of n3 is not created yet.
    let mut state = state_with_pods(vec![pod_with_image("old", "n1", true), terminating_pod], &three_nodes());
    state.pod_change_times.last_ready_times.clear();
    let rollout = plan_rollout(&state, 10);
    assert_eq!(nodes_of_deleted_pods(&rollout), Vec::<&str>::new());
    assert!(rollout.outdated_proxies.iter().all(|proxy| proxy.delay.is_none()), "{rollout:?}");
    assert_eq!(rollout.recheck_at, Some(at(0) + replacement_time(1)));
    let rollout_later = plan_rollout(&state, 100);
    let delays: Vec<_> = rollout_later.outdated_proxies.iter().map(|proxy| proxy.delay.clone()).collect();
    assert_eq!(delays, [Some(RolloutDelay::ReplacementsFail), Some(RolloutDelay::NotDeleted)]);
}

#[test]
fn proxy_on_a_node_with_a_taint_stays_until_another_proxy_is_ready() {
    let one_node = [node("n1").build()];
    let only_proxy = vec![pod_with_image("old", "n1", true)];
    assert_eq!(
        nodes_of_deleted_pods(&plan_rollout(&state_with_pods(only_proxy.clone(), &one_node), 100)),
        ["n1"]
    );
    let tainted_nodes = [node("n1").taint("dedicated").build()];
    let rollout = plan_rollout(&state_with_pods(only_proxy, &tainted_nodes), 100);
    assert_eq!(nodes_of_deleted_pods(&rollout), Vec::<&str>::new());
    assert_eq!(rollout.outdated_proxies[0].delay, Some(RolloutDelay::NodeTainted));
    let two_nodes = [node("n1").taint("dedicated").build(), node("n2").build()];
    let pods = vec![pod_with_image("old", "n1", true), pod_with_image("new", "n2", true)];
    assert_eq!(nodes_of_deleted_pods(&plan_rollout(&state_with_pods(pods, &two_nodes), 100)), ["n1"]);
}

#[test]
fn pods_are_deleted_only_after_the_controller_has_observed_the_new_template() {
    let state = state_with_pods(vec![pod_with_image("old", "n1", true)], &three_nodes()[..1]);
    let Workload::DaemonSet(mut daemonset) = daemonset_with_image("new") else { panic!("no DaemonSet") };
    daemonset.metadata.generation = Some(2);
    daemonset.status.get_or_insert_default().observed_generation = Some(1);
    let unobserved_workload = Workload::DaemonSet(daemonset.clone());
    assert_eq!(
        nodes_of_deleted_pods(&Rollout::plan(&unobserved_workload, &state, at(100))),
        Vec::<&str>::new()
    );
    daemonset.status.get_or_insert_default().observed_generation = Some(2);
    assert_eq!(
        nodes_of_deleted_pods(&Rollout::plan(&Workload::DaemonSet(daemonset), &state, at(100))),
        ["n1"]
    );
}

#[test]
fn forwarding_change_applies_the_workload_before_pods_are_deleted() {
    let mut state = state_after_actions(observe(web().build()));
    state.allocation_result = observe(web().tcp(81).build()).allocation_result;
    let is_delete = |action: &Action| matches!(action, Action::DeletePod(_));
    let actions = planned_actions(&state);
    assert!(matches!(actions[0], Action::Apply(_)) && !actions.iter().any(is_delete), "{actions:?}");
    let Action::Apply(workload) = actions[0].clone() else { panic!("no apply") };
    state.workloads = vec![workload];
    assert!(matches!(&planned_actions(&state)[..], [Action::DeletePod(_)]), "{:?}", planned_actions(&state));
    // An invalid edit of the Service does not stop the rollout of the last valid spec.
    state.allocation_result =
        observe(web().annotation(annotations::IP_MODE, "none").build()).allocation_result;
    assert!(planned_actions(&state).iter().any(is_delete));
}

#[test]
fn change_of_placement_does_not_delete_pods() {
    let mut state = state_after_actions(observe(web().build()));
    let service_with_selector = web().annotation(annotations::NODE_SELECTOR, "!spot");
    state.allocation_result = observe(service_with_selector.build()).allocation_result;
    assert!(matches!(&planned_actions(&state)[..], [Action::Apply(_)]));
    let Action::Apply(workload) = planned_actions(&state).remove(0) else { panic!("no apply") };
    state.workloads = vec![workload];
    assert_eq!(planned_actions(&state), []);
}

#[test]
fn only_proxies_that_stay_outdated_change_the_condition() {
    let mut nodes =
        vec![node("n1").internal_ip("10.0.0.1").build(), node("n2").internal_ip("10.0.0.2").build()];
    let pods = || ["n1", "n2"].map(|name| pod(name).on(name).ready().build()).into();
    let observe_nodes =
        |nodes: &[Node]| observe_with_other_services(web().tcp(81).build(), Vec::new(), pods(), nodes);
    let mut state = state_after_actions(observe_nodes(&nodes));
    let current_pod = state.pods[1].clone();
    state.pods = vec![Arc::new(pod("n1").on("n1").ready().build()), current_pod];
    assert_eq!(decision(&state).rollout.outdated_proxies.len(), 1);
    assert_eq!(exposure(&state).reason, Reason::Exposed);
    nodes[0] = node("n1").internal_ip("10.0.0.1").with_ready_unknown().build();
    state.nodes = observe_nodes(&nodes).nodes;
    let exposure = exposure(&state);
    assert_eq!(exposure.reason, Reason::PartlyExposed);
    assert!(
        exposure
            .message
            .contains("outdated proxies (1) still forward with the previous configuration: node n1"),
        "{}",
        exposure.message
    );
    assert_eq!(exposure.warnings, Vec::new());
}

#[test]
fn missing_pod_stops_a_rollout_with_a_ready_new_proxy() {
    // The proxy of n2 was deleted two minutes ago, and no new pod was created, for example because of a quota.
    let pods = vec![pod_with_image("new", "n1", true), pod_with_image("old", "n3", true)];
    let rollout = plan_rollout(&state_with_pods(pods, &three_nodes()), 120);
    assert_eq!(nodes_of_deleted_pods(&rollout), Vec::<&str>::new());
    assert_eq!(rollout.outdated_proxies[0].delay, Some(RolloutDelay::ReplacementsFail));
}
