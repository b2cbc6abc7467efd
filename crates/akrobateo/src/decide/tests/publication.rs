//! Tests of the published nodes, and of the condition's message about unpublished nodes and settings without effect.

use super::*;

const DUAL_STACK_FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

fn nodes(names: &[&str]) -> Vec<Node> {
    let node = |name: &&str| {
        let number = name.trim_start_matches('n');
        node(name).internal_ip(&format!("10.0.0.{number}")).internal_ip(&format!("fd00::{number}")).build()
    };
    names.iter().map(node).collect()
}

fn ready_pods(names: &[&str]) -> Vec<Pod> {
    names.iter().map(|name| pod(name).on(name).ready().build()).collect()
}

/// Returns the state of a Service with a ready proxy on each of these nodes.
fn state_on_nodes(service: ServiceBuilder, names: &[&str], nodes_with_endpoint: &[&str]) -> ServiceState {
    let mut state =
        observe_with_other_services(service.build(), Vec::new(), ready_pods(names), &nodes(names));
    state.nodes_with_ready_endpoint = nodes_with_endpoint.iter().map(|&name| name.to_owned()).collect();
    state
}

fn addresses(state: &ServiceState) -> Vec<String> {
    decision(state).status.unwrap().addresses.into_iter().filter_map(|ingress| ingress.ip).collect()
}

fn condition_status(state: &ServiceState) -> String {
    let condition = planned_actions(state).into_iter().find_map(|action| match action {
        Action::PatchStatus { condition, .. } => condition,
        _ => None,
    });
    condition.unwrap().status
}

fn assert_message(state: &ServiceState, reason: Reason, parts: &[&str]) {
    let exposure = exposure(state);
    assert_eq!(exposure.reason, reason, "{}", exposure.message);
    assert!(parts.iter().all(|part| exposure.message.contains(part)), "{}", exposure.message);
}

fn web_with_ip_mode_proxy() -> ServiceBuilder {
    web().annotation(annotations::IP_MODE, "Proxy")
}

#[test]
fn local_service_is_published_on_all_nodes_until_an_endpoint_is_ready() {
    let local_service = || web().traffic_policy_local();
    let mut state = state_on_nodes(local_service(), &["n1", "n2"], &[]);
    assert_eq!(addresses(&state), ["10.0.0.1", "10.0.0.2"]);
    assert_message(&state, Reason::NoEndpoints, &["the Service has no ready endpoint", "all ready nodes"]);
    assert_eq!(condition_status(&state), "True");
    assert!(planned_actions(&state).iter().all(|action| match action {
        Action::EmitEvent { reason, .. } => !reason.is_warning(),
        _ => true,
    }));
    state = state_after_actions(state);
    assert_eq!(planned_actions(&state), []);
    // The proxy of a third node becomes ready. This node is published too.
    let third_node = nodes(&["n3"]).iter().map(NodeInfo::from_node).next();
    state.nodes = Arc::new(state.nodes.iter().cloned().chain(third_node).collect());
    state.pods.push(Arc::new(pod("n3").on("n3").ready().build()));
    assert_eq!(addresses(&state), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    state.nodes_with_ready_endpoint.insert("n2".to_owned());
    assert_eq!(addresses(&state), ["10.0.0.2"]);
    state = state_after_actions(state);
    // The only backend restarts. The published address stays.
    state.nodes_with_ready_endpoint.clear();
    assert_eq!(addresses(&state), ["10.0.0.2"]);
    assert_message(&state, Reason::NoEndpoints, &["the published addresses stay"]);
    assert_eq!(planned_actions(&state_after_actions(state)), []);
}

#[test]
fn starting_proxies_of_a_new_service_do_not_cause_a_warning() {
    let mut state = state_on_nodes(web().traffic_policy_local(), &["n1", "n2"], &["n2"]);
    for pods in [vec![], ready_pods(&["n1"]), ready_pods(&["n1", "n2"])] {
        let pods = pods.into_iter().map(Arc::new);
        state.pods = match state.workloads.first() {
            Some(workload) => pods.map(|pod| pod_from_workload(workload, &pod)).collect(),
            None => pods.collect(),
        };
        let reasons = event_reasons(&planned_actions(&state));
        assert!(reasons.iter().all(|reason| !reason.is_warning()), "{reasons:?}");
        state = state_after_actions(state);
    }
    assert_message(&state, Reason::Exposed, &[]);
}

#[test]
fn internal_policy_local_limits_the_addresses_only_if_proxies_forward() {
    let state =
        state_on_nodes(web_with_ip_mode_proxy().internal_traffic_policy_local(), &["n1", "n2"], &["n2"]);
    assert_eq!(addresses(&state), ["10.0.0.2"]);
    assert_message(
        &state,
        Reason::Exposed,
        &["internalTrafficPolicy is Local", "nodes with a ready endpoint"],
    );
    // With ipMode VIP kube-proxy forwards, so only externalTrafficPolicy has an effect.
    let vip_state = state_on_nodes(web().internal_traffic_policy_local(), &["n1", "n2"], &["n2"]);
    assert_eq!(addresses(&vip_state), ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(exposure(&vip_state).message, "");
}

#[test]
fn external_ip_of_one_node_does_not_change_the_role_of_proxies() {
    let mut nodes = nodes(&["n1", "n2"]);
    nodes.push(node("n3").internal_ip("10.0.0.3").external_ip("203.0.113.3").build());
    let service = web().traffic_policy_local().build();
    let mut state = observe_with_other_services(service, Vec::new(), ready_pods(&["n1", "n2", "n3"]), &nodes);
    state.nodes_with_ready_endpoint = ["n1".to_owned(), "n3".to_owned()].into();
    assert_eq!(pod_spec(&state).host_network, Some(true));
    assert_eq!(addresses(&state), ["10.0.0.1"]);
    assert_message(&state, Reason::PartlyExposed, &["n3", "serves only the InternalIP"]);
}

#[test]
fn condition_mentions_a_node_without_a_ready_proxy() {
    let mut state = state_on_nodes(web(), &["n1", "n2", "n3"], &[]);
    state.pods.pop();
    assert_eq!(addresses(&state), ["10.0.0.1", "10.0.0.2"]);
    assert_message(&state, Reason::PartlyExposed, &["node n3", "no proxy pod"]);
    state.pods.push(Arc::new(pod("n3").on("n3").build()));
    assert_message(&state, Reason::PartlyExposed, &["node n3", "its proxy is not ready"]);
    // The message also appears during a normal start, so it does not cause a Warning.
    assert!(event_reasons(&planned_actions(&state)).iter().all(|reason| !reason.is_warning()));
}

#[test]
fn family_without_source_range_is_not_published() {
    let dual_stack_service = || web().families(&DUAL_STACK_FAMILIES).cluster_ips(&["10.97.0.7", "fd97::7"]);
    let state = state_on_nodes(dual_stack_service().source_ranges(&["172.29.0.0/24"]), &["n1"], &[]);
    assert_eq!(addresses(&state), ["10.0.0.1"]);
    assert_message(&state, Reason::Exposed, &["loadBalancerSourceRanges", "IPv6"]);
    let state_with_both_ranges =
        state_on_nodes(dual_stack_service().source_ranges(&["172.29.0.0/24", "fd00::/8"]), &["n1"], &[]);
    assert_eq!(addresses(&state_with_both_ranges), ["10.0.0.1", "fd00::1"]);
    // With ipMode Proxy the proxies deny every client of a family without a range. The operator therefore publishes
    // both families.
    let range = ["172.29.0.0/24"];
    let state_with_ip_mode_proxy = state_on_nodes(
        dual_stack_service().source_ranges(&range).annotation(annotations::IP_MODE, "Proxy"),
        &["n1"],
        &[],
    );
    assert_eq!(addresses(&state_with_ip_mode_proxy), ["10.0.0.1", "fd00::1"]);
    assert_message(&state_with_ip_mode_proxy, Reason::Exposed, &["every IPv6 client is denied"]);
    let state_without_ipv4_range = state_on_nodes(web().source_ranges(&["fd00::/8"]), &["n1"], &[]);
    assert_eq!(addresses(&state_without_ipv4_range), Vec::<String>::new());
    assert_message(&state_without_ipv4_range, Reason::NoAddresses, &["loadBalancerSourceRanges", "IPv4"]);
}

#[test]
fn unknown_annotation_causes_a_warning() {
    let service = web().annotation("akrobateo.io/node-selectr", "pool=edge").annotation("example.com/x", "y");
    let state = state_on_nodes(service, &["n1"], &[]);
    let parts = ["akrobateo.io/node-selectr, so it has no effect", "one of: node-selector, tolerations"];
    assert_message(&state, Reason::Exposed, &parts);
    assert!(event_reasons(&planned_actions(&state)).contains(&Reason::UnknownAnnotation));
    // Only nodes have this annotation.
    let state = state_on_nodes(web().annotation(annotations::NODE_ADDRESS, "192.0.2.1"), &["n1"], &[]);
    assert_message(&state, Reason::Exposed, &["akrobateo.io/address"]);
}

#[test]
fn node_ports_of_a_service_with_source_ranges_cause_one_warning() {
    let service = || web().source_ranges(&["172.29.0.0/24"]);
    let mut state = state_on_nodes(service().node_port(30_080), &["n1", "n2"], &[]);
    assert_message(
        &state,
        Reason::Exposed,
        &["loadBalancerSourceRanges", "30080", "allocateLoadBalancerNodePorts"],
    );
    assert!(event_reasons(&planned_actions(&state)).contains(&Reason::NodePortsOpen));
    state = state_after_actions(state);
    // After a change of another part of the message, the warning is not repeated.
    state.pods.pop();
    let reasons = event_reasons(&planned_actions(&state));
    assert!(!reasons.contains(&Reason::NodePortsOpen), "{reasons:?}");
    assert_eq!(exposure(&state_on_nodes(service(), &["n1"], &[])).message, "");
}

#[test]
fn session_affinity_causes_a_warning_if_proxies_forward() {
    let state_with_ip_mode_proxy = state_on_nodes(web_with_ip_mode_proxy().session_affinity(), &["n1"], &[]);
    assert_message(&state_with_ip_mode_proxy, Reason::Exposed, &["sessionAffinity is ClientIP"]);
    assert!(
        event_reasons(&planned_actions(&state_with_ip_mode_proxy)).contains(&Reason::SessionAffinityNotKept)
    );
    assert_eq!(exposure(&state_on_nodes(web().session_affinity(), &["n1"], &[])).message, "");
}

#[test]
fn warnings_advise_ip_mode_vip_only_if_the_operator_accepts_it() {
    let service = || web().session_affinity().traffic_policy_local();
    let service_with_ip_mode_proxy = service().annotation(annotations::IP_MODE, "Proxy");
    let message = exposure(&state_on_nodes(service_with_ip_mode_proxy.clone(), &["n1"], &[])).message;
    assert!(message.contains("set the annotation akrobateo.io/ip-mode to VIP"), "{message}");
    assert!(message.contains("or use ipMode VIP"), "{message}");
    let state_with_vip_danger =
        ServiceState { is_vip_dangerous: true, ..state_on_nodes(service_with_ip_mode_proxy, &["n1"], &[]) };
    let userspace_state =
        state_on_nodes(service().annotation(annotations::DATA_PATH, "userspace"), &["n1"], &[]);
    for state in [state_with_vip_danger, userspace_state] {
        let message = exposure(&state).message;
        assert!(message.contains("use the PROXY protocol (akrobateo.io/proxy-protocol)"), "{message}");
        assert!(message.contains("; remove sessionAffinity") && !message.contains("VIP"), "{message}");
    }
}

#[test]
fn requests_for_addresses_change_the_condition_without_a_warning() {
    let service_with_requests =
        web().load_balancer_ip("192.0.2.9").annotation("metallb.io/loadBalancerIPs", "192.0.2.9");
    let state = state_on_nodes(service_with_requests, &["n1"], &[]);
    let parts = ["loadBalancerIP 192.0.2.9", "annotation metallb.io/loadBalancerIPs", "no effect"];
    assert_message(&state, Reason::Exposed, &parts);
    assert!(event_reasons(&planned_actions(&state)).iter().all(|reason| !reason.is_warning()));
}

#[test]
fn condition_mentions_a_family_without_an_address() {
    let nodes = [node("n1").internal_ip("10.0.0.1").build()];
    let service = web().families(&DUAL_STACK_FAMILIES).cluster_ips(&["10.97.0.7", "fd97::7"]).build();
    let state = observe_with_other_services(service, Vec::new(), ready_pods(&["n1"]), &nodes);
    assert_message(&state, Reason::Exposed, &["no node has an IPv6 address"]);
}

#[test]
fn condition_mentions_an_invalid_annotation_of_a_node() {
    let nodes = [node("n1").internal_ip("10.0.0.1").annotation(annotations::NODE_ADDRESS, "oops").build()];
    let state = observe_with_other_services(web().build(), Vec::new(), ready_pods(&["n1"]), &nodes);
    assert_eq!(addresses(&state), ["10.0.0.1"]);
    assert_message(&state, Reason::Exposed, &[annotations::NODE_ADDRESS, "node n1", "\"oops\""]);
}

#[test]
fn addresses_of_another_manager_stay_if_the_operator_publishes_none() {
    let service = web().published("10.9.9.9", "VIP", "kubectl-patch").build();
    let state = observe_with_other_services(service, Vec::new(), Vec::new(), &nodes(&["n1"]));
    assert_message(&state, Reason::ProxiesNotReady, &["10.9.9.9", "kubectl-patch"]);
    assert_eq!(condition_status(&state), "False");
    let mut reconciled_state = state_after_actions(state);
    // In a cluster, server-side apply does not remove the addresses of the other manager.
    let mut service = reconciled_state.service.as_deref().cloned().unwrap();
    let original_service = web().published("10.9.9.9", "VIP", "kubectl-patch").build();
    service.status.as_mut().unwrap().load_balancer = original_service.status.unwrap().load_balancer;
    reconciled_state.service = Some(Arc::new(service));
    assert_eq!(planned_actions(&reconciled_state), []);
}

#[test]
fn proxies_only_reserve_the_ports_if_kube_proxy_forwards() {
    assert_eq!(pod_spec(&state_on_nodes(web(), &["n1"], &[])).host_network, Some(true));
    assert_eq!(pod_spec(&state_on_nodes(web_with_ip_mode_proxy(), &["n1"], &[])).host_network, None);
    let nodes = [node("n1").internal_ip("10.0.0.1").external_ip("203.0.113.1").build()];
    let state_behind_nat =
        observe_with_other_services(web().build(), Vec::new(), ready_pods(&["n1"]), &nodes);
    assert_eq!(pod_spec(&state_behind_nat).host_network, None);
}

fn ip_modes(state: &ServiceState) -> Vec<String> {
    decision(state).status.unwrap().addresses.into_iter().filter_map(|ingress| ingress.ip_mode).collect()
}

#[test]
fn address_keeps_ip_mode_vip_until_the_proxy_of_its_node_forwards() {
    let state_with_published_addresses = |service: ServiceBuilder| {
        service.published("10.0.0.1", "VIP", "akrobateo").published("10.0.0.2", "VIP", "akrobateo")
    };
    let state_with_reserving_pod_on_n1 = |service: ServiceBuilder| {
        let mut state = state_on_nodes(service, &["n1", "n2"], &[]);
        state.pods[0] = Arc::new(pod("n1").on("n1").in_host_network().ready().build());
        state
    };
    let mut state = state_with_reserving_pod_on_n1(state_with_published_addresses(web_with_ip_mode_proxy()));
    assert_eq!(ip_modes(&state), ["VIP", "Proxy"]);
    // The next proxy of the node is not ready yet.
    state.pod_change_times.last_change_times.insert("n1".to_owned(), at(999));
    state.pods[0] = Arc::new(pod("n1").on("n1").build());
    assert_eq!(ip_modes(&state), ["VIP", "Proxy"]);
    state.pods[0] = Arc::new(pod("n1").on("n1").ready().build());
    assert_eq!(ip_modes(&state), ["Proxy", "Proxy"]);
    // The ipMode changes at once if VIP is dangerous, or if kube-proxy would ignore the source ranges.
    let mut state_with_vip_danger =
        state_with_reserving_pod_on_n1(state_with_published_addresses(web_with_ip_mode_proxy()));
    state_with_vip_danger.is_vip_dangerous = true;
    assert_eq!(ip_modes(&state_with_vip_danger), ["Proxy", "Proxy"]);
    let service_without_ipv4_range =
        state_with_published_addresses(web_with_ip_mode_proxy()).source_ranges(&["fd00::/8"]);
    assert_eq!(ip_modes(&state_with_reserving_pod_on_n1(service_without_ipv4_range)), ["Proxy", "Proxy"]);
    // Only an address that is already published may keep ipMode VIP.
    assert_eq!(ip_modes(&state_with_reserving_pod_on_n1(web_with_ip_mode_proxy())), ["Proxy", "Proxy"]);
}

#[test]
fn addresses_stay_while_the_proxy_of_a_moved_endpoint_starts() {
    // The only endpoint moves from n1 to n2. The Service had no proxy on n2, because another Service used the port
    // there.
    let service = web().traffic_policy_local().published("10.0.0.1", "VIP", "akrobateo");
    let mut state = state_on_nodes(service, &["n1", "n2"], &["n2"]);
    state.pods.pop();
    state.pod_change_times.last_change_times =
        [("n1".to_owned(), at(0)), ("n2".to_owned(), at(999))].into_iter().collect();
    assert_eq!(addresses(&state), ["10.0.0.1"]);
    assert!(decision(&state).recheck_at.is_some());
    // The proxy on n2 is not ready in time.
    state.pod_change_times.last_change_times.insert("n2".to_owned(), at(900));
    assert_eq!(addresses(&state), Vec::<String>::new());
    state.pods.push(Arc::new(pod("n2").on("n2").ready().build()));
    assert_eq!(addresses(&state), ["10.0.0.2"]);
}
