//! Tests of rejected Services. A rejected Service keeps the published addresses of nodes that can serve clients, and
//! gets no new address.

use akrobateo_core::{HostPort, Protocol};
use akrobateo_services::spec::SpecError;

use super::shared::{desired_addresses, published_on_nodes, shared_web, state_with_agents};
use super::*;
use crate::decide::fixtures::agent;

fn three_nodes() -> Vec<Node> {
    let addresses = [("n1", "10.0.0.1"), ("n2", "10.0.0.2"), ("n3", "10.0.0.3")];
    addresses
        .map(|(name, ip)| node(name).internal_ip(ip).internal_ip(&format!("fd00::{}", &ip[7..])).build())
        .into()
}

fn ready_pods() -> Vec<Pod> {
    ["n1", "n2", "n3"].map(|name| pod(name).on(name).ready().build()).into()
}

/// Returns the state of a Service with an invalid annotation.
fn rejected_state(service: ServiceBuilder, nodes: &[Node], pods: Vec<Pod>) -> ServiceState {
    let service = service.annotation(annotations::REPLICAS, "lots").build();
    observe_with_other_services(service, Vec::new(), pods, nodes)
}

fn addresses(state: &ServiceState) -> Vec<(String, String)> {
    let addresses = decision(state).status.unwrap().addresses.into_iter();
    addresses.map(|ingress| (ingress.ip.unwrap(), ingress.ip_mode.unwrap())).collect()
}

fn vip_address(ip: &str) -> (String, String) {
    (ip.to_owned(), "VIP".to_owned())
}

#[test]
fn rejected_service_with_traffic_policy_local_does_not_get_new_addresses() {
    let service = web().traffic_policy_local().published("10.0.0.2", "VIP", "akrobateo");
    let mut state = rejected_state(service, &three_nodes(), ready_pods());
    state.nodes_with_ready_endpoint.insert("n2".to_owned());
    assert_eq!(addresses(&state), [vip_address("10.0.0.2")]);
    // The endpoint moves to n3. The published node n2 can no longer serve clients, so its address is removed. The
    // address of n3 is not added.
    state.nodes_with_ready_endpoint = ["n3".to_owned()].into();
    assert_eq!(addresses(&state), []);
    // If no endpoint is ready, the published addresses stay.
    state.nodes_with_ready_endpoint.clear();
    assert_eq!(addresses(&state), [vip_address("10.0.0.2")]);
}

#[test]
fn a_rejected_service_keeps_the_types_and_the_families_of_its_addresses() {
    let nodes =
        [node("n1").internal_ip("10.0.0.1").internal_ip("fd00::1").external_ip("203.0.113.1").build()];
    let service = web().families(&["IPv4", "IPv6"]).annotation(annotations::ADDRESS_TYPES, "InternalIP");
    let service = service.published("10.0.0.1", "VIP", "akrobateo").published("fd00::1", "VIP", "akrobateo");
    let state = rejected_state(service, &nodes, vec![pod("a").on("n1").ready().build()]);
    assert_eq!(addresses(&state), [vip_address("10.0.0.1"), vip_address("fd00::1")]);
}

#[test]
fn rejected_service_loses_addresses_of_nodes_that_cannot_serve_clients() {
    let service = || {
        let service =
            web().published("10.0.0.1", "VIP", "akrobateo").published("10.0.0.2", "VIP", "akrobateo");
        service.published("10.9.9.9", "VIP", "akrobateo")
    };
    let pods = vec![pod("a").on("n1").ready().build(), pod("b").on("n2").build()];
    assert_eq!(addresses(&rejected_state(service(), &three_nodes(), pods)), [vip_address("10.0.0.1")]);
    let mut nodes = three_nodes();
    nodes[1] = node("n2").internal_ip("10.0.0.2").with_ready_unknown().build();
    assert_eq!(addresses(&rejected_state(service(), &nodes, ready_pods())), [vip_address("10.0.0.1")]);
}

#[test]
fn rejected_service_that_was_never_published_stays_unpublished() {
    assert_eq!(addresses(&rejected_state(web(), &three_nodes(), ready_pods())), []);
}

#[test]
fn a_rejected_service_is_not_published_with_a_dangerous_ip_mode() {
    let service = || web().published("10.0.0.1", "VIP", "akrobateo");
    let mut state = rejected_state(service(), &three_nodes(), ready_pods());
    state.is_vip_dangerous = true;
    assert_eq!(addresses(&state), [("10.0.0.1".to_owned(), "Proxy".to_owned())]);
    // Proxies that only reserve the ports do not forward, so the address is removed.
    let reserving_workloads = state_after_actions(observe(web().traffic_policy_local().build())).workloads;
    assert_eq!(addresses(&ServiceState { workloads: reserving_workloads, ..state }), []);
}

#[test]
fn rejected_shared_service_loses_the_address_of_a_node_that_does_not_serve_it() {
    let service = || published_on_nodes(shared_web().annotation(annotations::IP_MODE, "typo"), &[1, 2]);
    let agents = || ["n1", "n2", "n3"].map(agent);
    let ips = |agents: [AgentState; 3]| desired_addresses(&state_with_agents(service(), agents.into()));
    assert_eq!(ips(agents()), ["10.0.0.1", "10.0.0.2"]);
    let [n1, n2, n3] = agents();
    let n2_after_reboot =
        n2.with_changed_report(|report| report.unserved_services = vec!["default/web".to_owned()]);
    let mut state = state_with_agents(service(), [n1, n2_after_reboot, n3].into());
    assert_eq!(desired_addresses(&state), ["10.0.0.1"]);
    // The operator has allocated the node to the Service a second ago, but no proxy will start there.
    state.pod_change_times.last_change_times.insert("n2".to_owned(), at(999));
    assert_eq!(desired_addresses(&state), ["10.0.0.1"]);
}

#[test]
fn shared_service_keeps_its_addresses_when_one_of_its_ports_becomes_reserved() {
    let agents = || ["n1", "n2", "n3"].map(agent).into();
    let mut state = state_with_agents(published_on_nodes(shared_web(), &[1, 2]), agents());
    let port = HostPort { protocol: Protocol::Tcp, port: 80 };
    state.allocation_result = Some(AllocationResult::Rejected(SpecError::PortReserved(port)));
    assert_eq!(desired_addresses(&state), ["10.0.0.1", "10.0.0.2"]);
    let exposure = exposure(&state);
    assert_eq!(exposure.reason, Reason::PortReserved);
    assert!(exposure.message.contains("except for the reserved port"), "{}", exposure.message);
}
