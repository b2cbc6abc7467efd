//! Deployments: the number of proxies, the pace of a rollout, and pods on nodes where they must not be.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::super::workload_fixtures::pod_from_template;
use super::*;

fn deployment_of(replicas: &str) -> ServiceBuilder {
    let web = web().annotation(annotations::WORKLOAD, "Deployment").created_at(2);
    web.annotation(annotations::REPLICAS, replicas).annotation(annotations::IP_MODE, "Proxy")
}

fn nodes(names: &[&str]) -> Vec<Node> {
    names.iter().map(|name| node(name).internal_ip("10.0.0.1").label("name", name).build()).collect()
}

/// Returns the settled state of a Service with ready proxies on these nodes.
fn settled(
    service: &ServiceBuilder,
    nodes: &[Node],
    with_proxy: &[&str],
    others: Vec<Service>,
) -> ServiceState {
    let service = service.clone().build();
    let state = observe_with_other_services(service, others, Vec::new(), nodes);
    let mut state = state_after_actions(state);
    let template = state.workloads[0].pod_template().unwrap().clone();
    state.pods = with_proxy.iter().map(|name| Arc::new(ready_pod(&template, name))).collect();
    state_after_actions(state)
}

fn ready_pod(template: &k8s_openapi::api::core::v1::PodTemplateSpec, on: &str) -> Pod {
    let mut made = pod_from_template(template, on);
    made.status = pod("ready").ready().build().status;
    made
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

fn excluded(state: &ServiceState) -> Vec<String> {
    let affinity = pod_spec(state).affinity.and_then(|affinity| affinity.node_affinity);
    let selector = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution);
    let terms = selector.into_iter().flat_map(|selector| selector.node_selector_terms);
    let fields = terms.flat_map(|term| term.match_fields.unwrap_or_default());
    fields.flat_map(|field| field.values.unwrap_or_default()).collect()
}

fn with_nodes(
    state: &ServiceState,
    nodes: &[Node],
    service: &ServiceBuilder,
    others: Vec<Service>,
) -> ServiceState {
    let observed = observe_with_other_services(service.clone().build(), others, Vec::new(), nodes);
    ServiceState { nodes: observed.nodes, allocation_result: observed.allocation_result, ..state.clone() }
}

fn older_on(selector: &str) -> Service {
    service("older").tcp(80).created_at(1).annotation(annotations::NODE_SELECTOR, selector).build()
}

#[test]
fn a_deployment_has_no_more_replicas_than_nodes() {
    let names = ["n1", "n2", "n3"];
    for (asked, expected) in [("2", 2), ("4", 3)] {
        let state =
            observe_with_other_services(deployment_of(asked).build(), Vec::new(), Vec::new(), &nodes(&names));
        assert_eq!(scale(&state).0, expected);
    }
    let owner = vec![older_on("name=n1")];
    let state = observe_with_other_services(deployment_of("4").build(), owner, Vec::new(), &nodes(&names));
    assert_eq!(scale(&state).0, 2);
}

#[test]
fn pods_of_lost_nodes_and_pods_without_a_node_do_not_stop_a_rollout() {
    let names = ["n1", "n2", "n3"];
    let service = deployment_of("3");
    let state = settled(&service, &nodes(&names), &names, Vec::new());
    assert_eq!(scale(&state), (3, 1));
    let mut with_lost_node = nodes(&names);
    with_lost_node[2] = node("n3").internal_ip("10.0.0.1").with_ready_unknown().label("name", "n3").build();
    let lost = with_nodes(&state, &with_lost_node, &service, Vec::new());
    assert_eq!(scale(&lost), (3, 2));
    let mut waiting = state.clone();
    let template = state.workloads[0].pod_template().unwrap().clone();
    let mut without_node = pod_from_template(&template, "n3");
    without_node.spec.as_mut().unwrap().node_name = None;
    waiting.pods[2] = Arc::new(without_node);
    assert_eq!(scale(&waiting), (3, 2));
    // While pods end or start, others wait for their ports for a moment.
    let mut changing = waiting;
    changing.pods[1] = Arc::new(pod_from_template(&template, "n2"));
    assert_eq!(scale(&changing), (3, 1));
}

#[test]
fn a_change_that_fails_everywhere_keeps_the_last_proxy_of_a_deployment() {
    let names = ["n1", "n2", "n3"];
    let mut state = settled(&deployment_of("3"), &nodes(&names), &names, Vec::new());
    let changed = observe_with_other_services(
        deployment_of("3").tcp(81).build(),
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
    for waiting in 1..=3 {
        for (index, name) in names.iter().enumerate().take(waiting) {
            let mut without_node = pod_from_template(&template, name);
            without_node.spec.as_mut().unwrap().node_name = None;
            state.pods[index] = Arc::new(without_node);
        }
        assert!(scale(&state).1 <= 2, "{waiting} pods wait");
    }
}

#[test]
fn nodes_of_other_services_change_no_pod_template_before_a_pod_is_there() {
    let service = deployment_of("2");
    let state = settled(&service, &nodes(&["n1", "n2"]), &["n1", "n2"], Vec::new());
    let names = ["n1", "n2", "n3"];
    let owner = || vec![older_on("name=n3")];
    let with_new_node = with_nodes(&state, &nodes(&names), &service, owner());
    assert_eq!(
        planned_actions(&with_new_node).iter().filter(|action| matches!(action, Action::Apply(_))).count(),
        0
    );
    let mut misplaced = with_new_node;
    let template = misplaced.workloads[0].pod_template().unwrap().clone();
    misplaced.pods[1] = Arc::new(ready_pod(&template, "n3"));
    assert_eq!(excluded(&misplaced), ["n3"]);
    // The list stays when the node is free again, and until it leaves too few nodes.
    let excluding = state_after_actions(misplaced);
    let released = with_nodes(&excluding, &nodes(&names), &service, Vec::new());
    assert_eq!(excluded(&released), ["n3"]);
    let without_first = with_nodes(&excluding, &nodes(&["n2", "n3"]), &service, Vec::new());
    assert_eq!(excluded(&without_first), Vec::<String>::new());
    // The next change of the forwarding begins a new list.
    let changed = with_nodes(&excluding, &nodes(&names), &service.tcp(81), Vec::new());
    assert_eq!(excluded(&changed), Vec::<String>::new());
}

#[test]
fn a_pod_on_a_node_that_lost_its_label_is_moved() {
    let service = deployment_of("1").annotation(annotations::NODE_SELECTOR, "name in (n1,n2)");
    let state = settled(&service, &nodes(&["n1", "n2"]), &["n1"], Vec::new());
    assert_eq!(planned_actions(&state), []);
    let relabelled =
        [node("n1").internal_ip("10.0.0.1").label("name", "n9").build(), nodes(&["n2"]).remove(0)];
    let state = with_nodes(&state, &relabelled, &service, Vec::new());
    let actions = planned_actions(&state);
    let moved = actions.iter().any(|action| matches!(action, Action::DeletePod(pod) if pod.node == "n1"));
    assert!(moved, "{actions:?}");
}

#[test]
fn pods_leave_lost_nodes_after_thirty_seconds_unless_a_toleration_says_otherwise() {
    let seconds = |service: ServiceBuilder, tolerations: &str| {
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
    assert_eq!(seconds(deployment_of("2"), ""), [Some(30), Some(30)]);
    assert_eq!(seconds(deployment_of("2"), "[{operator: Exists}]"), [None]);
    assert_eq!(seconds(web(), ""), []);
}
