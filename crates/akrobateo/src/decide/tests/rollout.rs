//! Tests of rollouts of outdated proxies: the plan for one Service, the condition, and the writes.

use super::super::rollout::{OutdatedProxy, Rollout, RolloutDelay};
use super::super::rollout_limits::replacement_time;
use super::super::workload_fixtures::{daemonset_with_image, pod_from_template, ready_pod_from_template};
use super::*;

fn template(image: &str) -> Workload {
    daemonset_with_image(image)
}

/// Returns a pod with the image `old` or `new` on a node.
fn pod_with_image(image: &str, node: &str, is_ready: bool) -> Pod {
    let build = if is_ready { ready_pod_from_template } else { pod_from_template };
    let mut pod = build(template(image).pod_template().unwrap(), node);
    pod.metadata.uid = Some(format!("uid-of-{image}-{node}"));
    pod
}

fn state_with(pods: Vec<Pod>, nodes: &[Node]) -> ServiceState {
    let nodes: Vec<_> = nodes.iter().map(NodeInfo::from_node).collect();
    let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
    let pod_times = PodChanges::default().update(&key("web"), true, &pods, &nodes, |_| true, at(0));
    ServiceState { pods, nodes: Arc::new(nodes), pod_times, ..ServiceState::default() }
}

fn three_nodes() -> Vec<Node> {
    ["n1", "n2", "n3"].map(|name| node(name).build()).into()
}

fn plan(state: &ServiceState, now: i64) -> Rollout {
    Rollout::plan(&template("new"), state, at(now))
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
    let rollout = plan(&state_with(pods, &nodes), 100);
    assert_eq!(nodes_of_deleted_pods(&rollout), ["n2"]);
    let outdated = |node: &str, delay| OutdatedProxy { node: node.to_owned(), delay };
    assert_eq!(
        rollout.outdated_proxies,
        [outdated("n1", Some(RolloutDelay::NodeLost)), outdated("n2", None)]
    );
}

#[test]
fn unavailable_proxies_are_replaced_at_once_after_the_first_success() {
    let outdated =
        |first: Pod| vec![first, pod_with_image("old", "n2", false), pod_with_image("old", "n3", false)];
    let plan_without_success =
        plan(&state_with(outdated(pod_with_image("old", "n1", true)), &three_nodes()), 100);
    assert_eq!(nodes_of_deleted_pods(&plan_without_success), ["n1"]);
    let plan_with_success =
        plan(&state_with(outdated(pod_with_image("new", "n1", true)), &three_nodes()), 100);
    assert_eq!(nodes_of_deleted_pods(&plan_with_success), ["n2", "n3"]);
    let plan_without_available_proxy =
        plan(&state_with(outdated(pod_with_image("old", "n1", false)), &three_nodes()), 100);
    assert_eq!(nodes_of_deleted_pods(&plan_without_available_proxy), ["n1", "n2", "n3"]);
}

#[test]
fn unscheduled_outdated_pod_is_replaced() {
    let waiting = pod("waiting").host_port(80).meant_for("n2").unscheduled("no free ports").build();
    let pods = vec![pod_with_image("new", "n1", true), waiting, pod_with_image("new", "n3", true)];
    assert_eq!(nodes_of_deleted_pods(&plan(&state_with(pods, &three_nodes()), 100)), ["n2"]);
}

#[test]
fn next_proxy_is_replaced_when_the_previous_replacement_is_ready_or_fails() {
    let pods =
        |second: Pod| vec![pod_with_image("new", "n1", true), second, pod_with_image("old", "n3", true)];
    let starting = state_with(pods(pod_with_image("new", "n2", false)), &three_nodes());
    let rollout = plan(&starting, 10);
    assert_eq!((nodes_of_deleted_pods(&rollout), rollout.recheck_at.is_some()), (vec![], true));
    assert_eq!(nodes_of_deleted_pods(&plan(&starting, 100)), ["n3"]);
    let mut failing = pod_with_image("new", "n2", false);
    failing.status = pod("failing").waiting("ErrImagePull").build().status;
    assert_eq!(nodes_of_deleted_pods(&plan(&state_with(pods(failing), &three_nodes()), 10)), ["n3"]);
    let ready = state_with(pods(pod_with_image("new", "n2", true)), &three_nodes());
    assert_eq!(nodes_of_deleted_pods(&plan(&ready, 10)), ["n3"]);
}

#[test]
fn node_without_a_new_pod_stops_the_rollout_before_the_first_success() {
    // A node has no new pod if, for example, the priority class does not exist.
    let pods = vec![pod_with_image("old", "n2", true), pod_with_image("old", "n3", true)];
    let rollout = plan(&state_with(pods, &three_nodes()), 1000);
    assert_eq!(nodes_of_deleted_pods(&rollout), Vec::<&str>::new());
    let is_stopped = |proxy: &OutdatedProxy| proxy.delay == Some(RolloutDelay::ReplacementsFail);
    assert!(rollout.outdated_proxies.iter().all(is_stopped), "{rollout:?}");
}

#[test]
fn new_nodes_and_terminating_pods_cause_no_warning_at_first() {
    let mut ending = pod_with_image("old", "n2", false);
    ending.metadata.deletion_timestamp = pod("ending").terminating(0).build().metadata.deletion_timestamp;
    // No proxy was ready on n2, and n3 has no pod yet.
    let mut state = state_with(vec![pod_with_image("old", "n1", true), ending], &three_nodes());
    state.pod_times.last_ready_times.clear();
    let rollout = plan(&state, 10);
    assert_eq!(nodes_of_deleted_pods(&rollout), Vec::<&str>::new());
    assert!(rollout.outdated_proxies.iter().all(|proxy| proxy.delay.is_none()), "{rollout:?}");
    assert_eq!(rollout.recheck_at, Some(at(0) + replacement_time(1)));
    let later = plan(&state, 100);
    let delays: Vec<_> = later.outdated_proxies.iter().map(|proxy| proxy.delay.clone()).collect();
    assert_eq!(delays, [Some(RolloutDelay::ReplacementsFail), Some(RolloutDelay::NotDeleted)]);
}

#[test]
fn proxy_on_a_node_with_a_taint_stays_until_another_proxy_is_ready() {
    let one_node = [node("n1").build()];
    let only_proxy = vec![pod_with_image("old", "n1", true)];
    assert_eq!(nodes_of_deleted_pods(&plan(&state_with(only_proxy.clone(), &one_node), 100)), ["n1"]);
    let tainted = [node("n1").taint("dedicated").build()];
    let rollout = plan(&state_with(only_proxy, &tainted), 100);
    assert_eq!(nodes_of_deleted_pods(&rollout), Vec::<&str>::new());
    assert_eq!(rollout.outdated_proxies[0].delay, Some(RolloutDelay::NodeTainted));
    let two_nodes = [node("n1").taint("dedicated").build(), node("n2").build()];
    let pods = vec![pod_with_image("old", "n1", true), pod_with_image("new", "n2", true)];
    assert_eq!(nodes_of_deleted_pods(&plan(&state_with(pods, &two_nodes), 100)), ["n1"]);
}

#[test]
fn pods_are_deleted_only_after_the_controller_has_observed_the_new_template() {
    let state = state_with(vec![pod_with_image("old", "n1", true)], &three_nodes()[..1]);
    let Workload::DaemonSet(mut daemonset) = template("new") else { panic!("no DaemonSet") };
    daemonset.metadata.generation = Some(2);
    daemonset.status.get_or_insert_default().observed_generation = Some(1);
    let not_observed = Workload::DaemonSet(daemonset.clone());
    assert_eq!(nodes_of_deleted_pods(&Rollout::plan(&not_observed, &state, at(100))), Vec::<&str>::new());
    daemonset.status.get_or_insert_default().observed_generation = Some(2);
    assert_eq!(
        nodes_of_deleted_pods(&Rollout::plan(&Workload::DaemonSet(daemonset), &state, at(100))),
        ["n1"]
    );
}

#[test]
fn change_of_forwarding_applies_the_workload_before_it_deletes_pods() {
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
fn a_change_of_placement_deletes_no_pod() {
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
fn rollout_stops_if_no_new_pods_are_created_after_the_first_success() {
    // The proxy of n2 was deleted two minutes ago, for example before a quota forbids new pods.
    let pods = vec![pod_with_image("new", "n1", true), pod_with_image("old", "n3", true)];
    let rollout = plan(&state_with(pods, &three_nodes()), 120);
    assert_eq!(nodes_of_deleted_pods(&rollout), Vec::<&str>::new());
    assert_eq!(rollout.outdated_proxies[0].delay, Some(RolloutDelay::ReplacementsFail));
}
