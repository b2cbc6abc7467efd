//! Tests of Deployments: the number of proxies, the pace of a rollout, and pods on nodes that the Service does not own.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::super::workload_fixtures::{pod_from_template, ready_pod_from_template};
use super::*;

fn deployment_with_replicas(replicas: &str) -> ServiceBuilder {
    let web = web().annotation(annotations::WORKLOAD, "Deployment").created_at(2);
    web.annotation(annotations::REPLICAS, replicas).annotation(annotations::IP_MODE, "Proxy")
}

fn nodes(names: &[&str]) -> Vec<Node> {
    names.iter().map(|name| node(name).internal_ip("10.0.0.1").label("name", name).build()).collect()
}

/// Returns the state of a reconciled Service with ready proxies on these nodes.
fn reconciled_state(
    service: &ServiceBuilder,
    nodes: &[Node],
    nodes_with_proxy: &[&str],
    others: Vec<Service>,
) -> ServiceState {
    let service = service.clone().build();
    let state = observe_with_other_services(service, others, Vec::new(), nodes);
    let mut state = state_after_actions(state);
    let template = state.workloads[0].pod_template().unwrap().clone();
    state.pods =
        nodes_with_proxy.iter().map(|name| Arc::new(ready_pod_from_template(&template, name))).collect();
    state_after_actions(state)
}

fn scale(state: &ServiceState) -> (i32, i32) {
    let ProxyDecision::RunWorkload(Workload::Deployment(deployment)) = decision(state).proxy else {
        panic!("no Deployment")
    };
    let spec = deployment.spec.unwrap();
    let max_unavailable = spec.strategy.unwrap().rolling_update.unwrap().max_unavailable;
    let Some(IntOrString::Int(max_unavailable)) = max_unavailable else { panic!("no number") };
    (spec.replicas.unwrap(), max_unavailable)
}

fn excluded_nodes(state: &ServiceState) -> Vec<String> {
    let affinity = pod_spec(state).affinity.and_then(|affinity| affinity.node_affinity);
    let selector = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution);
    let terms = selector.into_iter().flat_map(|selector| selector.node_selector_terms);
    let fields: Vec<_> = terms.flat_map(|term| term.match_fields.unwrap_or_default()).collect();
    assert!(fields.iter().all(|field| field.operator == "NotIn"), "{fields:?}");
    fields.into_iter().flat_map(|field| field.values.unwrap_or_default()).collect()
}

fn state_with_nodes(
    state: &ServiceState,
    nodes: &[Node],
    service: &ServiceBuilder,
    others: Vec<Service>,
) -> ServiceState {
    let observed = observe_with_other_services(service.clone().build(), others, Vec::new(), nodes);
    ServiceState { nodes: observed.nodes, allocation_result: observed.allocation_result, ..state.clone() }
}

fn older_service_on(selector: &str) -> Service {
    service("older").tcp(80).created_at(1).annotation(annotations::NODE_SELECTOR, selector).build()
}

#[test]
fn a_deployment_has_no_more_replicas_than_nodes() {
    let names = ["n1", "n2", "n3"];
    for (requested_replicas, expected) in [("2", 2), ("4", 3)] {
        let state = observe_with_other_services(
            deployment_with_replicas(requested_replicas).build(),
            Vec::new(),
            Vec::new(),
            &nodes(&names),
        );
        assert_eq!(scale(&state).0, expected);
    }
    let owners = vec![older_service_on("name=n1")];
    let state = observe_with_other_services(
        deployment_with_replicas("4").build(),
        owners,
        Vec::new(),
        &nodes(&names),
    );
    assert_eq!(scale(&state).0, 2);
}

#[test]
fn pods_that_cannot_run_do_not_stop_a_rollout() {
    let names = ["n1", "n2", "n3"];
    let service = deployment_with_replicas("3");
    let state = reconciled_state(&service, &nodes(&names), &names, Vec::new());
    assert_eq!(scale(&state), (3, 1));
    let mut nodes_with_one_lost = nodes(&names);
    nodes_with_one_lost[2] =
        node("n3").internal_ip("10.0.0.1").with_ready_unknown().label("name", "n3").build();
    let lost = state_with_nodes(&state, &nodes_with_one_lost, &service, Vec::new());
    assert_eq!(scale(&lost), (3, 2));
    let mut waiting = state.clone();
    let template = state.workloads[0].pod_template().unwrap().clone();
    let mut without_node = pod_from_template(&template, "n3");
    without_node.spec.as_mut().unwrap().node_name = None;
    waiting.pods[2] = Arc::new(without_node);
    assert_eq!(scale(&waiting), (3, 2));
    // While a pod starts, another pod may wait for ports for a moment. So the number does not change.
    let mut changing = waiting;
    changing.pods[1] = Arc::new(pod_from_template(&template, "n2"));
    assert_eq!(scale(&changing), (3, 1));
}

#[test]
fn last_ready_proxy_of_a_deployment_stays_if_no_new_pod_can_run() {
    let names = ["n1", "n2", "n3"];
    let mut state = reconciled_state(&deployment_with_replicas("3"), &nodes(&names), &names, Vec::new());
    let changed = observe_with_other_services(
        deployment_with_replicas("3").tcp(81).build(),
        Vec::new(),
        Vec::new(),
        &nodes(&names),
    );
    state.allocation_result = changed.allocation_result;
    let Some(Action::Apply(workload)) = planned_actions(&state).into_iter().next() else {
        panic!("no apply")
    };
    let template = workload.pod_template().unwrap().clone();
    state.workloads = vec![workload];
    for waiting_count in 1..=3 {
        for (index, name) in names.iter().enumerate().take(waiting_count) {
            let mut without_node = pod_from_template(&template, name);
            without_node.spec.as_mut().unwrap().node_name = None;
            state.pods[index] = Arc::new(without_node);
        }
        assert!(scale(&state).1 <= 2, "{waiting_count} pods wait");
    }
}

#[test]
fn pod_template_excludes_nodes_of_other_services_only_if_they_have_a_pod() {
    let service = deployment_with_replicas("2");
    let state = reconciled_state(&service, &nodes(&["n1", "n2"]), &["n1", "n2"], Vec::new());
    let names = ["n1", "n2", "n3"];
    let owners = || vec![older_service_on("name=n3")];
    let state_with_new_node = state_with_nodes(&state, &nodes(&names), &service, owners());
    assert_eq!(
        planned_actions(&state_with_new_node)
            .iter()
            .filter(|action| matches!(action, Action::Apply(_)))
            .count(),
        0
    );
    let mut misplaced = state_with_new_node;
    let template = misplaced.workloads[0].pod_template().unwrap().clone();
    misplaced.pods[1] = Arc::new(ready_pod_from_template(&template, "n3"));
    assert_eq!(excluded_nodes(&misplaced), ["n3"]);
    // The list of excluded nodes does not change when the other Service releases the node.
    let excluding = state_after_actions(misplaced);
    let released = state_with_nodes(&excluding, &nodes(&names), &service, Vec::new());
    assert_eq!(excluded_nodes(&released), ["n3"]);
    // The list of excluded nodes changes if too few other nodes remain.
    let without_first = state_with_nodes(&excluding, &nodes(&["n2", "n3"]), &service, Vec::new());
    assert_eq!(excluded_nodes(&without_first), Vec::<String>::new());
    // A change of the forwarding replaces all proxies, so the list of excluded nodes changes too.
    let changed = state_with_nodes(&excluding, &nodes(&names), &service.tcp(81), Vec::new());
    assert_eq!(excluded_nodes(&changed), Vec::<String>::new());
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
        defaults.tolerations = crate::spec::parse_tolerations(tolerations).unwrap();
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
