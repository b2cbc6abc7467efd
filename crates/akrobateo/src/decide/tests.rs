//! Tests of the decisions for one Service, and of the writes that follow from these decisions.

mod bounds;
mod conflicts;
mod deployment;
mod drift;
mod first_publication;
mod messages;
mod mode_changes;
mod ports;
mod publication;
mod rejected;
mod rollout;
mod rollout_properties;
mod shared;

use std::sync::Arc;

use akrobateo_core::annotations;
use akrobateo_services::allocation::{AllocationResult, NothingObserved, PortAllocations};
use akrobateo_services::key::ServiceKey;
use akrobateo_services::node_info::NodeInfo;
use akrobateo_services::spec::ServiceDefaults;
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec, Service};

use super::condition::Exposure;
use super::fixtures::{INSTANCE, ServiceBuilder, at, defaults, key, node, pod, proxy_config, service};
use super::*;
use crate::reason::Reason;

/// Returns the state of a Service after port allocation together with other Services.
fn observe_with_other_services(
    service: Service,
    other_services: Vec<Service>,
    pods: Vec<Pod>,
    nodes: &[Node],
) -> ServiceState {
    let services: Vec<_> = std::iter::once(service.clone()).chain(other_services).map(Arc::new).collect();
    let nodes: Vec<_> = nodes.iter().map(NodeInfo::from_node).collect();
    let allocations = PortAllocations::default().update(&services, &nodes, &defaults(), &NothingObserved);
    ServiceState {
        allocation_result: allocations.get(&ServiceKey::from_service(&service)).cloned(),
        service: Some(Arc::new(service)),
        pods: pods.into_iter().map(Arc::new).collect(),
        nodes: Arc::new(nodes),
        ..ServiceState::default()
    }
}

/// Returns the state of a Service with a ready proxy on the only node.
fn observe(service: Service) -> ServiceState {
    let node = node("n1").internal_ip("10.0.0.1").build();
    observe_with_other_services(service, Vec::new(), vec![pod("p").on("n1").ready().build()], &[node])
}

fn decision(state: &ServiceState) -> Decision {
    decide(&proxy_config(), state, at(1000))
}

fn planned_actions(state: &ServiceState) -> Vec<Action> {
    plan_actions(INSTANCE, state, &decision(state), at(1000))
}

/// Returns a copy of the pod with the annotations of the workload's pod template.
fn pod_from_workload(workload: &Workload, pod: &Arc<Pod>) -> Arc<Pod> {
    let mut pod = (**pod).clone();
    pod.metadata.annotations = workload.pod_template().unwrap().metadata.clone().unwrap().annotations;
    Arc::new(pod)
}

/// Returns the state after the execution of all planned actions.
fn state_after_actions(mut state: ServiceState) -> ServiceState {
    for action in planned_actions(&state) {
        match action {
            Action::Apply(workload) => {
                state.pods = state.pods.iter().map(|pod| pod_from_workload(&workload, pod)).collect();
                state.workloads.retain(|existing| !existing.has_same_identity(&workload));
                state.workloads.push(workload);
            }
            Action::Delete(workload) | Action::DeleteKeepingPods(workload) => {
                state.workloads.retain(|existing| !existing.has_same_identity(&workload));
            }
            Action::DeletePod(deleted) => {
                state.pods.retain(|pod| pod.metadata.name.as_ref() != Some(&deleted.name));
            }
            Action::PatchStatus { addresses, condition, .. } => {
                let mut service = state.service.as_deref().cloned().unwrap();
                let status = service.status.get_or_insert_default();
                status.load_balancer.get_or_insert_default().ingress = Some(addresses);
                status.conditions = condition.map(|condition| vec![condition]);
                state.service = Some(Arc::new(service));
            }
            Action::EmitEvent { .. } => (),
        }
    }
    state
}

fn event_reasons(actions: &[Action]) -> Vec<Reason> {
    let reason = |action: &Action| match action {
        Action::EmitEvent { reason, .. } => Some(*reason),
        _ => None,
    };
    actions.iter().filter_map(reason).collect()
}

fn exposure(state: &ServiceState) -> Exposure {
    decision(state).status.unwrap().exposure.unwrap()
}

fn pod_spec(state: &ServiceState) -> PodSpec {
    let ProxyDecision::RunWorkload(workload) = decision(state).proxy else { panic!("no proxy") };
    let template = match workload {
        Workload::DaemonSet(daemonset) => daemonset.spec.unwrap().template,
        Workload::Deployment(deployment) => deployment.spec.unwrap().template,
    };
    template.spec.unwrap()
}

fn web() -> ServiceBuilder {
    service("web").tcp(80)
}

#[test]
fn a_new_service_gets_its_proxies_before_its_addresses() {
    let actions = planned_actions(&observe(web().build()));
    let writes: Vec<_> =
        actions.iter().filter(|action| !matches!(action, Action::EmitEvent { .. })).collect();
    assert!(matches!(writes[..], [Action::Apply(_), Action::PatchStatus { .. }]), "{actions:?}");
    assert_eq!(event_reasons(&actions), [Reason::EnsuringLoadBalancer, Reason::EnsuredLoadBalancer]);
}

#[test]
fn unchanged_service_does_not_cause_writes() {
    for service in
        [web(), web().annotation(annotations::WORKLOAD, "Deployment"), web().traffic_policy_local()]
    {
        assert_eq!(planned_actions(&state_after_actions(observe(service.build()))), []);
    }
}

#[test]
fn operator_deletes_the_workload_of_a_deleted_or_ineligible_service() {
    let existing_state = state_after_actions(observe(web().build()));
    for service in [None, Some(web().service_type("ClusterIP").build())] {
        let state = ServiceState {
            service: service.map(Arc::new),
            allocation_result: None,
            ..existing_state.clone()
        };
        assert!(matches!(&planned_actions(&state)[0], Action::Delete(_)));
    }
}

#[test]
fn operator_clears_only_a_status_that_it_wrote() {
    let planned_actions_for_status_of = |manager| {
        planned_actions(&observe(web().class("example.com/lb").published("10.0.0.1", "VIP", manager).build()))
    };
    let clear_status_action =
        Action::PatchStatus { uid: "uid-of-web".to_owned(), addresses: Vec::new(), condition: None };
    let actions = planned_actions_for_status_of("akrobateo");
    assert_eq!(actions[0], clear_status_action);
    assert_eq!(event_reasons(&actions), [Reason::UnAvailableLoadBalancer]);
    // The author of this Service knows the cause.
    let cluster_ip_service = web().service_type("ClusterIP").published("10.0.0.1", "VIP", "akrobateo");
    assert_eq!(planned_actions(&observe(cluster_ip_service.build())), [clear_status_action]);
    assert_eq!(planned_actions_for_status_of("other-controller"), []);
}

#[test]
fn a_rejected_service_keeps_its_previous_proxies_and_their_addresses() {
    let previous_state = state_after_actions(observe(web().build()));
    let invalid_service =
        web().annotation(annotations::IP_MODE, "vip").published("10.0.0.1", "Proxy", "akrobateo");
    let rejected_state = ServiceState {
        workloads: previous_state.workloads,
        pods: previous_state.pods,
        ..observe(invalid_service.build())
    };
    let decision = decision(&rejected_state);
    assert_eq!(decision.proxy, ProxyDecision::KeepWorkloads);
    let status = decision.status.unwrap();
    assert_eq!(status.addresses[0].ip.as_deref(), Some("10.0.0.1"));
    assert_eq!(status.addresses[0].ip_mode.as_deref(), Some("Proxy"));
    let exposure = status.exposure.unwrap();
    assert_eq!(exposure.reason, Reason::InvalidAnnotation);
    assert_eq!(event_reasons(&planned_actions(&rejected_state)), [Reason::InvalidAnnotation]);
    assert_eq!(planned_actions(&state_after_actions(rejected_state)), []);
}

#[test]
fn condition_mentions_the_service_that_owns_the_port_on_all_nodes() {
    let nodes = [node("n1").internal_ip("10.0.0.1").build()];
    let older_service = service("older").tcp(80).created_at(1).build();
    let state =
        observe_with_other_services(web().created_at(2).build(), vec![older_service], Vec::new(), &nodes);
    assert_eq!(decision(&state).proxy, ProxyDecision::DeleteWorkloads);
    let exposure = exposure(&state);
    assert_eq!(exposure.reason, Reason::PortConflict);
    let message =
        "port 80/TCP on node n1 belongs to Service default/older; use other ports, or select other nodes";
    assert_eq!(exposure.message, message);
    assert_eq!(event_reasons(&planned_actions(&state)), [Reason::PortConflict]);
}

#[test]
fn proxies_avoid_nodes_whose_port_another_service_owns() {
    let nodes = ["n1", "n2"].map(|name| node(name).internal_ip("10.0.0.1").label("name", name).build());
    let older_service =
        service("older").tcp(80).created_at(1).annotation(annotations::NODE_SELECTOR, "name=n1").build();
    let state =
        observe_with_other_services(web().created_at(2).build(), vec![older_service], Vec::new(), &nodes);
    let affinity = pod_spec(&state).affinity.unwrap().node_affinity.unwrap();
    let node_selector_terms =
        affinity.required_during_scheduling_ignored_during_execution.unwrap().node_selector_terms;
    // A new node gets a proxy only after the allocation has decided about the node, because the affinity lists the
    // names of nodes.
    assert_eq!(node_selector_terms.len(), 1);
    let fields = node_selector_terms[0].match_fields.as_ref().unwrap();
    assert_eq!((fields[0].operator.as_str(), &fields[0].values), ("In", &Some(vec!["n2".to_owned()])));
    assert!(exposure(&state).message.contains("default/older"));
}

#[test]
fn daemonset_is_deleted_before_a_deployment_replaces_it() {
    let mut state = state_after_actions(observe(web().build()));
    let changed_service = web().annotation(annotations::WORKLOAD, "Deployment");
    state.allocation_result = observe(changed_service.build()).allocation_result;
    let actions = planned_actions(&state);
    assert!(matches!(&actions[0], Action::Delete(Workload::DaemonSet(_))), "{actions:?}");
    let Action::Apply(Workload::Deployment(deployment)) = &actions[1] else { panic!("{actions:?}") };
    // The cluster has one node, and each node has at most one proxy.
    assert_eq!(deployment.spec.as_ref().unwrap().replicas, Some(1));
}

#[test]
fn traffic_policy_local_publishes_only_nodes_with_an_endpoint() {
    let nodes = [node("n1").internal_ip("10.0.0.1").build(), node("n2").internal_ip("10.0.0.2").build()];
    let pods = vec![pod("a").on("n1").ready().build(), pod("b").on("n2").ready().build()];
    let mut state =
        observe_with_other_services(web().traffic_policy_local().build(), Vec::new(), pods, &nodes);
    state.nodes_with_ready_endpoint.insert("n2".to_owned());
    let addresses = decision(&state).status.unwrap().addresses;
    assert_eq!(addresses.len(), 1);
    assert_eq!(addresses[0].ip.as_deref(), Some("10.0.0.2"));
    let pod = pod_spec(&state);
    assert_eq!(pod.host_network, Some(true));
    assert_eq!(pod.containers[0].args, Some(vec!["reserve".to_owned()]));
}

#[test]
fn warning_explains_why_backends_do_not_see_the_client_address() {
    let mut state = observe(web().traffic_policy_local().annotation(annotations::IP_MODE, "Proxy").build());
    state.nodes_with_ready_endpoint.insert("n1".to_owned());
    assert_eq!(pod_spec(&state).host_network, None);
    let exposure = exposure(&state);
    assert!(exposure.reason.is_exposed());
    assert_eq!(exposure.warnings[0].0, Reason::ClientAddressNotKept);
    assert!(exposure.message.contains("ipMode Proxy"), "{}", exposure.message);
}

#[test]
fn one_container_has_one_host_port_per_port_and_protocol() {
    for (ip_mode, metrics_port) in
        [("VIP", vec![]), ("Proxy", vec![(10290, None, Some("metrics".to_owned()), "TCP".to_owned())])]
    {
        let dns_service = service("dns")
            .tcp(53)
            .udp(53)
            .tcp(80)
            .cluster_ips(&["10.97.0.7", "fd97::7"])
            .families(&["IPv4", "IPv6"]);
        let pod = pod_spec(&observe(dns_service.annotation(annotations::IP_MODE, ip_mode).build()));
        assert_eq!(pod.containers.len(), 1);
        let ports = pod.containers[0].ports.clone().unwrap().into_iter();
        let ports: Vec<_> = ports
            .map(|port| (port.container_port, port.host_port, port.name, port.protocol.unwrap()))
            .collect();
        let host_port = |port, protocol: &str| (port, Some(port), None, protocol.to_owned());
        let host_ports = vec![host_port(53, "TCP"), host_port(80, "TCP"), host_port(53, "UDP")];
        // Every port except the metrics port is a hostPort.
        assert_eq!(ports, [host_ports, metrics_port].concat());
    }
}

#[test]
fn only_ipv6_needs_a_privileged_container() {
    let privileged_containers = |service: Service| {
        let mut service = service;
        let service_annotations = service.metadata.annotations.get_or_insert_default();
        service_annotations.insert(annotations::IP_MODE.to_owned(), "Proxy".to_owned());
        let pod = pod_spec(&observe(service));
        let containers = pod.containers.iter().chain(pod.init_containers.iter().flatten());
        let security_contexts = containers.flat_map(|container| &container.security_context);
        security_contexts.filter(|context| context.privileged == Some(true)).count()
    };
    assert_eq!(privileged_containers(web().build()), 0);
    assert_eq!(privileged_containers(web().cluster_ips(&["10.97.0.7", "fd97::7"]).build()), 1);
}

#[test]
fn pod_spec_changes_only_if_the_forwarding_changes() {
    let plain_pod_spec = pod_spec(&observe(web().build()));
    let edited_service = web().annotation("team", "shop").node_port(30080).selector("app", "new");
    assert_eq!(pod_spec(&observe(edited_service.build())), plain_pod_spec);
    assert_ne!(pod_spec(&observe(service("web").tcp(81).build())), plain_pod_spec);
}

#[test]
fn proxy_protocol_selects_the_userspace_data_path_and_ip_mode_proxy() {
    let dual_stack_service = || web().udp(53).cluster_ips(&["10.97.0.7", "fd97::7"]);
    let state = observe(dual_stack_service().annotation(annotations::PROXY_PROTOCOL, "v2:80").build());
    let pod = pod_spec(&state);
    let args = pod.containers[0].args.clone().unwrap();
    assert!(
        args.ends_with(&["--data-path=userspace".to_owned(), "--proxy-protocol=v2:80".to_owned()]),
        "{args:?}"
    );
    assert_eq!(pod.init_containers, None);
    let security_context = pod.containers[0].security_context.clone().unwrap();
    assert_eq!(
        (security_context.run_as_non_root, security_context.capabilities.unwrap().add),
        (Some(true), None)
    );
    let addresses = decision(&state).status.unwrap().addresses;
    assert!(addresses.iter().all(|ingress| ingress.ip_mode.as_deref() == Some("Proxy")), "{addresses:?}");
    let local_state =
        observe(web().traffic_policy_local().annotation(annotations::PROXY_PROTOCOL, "v1").build());
    assert_eq!(
        (pod_spec(&local_state).host_network, exposure(&local_state).reason),
        (None, Reason::NoEndpoints)
    );
}

#[test]
fn a_change_of_the_data_path_emits_an_event() {
    let mut state = state_after_actions(observe(web().build()));
    let service_with_proxy_protocol = web().annotation(annotations::PROXY_PROTOCOL, "v2");
    state.allocation_result = observe(service_with_proxy_protocol.build()).allocation_result;
    let actions = planned_actions(&state);
    let note = actions.iter().find_map(|action| match action {
        Action::EmitEvent { reason: Reason::DataPathChanged, note } => Some(note.clone()),
        _ => None,
    });
    assert!(note.is_some_and(|note| note.contains("--proxy-protocol=v2")), "{actions:?}");
    let mut state_with_userspace_proxies = state_after_actions(state);
    state_with_userspace_proxies.allocation_result = observe(web().build()).allocation_result;
    assert!(
        event_reasons(&planned_actions(&state_with_userspace_proxies)).contains(&Reason::DataPathChanged)
    );
}

/// A change of the pod template replaces all proxies, and each replacement interrupts forwarding. A new version of the
/// operator must not change the pod template by accident. An intended change must change the golden file too.
#[test]
fn workloads_match_the_golden_file() {
    let dual_stack_service =
        web().udp(53).cluster_ips(&["10.97.0.7", "fd97::7"]).source_ranges(&["10.0.0.0/8"]);
    let nodes = [node("n1").internal_ip("10.0.0.1").build(), node("n2").internal_ip("10.0.0.2").build()];
    let workload = |service: ServiceBuilder| {
        let state = observe_with_other_services(service.build(), Vec::new(), Vec::new(), &nodes);
        let ProxyDecision::RunWorkload(workload) = decision(&state).proxy else { panic!("no proxy") };
        match workload {
            Workload::DaemonSet(daemonset) => serde_json::to_value(daemonset).unwrap(),
            Workload::Deployment(deployment) => serde_json::to_value(deployment).unwrap(),
        }
    };
    let current_workloads = serde_json::json!({
        "forwarding": workload(dual_stack_service.annotation(annotations::IP_MODE, "Proxy")),
        "reserving": workload(web().traffic_policy_local()),
        "userspace": workload(web().udp(53).annotation(annotations::PROXY_PROTOCOL, "v2:80")),
        "deployment": workload(
            web().annotation(annotations::WORKLOAD, "Deployment").annotation(annotations::IP_MODE, "Proxy")
        ),
    });
    let golden_workloads: serde_json::Value =
        serde_json::from_str(include_str!("golden/workloads.json")).unwrap();
    assert!(
        current_workloads == golden_workloads,
        "{}",
        serde_json::to_string_pretty(&current_workloads).unwrap()
    );
}
