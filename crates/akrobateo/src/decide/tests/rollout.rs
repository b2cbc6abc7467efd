//! Rollouts of outdated proxies: the plan for one Service, its condition, and the writes that follow.

use super::super::rollout::{OutdatedProxy, Rollout, RolloutDelay};
use super::super::rollout_limits::replacement_time;
use super::super::workload_fixtures::{daemonset_with_image, pod_from_template};
use super::*;

fn template(image: &str) -> Workload {
    daemonset_with_image(image)
}

/// Returns a pod of the image `old` or `new` on a node.
fn pod_of_image(image: &str, node: &str, is_ready: bool) -> Pod {
    let mut pod = pod_from_template(template(image).pod_template().unwrap(), node);
    pod.metadata.uid = Some(format!("uid-of-{image}-{node}"));
    if is_ready { with_ready(pod) } else { pod }
}

fn with_ready(mut made: Pod) -> Pod {
    made.status = pod("ready").ready().build().status;
    made
}

fn state_with(pods: Vec<Pod>, nodes: &[Node]) -> ServiceState {
    let nodes: Vec<_> = nodes.iter().map(NodeInfo::from_node).collect();
    let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
    let pod_times = PodChanges::default().update(&key("web"), &pods, &nodes, |_| true, at(0));
    ServiceState { pods, nodes: Arc::new(nodes), pod_times, ..ServiceState::default() }
}

fn three_nodes() -> Vec<Node> {
    ["n1", "n2", "n3"].map(|name| node(name).build()).into()
}

fn plan(state: &ServiceState, now: i64) -> Rollout {
    Rollout::plan(&template("new"), state, at(now))
}

fn deleted_on(rollout: &Rollout) -> Vec<&str> {
    rollout.pods_to_delete.iter().map(|pod| pod.node.as_str()).collect()
}

#[test]
fn a_lost_node_holds_back_no_other_node_and_is_told() {
    let mut nodes = three_nodes();
    nodes[0] = node("n1").with_ready_unknown().build();
    let pods = vec![
        pod_of_image("old", "n1", false),
        pod_of_image("old", "n2", true),
        pod_of_image("new", "n3", true),
    ];
    let rollout = plan(&state_with(pods, &nodes), 100);
    assert_eq!(deleted_on(&rollout), ["n2"]);
    let outdated = |node: &str, delay| OutdatedProxy { node: node.to_owned(), delay };
    assert_eq!(rollout.outdated, [outdated("n1", Some(RolloutDelay::NodeLost)), outdated("n2", None)]);
}

#[test]
fn proxies_that_are_not_available_are_replaced_at_once_after_the_first_success() {
    let outdated =
        |first: Pod| vec![first, pod_of_image("old", "n2", false), pod_of_image("old", "n3", false)];
    let without_success = plan(&state_with(outdated(pod_of_image("old", "n1", true)), &three_nodes()), 100);
    assert_eq!(deleted_on(&without_success), ["n1"]);
    let with_success = plan(&state_with(outdated(pod_of_image("new", "n1", true)), &three_nodes()), 100);
    assert_eq!(deleted_on(&with_success), ["n2", "n3"]);
    let none_available = plan(&state_with(outdated(pod_of_image("old", "n1", false)), &three_nodes()), 100);
    assert_eq!(deleted_on(&none_available), ["n1", "n2", "n3"]);
}

#[test]
fn a_pod_that_waits_for_its_node_is_replaced_too() {
    let waiting = pod("waiting").host_port(80).meant_for("n2").unscheduled("no free ports").build();
    let pods = vec![pod_of_image("new", "n1", true), waiting, pod_of_image("new", "n3", true)];
    assert_eq!(deleted_on(&plan(&state_with(pods, &three_nodes()), 100)), ["n2"]);
}

#[test]
fn the_next_proxy_is_replaced_when_the_previous_one_is_ready_or_fails() {
    let pods = |second: Pod| vec![pod_of_image("new", "n1", true), second, pod_of_image("old", "n3", true)];
    let starting = state_with(pods(pod_of_image("new", "n2", false)), &three_nodes());
    let rollout = plan(&starting, 10);
    assert_eq!((deleted_on(&rollout), rollout.recheck_at.is_some()), (vec![], true));
    assert_eq!(deleted_on(&plan(&starting, 100)), ["n3"]);
    let mut failing = pod_of_image("new", "n2", false);
    failing.status = pod("failing").waiting("ErrImagePull").build().status;
    assert_eq!(deleted_on(&plan(&state_with(pods(failing), &three_nodes()), 10)), ["n3"]);
    let ready = state_with(pods(pod_of_image("new", "n2", true)), &three_nodes());
    assert_eq!(deleted_on(&plan(&ready, 10)), ["n3"]);
}

#[test]
fn a_node_without_a_new_pod_stops_the_rollout_before_the_first_success() {
    // For example, the priority class does not exist.
    let pods = vec![pod_of_image("old", "n2", true), pod_of_image("old", "n3", true)];
    let rollout = plan(&state_with(pods, &three_nodes()), 1000);
    assert_eq!(deleted_on(&rollout), Vec::<&str>::new());
    let stopped = |proxy: &OutdatedProxy| proxy.delay == Some(RolloutDelay::ReplacementsFail);
    assert!(rollout.outdated.iter().all(stopped), "{rollout:?}");
}

#[test]
fn nodes_that_just_joined_and_pods_that_just_ended_cause_no_warning() {
    let mut ending = pod_of_image("old", "n2", false);
    ending.metadata.deletion_timestamp = pod("ending").terminating(0).build().metadata.deletion_timestamp;
    // No proxy was ready on n2, and n3 has no pod yet.
    let mut state = state_with(vec![pod_of_image("old", "n1", true), ending], &three_nodes());
    state.pod_times.last_ready_at.clear();
    let rollout = plan(&state, 10);
    assert_eq!(deleted_on(&rollout), Vec::<&str>::new());
    assert!(rollout.outdated.iter().all(|proxy| proxy.delay.is_none()), "{rollout:?}");
    assert_eq!(rollout.recheck_at, Some(at(0) + replacement_time(1)));
    let later = plan(&state, 100);
    let delays: Vec<_> = later.outdated.iter().map(|proxy| proxy.delay.clone()).collect();
    assert_eq!(delays, [Some(RolloutDelay::ReplacementsFail), Some(RolloutDelay::NotDeleted)]);
}

#[test]
fn the_only_proxy_is_replaced_and_a_proxy_that_could_not_return_stays_until_another_one_is_ready() {
    let one_node = [node("n1").build()];
    let only_proxy = vec![pod_of_image("old", "n1", true)];
    assert_eq!(deleted_on(&plan(&state_with(only_proxy.clone(), &one_node), 100)), ["n1"]);
    let tainted = [node("n1").taint("dedicated").build()];
    let rollout = plan(&state_with(only_proxy, &tainted), 100);
    assert_eq!(deleted_on(&rollout), Vec::<&str>::new());
    assert_eq!(rollout.outdated[0].delay, Some(RolloutDelay::NodeTainted));
    let two_nodes = [node("n1").taint("dedicated").build(), node("n2").build()];
    let pods = vec![pod_of_image("old", "n1", true), pod_of_image("new", "n2", true)];
    assert_eq!(deleted_on(&plan(&state_with(pods, &two_nodes), 100)), ["n1"]);
}

#[test]
fn pods_are_deleted_only_after_the_controller_has_seen_the_new_template() {
    let state = state_with(vec![pod_of_image("old", "n1", true)], &three_nodes()[..1]);
    let Workload::DaemonSet(mut daemonset) = template("new") else { panic!("no DaemonSet") };
    daemonset.metadata.generation = Some(2);
    daemonset.status.get_or_insert_default().observed_generation = Some(1);
    let not_observed = Workload::DaemonSet(daemonset.clone());
    assert_eq!(deleted_on(&Rollout::plan(&not_observed, &state, at(100))), Vec::<&str>::new());
    daemonset.status.get_or_insert_default().observed_generation = Some(2);
    assert_eq!(deleted_on(&Rollout::plan(&Workload::DaemonSet(daemonset), &state, at(100))), ["n1"]);
}

#[test]
fn a_change_of_forwarding_first_applies_the_workload_and_then_deletes_pods() {
    let mut state = state_after_actions(observe(web().build()));
    state.allocation_result = observe(web().tcp(81).build()).allocation_result;
    let is_delete = |action: &Action| matches!(action, Action::DeletePod(_));
    let actions = planned_actions(&state);
    assert!(matches!(actions[0], Action::Apply(_)) && !actions.iter().any(is_delete), "{actions:?}");
    let Action::Apply(workload) = actions[0].clone() else { panic!("no apply") };
    state.workloads = vec![workload];
    assert!(matches!(&planned_actions(&state)[..], [Action::DeletePod(_)]), "{:?}", planned_actions(&state));
    // An invalid edit meanwhile does not stop the rollout of the last valid spec.
    state.allocation_result =
        observe(web().annotation(annotations::IP_MODE, "none").build()).allocation_result;
    assert!(planned_actions(&state).iter().any(is_delete));
}

#[test]
fn a_change_of_placement_deletes_no_pod() {
    let mut state = state_after_actions(observe(web().build()));
    let selector = web().annotation(annotations::NODE_SELECTOR, "!spot");
    state.allocation_result = observe(selector.build()).allocation_result;
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
    let current = state.pods[1].clone();
    state.pods = vec![Arc::new(pod("n1").on("n1").ready().build()), current];
    assert_eq!(decision(&state).rollout.outdated.len(), 1);
    assert_eq!(exposure(&state).reason, Reason::Exposed);
    nodes[0] = node("n1").internal_ip("10.0.0.1").with_ready_unknown().build();
    state.nodes = observe_nodes(&nodes).nodes;
    let lost = exposure(&state);
    assert_eq!(lost.reason, Reason::PartlyExposed);
    assert!(
        lost.message.contains("outdated proxies (1), which forward as before the last change: node n1"),
        "{}",
        lost.message
    );
    assert_eq!(lost.warnings, Vec::new());
}
