//! Tests of decisions about ports: reserved ports, nodePorts, address families, and Services with externalTrafficPolicy
//! Local.

use std::collections::BTreeSet;

use akrobateo_core::{Family, Frontend};
use akrobateo_services::allocation::Allocation;
use akrobateo_services::spec::LoadBalancerSpec;

use super::*;

#[test]
fn service_whose_port_becomes_reserved_loses_its_proxies_and_addresses() {
    let existing_state =
        state_after_actions(observe(web().published("10.0.0.1", "VIP", "akrobateo").build()));
    let defaults = ServiceDefaults { reserved_ports: "80".parse().unwrap(), ..defaults() };
    let invalid_service =
        web().annotation(annotations::IP_MODE, "vip").published("10.0.0.1", "VIP", "akrobateo");
    let valid_service = web().published("10.0.0.1", "VIP", "akrobateo");
    for (service, reason) in
        [(valid_service, Reason::PortReserved), (invalid_service, Reason::InvalidAnnotation)]
    {
        let service = Arc::new(service.build());
        let services = [service.clone()];
        let allocations =
            PortAllocations::default().update(&services, &existing_state.nodes, &defaults, &NothingObserved);
        let allocation_result = allocations.get(&key("web")).cloned();
        let state = ServiceState {
            service: Some(service),
            allocation_result,
            reserved_ports: defaults.reserved_ports.clone(),
            ..existing_state.clone()
        };
        let decision = decide(&proxy_config(), &state, at(1000));
        assert_eq!(decision.proxy, ProxyDecision::DeleteWorkloads);
        let status = decision.status.unwrap();
        assert_eq!(status.addresses, []);
        let exposure = status.exposure.unwrap();
        assert_eq!(exposure.reason, reason);
        assert!(
            exposure.message.contains("port 80/TCP is now reserved for the nodes"),
            "{}",
            exposure.message
        );
    }
}

#[test]
fn previous_proxies_stay_when_the_service_changes_to_a_reserved_port() {
    let existing_state = state_after_actions(observe(web().build()));
    let defaults = ServiceDefaults { reserved_ports: "22".parse().unwrap(), ..defaults() };
    let service = Arc::new(service("web").tcp(22).build());
    let services = [service.clone()];
    let allocations =
        PortAllocations::default().update(&services, &existing_state.nodes, &defaults, &NothingObserved);
    let allocation_result = allocations.get(&key("web")).cloned();
    let state = ServiceState {
        service: Some(service),
        allocation_result,
        reserved_ports: defaults.reserved_ports.clone(),
        ..existing_state
    };
    assert_eq!(decide(&proxy_config(), &state, at(1000)).proxy, ProxyDecision::KeepWorkloads);
}

#[test]
fn node_port_of_another_service_with_the_same_number_causes_a_warning() {
    let mut state = observe(service("web").tcp(30_500).build());
    let Some(AllocationResult::Accepted(_, allocation)) = &mut state.allocation_result else {
        panic!("not accepted")
    };
    let node_port_service = service("np").service_type("NodePort").tcp(80).node_port(30_500).build();
    let conflicting_state = observe_with_other_services(
        service("web").tcp(30_500).build(),
        vec![node_port_service],
        Vec::new(),
        &[node("n1").build()],
    );
    let Some(AllocationResult::Accepted(_, denied_allocation)) = conflicting_state.allocation_result else {
        panic!("not accepted")
    };
    allocation.shared_node_ports = denied_allocation.conflicts;
    let exposure = exposure(&state);
    assert_eq!(exposure.reason, Reason::Exposed);
    assert_eq!(exposure.warnings[0].0, Reason::PortConflict);
    let message_start = "port 30500/TCP is the nodePort of Service default/np; this Service keeps its ports";
    assert!(exposure.message.starts_with(message_start), "{}", exposure.message);
}

/// Returns the state of one of two Services with externalTrafficPolicy Local and the same port.
fn state_with_two_brokers() -> ServiceState {
    let nodes = [node("n1").internal_ip("10.0.0.1").build(), node("n9").internal_ip("10.0.0.9").build()];
    let broker = |name| service(name).tcp(9092).traffic_policy_local().build();
    observe_with_other_services(broker("web"), vec![broker("other")], Vec::new(), &nodes)
}

fn set_allocation(state: &mut ServiceState, new_allocation: Allocation) {
    let Some(AllocationResult::Accepted(_, allocation)) = &mut state.allocation_result else {
        panic!("not accepted")
    };
    *allocation = new_allocation;
}

/// Returns an allocation in which the Service owns its ports on these nodes.
fn allocation_with_owned_nodes(names: &[&str]) -> Allocation {
    let owned_nodes = Some(names.iter().map(|&name| name.to_owned()).collect());
    Allocation { owned_nodes, ..Allocation::default() }
}

/// Returns the addresses with their ipModes.
fn addresses_and_modes(state: &ServiceState) -> Vec<(String, String)> {
    let addresses = decision(state).status.unwrap().addresses.into_iter();
    addresses.map(|ingress| (ingress.ip.unwrap(), ingress.ip_mode.unwrap())).collect()
}

#[test]
fn service_without_endpoints_is_published_on_nodes_of_other_services() {
    let mut state = state_with_two_brokers();
    assert_eq!(decision(&state).proxy, ProxyDecision::DeleteWorkloads);
    // The port belongs to the other Service. kube-proxy must not forward for this Service, so the addresses have ipMode
    // Proxy.
    let address_with_mode = |address: &str, mode: &str| (address.to_owned(), mode.to_owned());
    assert_eq!(
        addresses_and_modes(&state),
        [address_with_mode("10.0.0.1", "Proxy"), address_with_mode("10.0.0.9", "Proxy")]
    );
    assert_eq!((exposure(&state).reason, exposure(&state).warnings), (Reason::NoEndpoints, Vec::new()));
    state = state_after_actions(state);
    assert_eq!(planned_actions(&state), []);
    // The Service gets its first endpoint on n1, and then owns n1. The address of n1 stays while the proxy starts.
    set_allocation(&mut state, allocation_with_owned_nodes(&["n1"]));
    state.nodes_with_ready_endpoint = BTreeSet::from(["n1".to_owned()]);
    state.pod_change_times.last_change_times.insert("n1".to_owned(), at(990));
    assert_eq!(addresses_and_modes(&state), [address_with_mode("10.0.0.1", "VIP")]);
    state.pod_change_times.last_change_times.insert("n1".to_owned(), at(900));
    assert_eq!(addresses_and_modes(&state), []);
}

#[test]
fn condition_explains_why_a_local_service_does_not_own_nodes() {
    // Proxies on the selected nodes have no endpoint, so the Service does not wait for these proxies.
    let mut state = state_with_two_brokers();
    set_allocation(&mut state, allocation_with_owned_nodes(&[]));
    state.nodes_with_ready_endpoint = BTreeSet::from(["n9".to_owned()]);
    assert_eq!(decision(&state).proxy, ProxyDecision::DeleteWorkloads);
    let exposure = exposure(&state);
    assert_eq!(exposure.reason, Reason::NoEndpoints);
    assert!(exposure.message.contains(annotations::NODE_SELECTOR), "{}", exposure.message);
}

fn dual_stack_node() -> Node {
    node("n1").internal_ip("10.0.0.1").internal_ip("fd00::1").build()
}

fn needed_families(service: ServiceBuilder, node: &Node) -> BTreeSet<Family> {
    let spec = LoadBalancerSpec::from_service(&service.build(), &defaults()).unwrap();
    let frontends: BTreeSet<Frontend> = needed_frontends(&spec, &[NodeInfo::from_node(node)]);
    frontends.iter().map(|frontend| frontend.family).collect()
}

fn ipv6_service() -> ServiceBuilder {
    service("web").udp(53).cluster_ips(&["fd97::7"]).families(&["IPv6"])
}

#[test]
fn reserving_proxies_on_dual_stack_nodes_occupy_ports_of_one_family() {
    for (service, family, host_ip) in [
        (web(), Family::V4, "::ffff:0.0.0.0"),
        (web().traffic_policy_local(), Family::V4, "::ffff:0.0.0.0"),
        (ipv6_service().traffic_policy_local(), Family::V6, "::"),
    ] {
        let state = observe_with_other_services(
            service.clone().build(),
            Vec::new(),
            Vec::new(),
            &[dual_stack_node()],
        );
        let pod = pod_spec(&state);
        let ports = pod.containers[0].ports.as_ref().unwrap();
        assert_eq!((pod.host_network, ports[0].host_ip.as_deref()), (Some(true), Some(host_ip)));
        // The operator can read the family from the workload.
        let workloads = state_after_actions(state).workloads;
        let port_set = occupied_ports(&workloads, &[], &[NodeInfo::from_node(&dual_stack_node())]);
        assert!(port_set.frontends.iter().all(|frontend| frontend.family == family), "{port_set:?}");
        assert_eq!(needed_families(service, &dual_stack_node()), BTreeSet::from([family]));
    }
}

#[test]
fn proxies_that_occupy_both_families_need_no_host_ip() {
    let single_stack_node = node("n1").internal_ip("10.0.0.1").build();
    let dual_stack_service = || web().cluster_ips(&["10.97.0.7", "fd97::7"]).families(&["IPv4", "IPv6"]);
    for (service, node) in [
        (web().annotation(annotations::IP_MODE, "Proxy"), dual_stack_node()),
        (web().traffic_policy_local().annotation(annotations::IP_MODE, "Proxy"), dual_stack_node()),
        (dual_stack_service().traffic_policy_local(), dual_stack_node()),
        (web().traffic_policy_local(), single_stack_node),
    ] {
        let built_service = service.build();
        let state = observe_with_other_services(
            built_service.clone(),
            Vec::new(),
            Vec::new(),
            std::slice::from_ref(&node),
        );
        let pod = pod_spec(&state);
        assert_eq!(pod.containers[0].ports.as_ref().unwrap()[0].host_ip, None);
        let spec = LoadBalancerSpec::from_service(&built_service, &defaults()).unwrap();
        assert_eq!(needed_frontends(&spec, &[NodeInfo::from_node(&node)]).len(), 2);
    }
}
