//! Tests of Deployments: the number of proxies, the pace of a rollout, and pods on nodes that the Service does not own.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::super::workload_fixtures::{pod_from_template, ready_pod_from_template};
use super::*;

fn deployment_with_replicas(replicas: &str) -> ServiceBuilder {
    let web = web().annotation(annotations::WORKLOAD, "Deployment").created_at(2);
    web.annotation(annotations::REPLICAS, replicas).annotation(annotations::IP_MODE, "Proxy")
}

fn nodes(node_names: &[&str]) -> Vec<Node> {
    node_names.iter().map(|name| node(name).internal_ip("10.0.0.1").label("name", name).build()).collect()
}

/// Returns the state of a reconciled Service with ready proxies on these nodes.
fn reconciled_state(
    service: &ServiceBuilder,
    nodes: &[Node],
    nodes_with_proxy: &[&str],
    other_services: Vec<Service>,
) -> ServiceState {
    let service = service.clone().build();
    let state = observe_with_other_services(service, other_services, Vec::new(), nodes);
    let mut state = state_after_actions(state);
    let template = state.workloads[0].pod_template().unwrap().clone();
    state.pods =
        nodes_with_proxy.iter().map(|name| Arc::new(ready_pod_from_template(&template, name))).collect();
    state_after_actions(state)
}

/// Returns the number of replicas and `maxUnavailable` of the Deployment.
fn replicas_and_max_unavailable(state: &ServiceState) -> (i32, i32) {
    let ProxyDecision::RunWorkload(Workload::Deployment(deployment)) = decision(state).proxy else {
        panic!("no Deployment")
    };
    let spec = deployment.spec.unwrap();
    let max_unavailable = spec.strategy.unwrap().rolling_update.unwrap().max_unavailable;
    let Some(IntOrString::Int(max_unavailable)) = max_unavailable else { panic!("no number") };
    (spec.replicas.unwrap(), max_unavailable)
}

/// Returns the names of the nodes that the pod template excludes.
fn excluded_nodes(state: &ServiceState) -> Vec<String> {
    let affinity = pod_spec(state).affinity.and_then(|affinity| affinity.node_affinity);
    let selector = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution);
    let terms = selector.into_iter().flat_map(|selector| selector.node_selector_terms);
    let fields: Vec<_> = terms.flat_map(|term| term.match_fields.unwrap_or_default()).collect();
    assert!(fields.iter().all(|field| field.operator == "NotIn"), "{fields:?}");
    fields.into_iter().flat_map(|field| field.values.unwrap_or_default()).collect()
}

/// Returns the state after a change of the nodes, of the Service, or of the other Services.
fn state_with_nodes(
    state: &ServiceState,
    nodes: &[Node],
    service: &ServiceBuilder,
    other_services: Vec<Service>,
) -> ServiceState {
    let observed_state =
        observe_with_other_services(service.clone().build(), other_services, Vec::new(), nodes);
    ServiceState {
        nodes: observed_state.nodes,
        allocation_result: observed_state.allocation_result,
        ..state.clone()
    }
}

fn older_service_on_nodes(selector: &str) -> Service {
    service("older").tcp(80).created_at(1).annotation(annotations::NODE_SELECTOR, selector).build()
}

#[test]
fn deployment_has_at_most_one_replica_per_node() {
    let node_names = ["n1", "n2", "n3"];
    for (requested_replicas, expected_replicas) in [("2", 2), ("4", 3)] {
        let state = observe_with_other_services(
            deployment_with_replicas(requested_replicas).build(),
            Vec::new(),
            Vec::new(),
            &nodes(&node_names),
        );
        assert_eq!(replicas_and_max_unavailable(&state).0, expected_replicas);
    }
    let older_services = vec![older_service_on_nodes("name=n1")];
    let state = observe_with_other_services(
        deployment_with_replicas("4").build(),
        older_services,
        Vec::new(),
        &nodes(&node_names),
    );
    assert_eq!(replicas_and_max_unavailable(&state).0, 2);
}

#[test]
fn condition_says_that_all_replicas_run_on_nodes_without_an_endpoint() {
    let service = deployment_with_replicas("2").traffic_policy_local();
    let nodes = nodes(&["n1", "n2", "n3"]);
    let mut state = reconciled_state(&service, &nodes, &["n2", "n3"], Vec::new());
    state.nodes_with_ready_endpoint = ["n1".to_owned()].into();
    assert_eq!(exposure(&state).reason, Reason::NoEndpoints);
    assert!(exposure(&state).message.contains("the Deployment runs its proxies on other nodes"));
    // A replica that is not ready yet may run on the node of the endpoint.
    state.pods.pop();
    assert_eq!(exposure(&state).reason, Reason::ProxiesNotReady);
}

#[test]
fn pods_that_cannot_run_do_not_stop_a_rollout() {
    let node_names = ["n1", "n2", "n3"];
    let service = deployment_with_replicas("3");
    let state = reconciled_state(&service, &nodes(&node_names), &node_names, Vec::new());
    assert_eq!(replicas_and_max_unavailable(&state), (3, 1));
    let mut nodes_with_one_lost = nodes(&node_names);
    nodes_with_one_lost[2] =
        node("n3").internal_ip("10.0.0.1").with_ready_unknown().label("name", "n3").build();
    let state_with_lost_node = state_with_nodes(&state, &nodes_with_one_lost, &service, Vec::new());
    assert_eq!(replicas_and_max_unavailable(&state_with_lost_node), (3, 2));
    let mut state_with_waiting_pod = state.clone();
    let template = state.workloads[0].pod_template().unwrap().clone();
    let mut unscheduled_pod = pod_from_template(&template, "n3");
    unscheduled_pod.spec.as_mut().unwrap().node_name = None;
    state_with_waiting_pod.pods[2] = Arc::new(unscheduled_pod);
    assert_eq!(replicas_and_max_unavailable(&state_with_waiting_pod), (3, 2));
    // While a pod starts, another pod may wait for its ports for a short time. The waiting pod therefore does not
    // increase `maxUnavailable`.
    let mut state_with_starting_pod = state_with_waiting_pod;
    state_with_starting_pod.pods[1] = Arc::new(pod_from_template(&template, "n2"));
    assert_eq!(replicas_and_max_unavailable(&state_with_starting_pod), (3, 1));
}

#[test]
fn last_ready_proxy_of_a_deployment_stays_if_new_pods_cannot_run() {
    let node_names = ["n1", "n2", "n3"];
    let mut state =
        reconciled_state(&deployment_with_replicas("3"), &nodes(&node_names), &node_names, Vec::new());
    let state_after_change = observe_with_other_services(
        deployment_with_replicas("3").tcp(81).build(),
        Vec::new(),
        Vec::new(),
        &nodes(&node_names),
    );
    state.allocation_result = state_after_change.allocation_result;
    let Some(Action::Apply(workload)) = planned_actions(&state).into_iter().next() else {
        panic!("no apply")
    };
    let template = workload.pod_template().unwrap().clone();
    state.workloads = vec![workload];
    for waiting_count in 1..=3 {
        for (index, name) in node_names.iter().enumerate().take(waiting_count) {
            let mut unscheduled_pod = pod_from_template(&template, name);
            unscheduled_pod.spec.as_mut().unwrap().node_name = None;
            state.pods[index] = Arc::new(unscheduled_pod);
        }
        assert!(replicas_and_max_unavailable(&state).1 <= 2, "{waiting_count} pods wait");
    }
}

#[test]
fn node_of_another_service_is_excluded_only_if_it_runs_a_pod() {
    let service = deployment_with_replicas("2");
    let state = reconciled_state(&service, &nodes(&["n1", "n2"]), &["n1", "n2"], Vec::new());
    let node_names = ["n1", "n2", "n3"];
    let older_services = || vec![older_service_on_nodes("name=n3")];
    let state_with_new_node = state_with_nodes(&state, &nodes(&node_names), &service, older_services());
    assert_eq!(
        planned_actions(&state_with_new_node)
            .iter()
            .filter(|action| matches!(action, Action::Apply(_)))
            .count(),
        0
    );
    let mut state_with_misplaced_pod = state_with_new_node;
    let template = state_with_misplaced_pod.workloads[0].pod_template().unwrap().clone();
    state_with_misplaced_pod.pods[1] = Arc::new(ready_pod_from_template(&template, "n3"));
    assert_eq!(excluded_nodes(&state_with_misplaced_pod), ["n3"]);
    // The list of excluded nodes does not change when the other Service releases the node.
    let state_with_excluded_node = state_after_actions(state_with_misplaced_pod);
    let state_after_port_release =
        state_with_nodes(&state_with_excluded_node, &nodes(&node_names), &service, Vec::new());
    assert_eq!(excluded_nodes(&state_after_port_release), ["n3"]);
    // The list of excluded nodes changes if too few other nodes remain.
    let state_without_first_node =
        state_with_nodes(&state_with_excluded_node, &nodes(&["n2", "n3"]), &service, Vec::new());
    assert_eq!(excluded_nodes(&state_without_first_node), Vec::<String>::new());
    // A change of the forwarding replaces all proxies, so the list of excluded nodes changes too.
    let state_after_change =
        state_with_nodes(&state_with_excluded_node, &nodes(&node_names), &service.tcp(81), Vec::new());
    assert_eq!(excluded_nodes(&state_after_change), Vec::<String>::new());
}

#[test]
fn pod_on_a_node_that_lost_its_label_is_deleted() {
    let service = deployment_with_replicas("1").annotation(annotations::NODE_SELECTOR, "name in (n1,n2)");
    let state = reconciled_state(&service, &nodes(&["n1", "n2"]), &["n1"], Vec::new());
    assert_eq!(planned_actions(&state), []);
    let relabelled_nodes =
        [node("n1").internal_ip("10.0.0.1").label("name", "n9").build(), nodes(&["n2"]).remove(0)];
    let state = state_with_nodes(&state, &relabelled_nodes, &service, Vec::new());
    let actions = planned_actions(&state);
    let deletes_pod = |action: &Action| matches!(action, Action::DeletePod(pod) if pod.node == "n1");
    assert!(actions.iter().any(deletes_pod), "{actions:?}");
}

#[test]
fn deployment_pods_tolerate_lost_nodes_for_thirty_seconds_by_default() {
    let toleration_seconds = |service: ServiceBuilder, tolerations: &str| {
        let mut defaults = defaults();
        defaults.tolerations = akrobateo_services::spec::parse_tolerations(tolerations).unwrap();
        let services = [Arc::new(service.build())];
        let allocations = PortAllocations::default().update(&services, &[], &defaults, &NothingObserved);
        let allocation_result = allocations.get(&key("web")).cloned();
        let state =
            ServiceState { service: Some(services[0].clone()), allocation_result, ..ServiceState::default() };
        let tolerations = pod_spec(&state).tolerations.unwrap_or_default();
        tolerations.into_iter().map(|toleration| toleration.toleration_seconds).collect::<Vec<_>>()
    };
    assert_eq!(toleration_seconds(deployment_with_replicas("2"), ""), [Some(30), Some(30)]);
    assert_eq!(toleration_seconds(deployment_with_replicas("2"), "[{operator: Exists}]"), [None]);
    assert_eq!(toleration_seconds(web(), ""), []);
}
