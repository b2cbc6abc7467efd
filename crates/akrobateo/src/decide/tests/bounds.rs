//! Tests of the administrator's settings that limit the annotations of Services. Another test checks that proxies do
//! not evict other pods.

use akrobateo_services::spec::{LoadBalancerSpec, SpecError, parse_node_selector, parse_tolerations};

use super::*;

fn defaults_with_bounds() -> ServiceDefaults {
    let mut defaults_with_bounds = ServiceDefaults {
        requirements: parse_node_selector("pool=edge").unwrap(),
        tolerations: parse_tolerations("[{key: edge, operator: Exists}]").unwrap(),
        ..defaults()
    };
    defaults_with_bounds.bounds.tolerations = parse_tolerations("[{key: spot, value: \"yes\"}]").unwrap();
    defaults_with_bounds.bounds.priority_classes = vec!["batch".to_owned()];
    defaults_with_bounds
}

fn spec(service: ServiceBuilder) -> Result<LoadBalancerSpec, SpecError> {
    LoadBalancerSpec::from_service(&service.build(), &defaults_with_bounds())
}

#[test]
fn node_selector_of_the_administrator_applies_to_every_service() {
    let edge_node = NodeInfo::from_node(&node("n1").label("pool", "edge").label("zone", "a").build());
    let core_node = NodeInfo::from_node(&node("n2").label("pool", "core").label("zone", "a").build());
    for selector in ["", "zone=a", "pool", "pool=edge"] {
        let spec = spec(web().annotation(annotations::NODE_SELECTOR, selector)).unwrap();
        assert!(spec.nodes.matches(&edge_node) && !spec.nodes.matches(&core_node), "{selector:?}");
    }
    let spec = spec(web().annotation(annotations::NODE_SELECTOR, "zone=b")).unwrap();
    assert!(!spec.nodes.matches(&edge_node));
}

#[test]
fn annotations_use_only_tolerations_that_the_administrator_allows() {
    let spec_with_tolerations = |tolerations| spec(web().annotation(annotations::TOLERATIONS, tolerations));
    for allowed_tolerations in
        ["", "[{key: edge, operator: Exists, effect: NoSchedule}]", "[{key: spot, value: \"yes\"}]"]
    {
        assert_eq!(
            spec_with_tolerations(allowed_tolerations).unwrap().nodes.tolerations,
            parse_tolerations(allowed_tolerations).unwrap(),
            "{allowed_tolerations}"
        );
    }
    for rejected_tolerations in
        ["[{operator: Exists}]", "[{key: edge, operator: Exists}, {key: spot, operator: Exists}]"]
    {
        let error = spec_with_tolerations(rejected_tolerations).unwrap_err().to_string();
        let allowed_values =
            "allowed: [{key: edge, operator: Exists}, {key: spot, value: yes}], by the operator's";
        assert!(error.contains(allowed_values), "{error}");
    }
    assert_eq!(spec(web()).unwrap().nodes.tolerations.len(), 1);
}

#[test]
fn annotations_use_only_priority_classes_that_the_administrator_allows() {
    let spec_with_class = |class| spec(web().annotation(annotations::PRIORITY_CLASS, class));
    assert_eq!(spec_with_class("batch").unwrap().priority_class, "batch");
    assert_eq!(spec_with_class("akrobateo-proxy").unwrap().priority_class, "akrobateo-proxy");
    for class in ["system-node-critical", "no-such-class", ""] {
        let error = spec_with_class(class).unwrap_err().to_string();
        assert!(error.contains("allowed: akrobateo-proxy, batch, by the operator's"), "{error}");
    }
}

#[test]
fn proxies_do_not_evict_other_pods_by_default() {
    let class = pod_spec(&observe(web().build())).priority_class_name;
    assert_eq!(class.as_deref(), Some("akrobateo-proxy"));
    let mut defaults_without_class = defaults();
    defaults_without_class.priority_class = String::new();
    let spec = LoadBalancerSpec::from_service(&web().build(), &defaults_without_class).unwrap();
    let mut state = observe(web().build());
    state.allocation_result = Some(AllocationResult::Accepted(
        Arc::new(spec),
        akrobateo_services::allocation::Allocation::default(),
    ));
    assert_eq!(pod_spec(&state).priority_class_name, None);
}

#[test]
fn condition_mentions_a_port_that_another_pod_uses() {
    let waiting_pod = pod("p")
        .host_port(80)
        .restricted_to_node("n1")
        .unscheduled("0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.")
        .build();
    let state = observe_with_other_services(
        web().build(),
        Vec::new(),
        vec![waiting_pod],
        &[node("n1").internal_ip("10.0.0.1").build()],
    );
    let exposure = exposure(&state);
    assert_eq!(exposure.reason, Reason::PortInUse);
    assert_eq!(exposure.warnings[0].0, Reason::PortInUse);
    assert!(exposure.message.contains("port 80/TCP on node n1"), "{}", exposure.message);
}

#[test]
fn service_is_published_only_on_selected_nodes_whose_port_it_owns() {
    let nodes = ["n1", "n2"].map(|name| node(name).internal_ip("10.0.0.1").label("name", name).build());
    let older_service =
        service("older").tcp(80).created_at(1).annotation(annotations::NODE_SELECTOR, "name=n2").build();
    let service_with_selector =
        |selector| web().created_at(2).annotation(annotations::NODE_SELECTOR, selector).build();
    for (service, other_services) in
        [(service_with_selector("name=n1"), Vec::new()), (service_with_selector(""), vec![older_service])]
    {
        let forged_pods = vec![pod("forged").on("n2").ready().build()];
        let state = observe_with_other_services(service, other_services, forged_pods, &nodes);
        assert_eq!(decision(&state).status.unwrap().addresses, []);
    }
}

#[test]
fn proxy_pods_are_excluded_from_service_meshes() {
    let ProxyDecision::RunWorkload(Workload::DaemonSet(daemonset)) = decision(&observe(web().build())).proxy
    else {
        panic!("no DaemonSet")
    };
    let metadata = daemonset.spec.unwrap().template.metadata.unwrap();
    let labels = metadata.labels.unwrap();
    assert_eq!(labels["sidecar.istio.io/inject"], "false");
    assert_eq!(labels["kuma.io/sidecar-injection"], "disabled");
    assert_eq!(metadata.annotations.unwrap()["linkerd.io/inject"], "disabled");
}
