//! Tests of Services that the node agents forward: published nodes, condition and events.

use std::collections::BTreeMap;

use akrobateo_services::agent_report::{MasqueradedPeer, PortOwner};

use super::*;
use crate::decide::fixtures::{agent, port_problem};

/// Returns a Service that the agents forward.
pub(super) fn shared_web() -> ServiceBuilder {
    web().annotation(annotations::WORKLOAD, "Shared")
}

fn nodes(names: &[&str]) -> Vec<Node> {
    let node = |name: &&str| node(name).internal_ip(&format!("10.0.0.{}", &name[1..])).build();
    names.iter().map(node).collect()
}

/// Returns the state of a Service in a cluster with the nodes n1, n2 and n3 and these agents. The Service has the
/// version 5. The operator first saw this version at 100 s.
pub(super) fn state_with_agents(service: ServiceBuilder, agents: Vec<AgentState>) -> ServiceState {
    state_with_other_services(service, Vec::new(), agents)
}

fn state_with_other_services(
    service: ServiceBuilder,
    other_services: Vec<Service>,
    agents: Vec<AgentState>,
) -> ServiceState {
    let nodes = nodes(&["n1", "n2", "n3"]);
    let agents = agents.into_iter().map(|agent| (agent.observed_report.report.node.clone(), agent));
    ServiceState {
        agents: Arc::new(agents.collect()),
        version: ObservedVersion { version: 5, seen_at: at(100) },
        ..observe_with_other_services(service.build(), other_services, Vec::new(), &nodes)
    }
}

fn set_agent(state: &mut ServiceState, agent: AgentState) {
    Arc::make_mut(&mut state.agents).insert(agent.observed_report.report.node.clone(), agent);
}

pub(super) fn desired_addresses(state: &ServiceState) -> Vec<String> {
    desired_addresses_at(state, 1000)
}

pub(super) fn desired_addresses_at(state: &ServiceState, now_seconds: i64) -> Vec<String> {
    let decision = decide(&proxy_config(), state, at(now_seconds));
    decision.status.unwrap().addresses.into_iter().filter_map(|ingress| ingress.ip).collect()
}

pub(super) fn published_on_nodes(service: ServiceBuilder, node_numbers: &[u8]) -> ServiceBuilder {
    node_numbers
        .iter()
        .fold(service, |service, number| service.published(&format!("10.0.0.{number}"), "Proxy", INSTANCE))
}

fn assert_exposure(state: &ServiceState, reason: Reason, parts: &[&str]) {
    let exposure = exposure(state);
    assert_eq!(exposure.reason, reason, "{}", exposure.message);
    assert!(parts.iter().all(|part| exposure.message.contains(part)), "{}", exposure.message);
}

fn all_agents() -> Vec<AgentState> {
    ["n1", "n2", "n3"].map(agent).into()
}

#[test]
fn shared_service_is_published_on_all_serving_nodes() {
    let state = state_with_agents(shared_web(), all_agents());
    assert_eq!(desired_addresses(&state), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert_exposure(&state, Reason::Exposed, &[]);
    let ingress = decision(&state).status.unwrap().addresses;
    assert!(ingress.iter().all(|ingress| ingress.ip_mode.as_deref() == Some("Proxy")));
    assert_eq!(decision(&state).proxy, ProxyDecision::DeleteWorkloads);
    let actions = planned_actions(&state);
    assert_eq!(event_reasons(&actions), [Reason::EnsuredLoadBalancer]);
    assert_eq!(planned_actions(&state_after_actions(state)), []);
}

#[test]
fn condition_mentions_the_node_that_cannot_answer() {
    let cases: [(Option<AgentState>, &str); 5] = [
        (None, "node n2 (it has no node agent)"),
        (Some(agent("n2").silent()), "node n2 (its agent has not reported for 15 s)"),
        (
            Some(agent("n2").with_changed_report(|report| report.error = Some("no nf_tables".to_owned()))),
            "node n2 (its agent cannot change the rules of the kernel: no nf_tables)",
        ),
        (
            Some(
                agent("n2")
                    .with_changed_report(|report| report.applied_versions.as_mut().unwrap().services = 4),
            ),
            "node n2 (its agent does not serve the Service yet)",
        ),
        (
            Some(agent("n2").with_changed_report(|report| report.is_paused = true)),
            "node n2 (its agent does not serve the Service yet)",
        ),
    ];
    for (second_agent, message) in cases {
        let agents = [agent("n1"), agent("n3")].into_iter().chain(second_agent).collect();
        let state = state_with_agents(shared_web(), agents);
        assert_eq!(desired_addresses(&state), ["10.0.0.1", "10.0.0.3"], "{message}");
        assert_exposure(&state, Reason::PartlyExposed, &[message]);
    }
}

#[test]
fn condition_mentions_the_owner_of_a_refused_port() {
    let cases = [
        (
            PortOwner::Service("shop/api".to_owned()),
            Reason::PortConflict,
            "port 80/TCP on node n1 belongs to Service shop/api; use other ports, or select other nodes",
        ),
        (
            PortOwner::Pod("shop/ingress".to_owned()),
            Reason::PortInUse,
            "port 80/TCP on node n1 is a hostPort of pod shop/ingress; use other ports, select other nodes, or stop",
        ),
        (
            PortOwner::Process,
            Reason::PortInUse,
            "a process of node n1 listens on port 80/TCP; use other ports",
        ),
    ];
    for (owner, reason, message) in cases {
        let refusing_agent = |node| agent(node).refusing(owner.clone());
        let partly_refused_state =
            state_with_agents(shared_web(), vec![refusing_agent("n1"), agent("n2"), agent("n3")]);
        assert_eq!(desired_addresses(&partly_refused_state), ["10.0.0.2", "10.0.0.3"]);
        assert_exposure(&partly_refused_state, Reason::PartlyExposed, &[message]);
        assert!(event_reasons(&planned_actions(&partly_refused_state)).contains(&reason));
        let state = state_with_agents(shared_web(), ["n1", "n2", "n3"].map(refusing_agent).into());
        assert!(desired_addresses(&state).is_empty());
        assert_exposure(&state, reason, &[message]);
        assert_eq!(exposure(&state).status(), "False");
    }
}

#[test]
fn agent_decides_which_shared_service_gets_the_port() {
    // The port allocation gives the port to the older Service, but the agent of n1 serves the younger Service.
    let older_service =
        service("older").tcp(80).annotation(annotations::WORKLOAD, "Shared").created_at(1).build();
    let refusing_agent = |node| agent(node).refusing(PortOwner::Service("default/older".to_owned()));
    let agents = vec![agent("n1"), refusing_agent("n2"), refusing_agent("n3")];
    let younger_service = || shared_web().created_at(2);
    let state = state_with_other_services(younger_service(), vec![older_service.clone()], all_agents());
    assert_eq!(desired_addresses(&state), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert_exposure(&state, Reason::Exposed, &[]);
    let state = state_with_other_services(younger_service(), vec![older_service], agents);
    assert_eq!(desired_addresses(&state), ["10.0.0.1"]);
    assert_exposure(
        &state,
        Reason::PartlyExposed,
        &["port 80/TCP on node n2 belongs to Service default/older"],
    );
}

#[test]
fn condition_says_that_the_refused_port_is_a_node_port() {
    let owner = service("api").tcp(8080).node_port(80).created_at(1).build();
    let refusing_agent = |node| agent(node).refusing(PortOwner::Service("default/api".to_owned()));
    let agents = ["n1", "n2", "n3"].map(refusing_agent).into();
    let state = state_with_other_services(shared_web().created_at(2), vec![owner], agents);
    assert_exposure(&state, Reason::PortConflict, &["port 80/TCP is the nodePort of Service default/api"]);
}

#[test]
fn node_of_a_changing_agent_stays_published_for_one_minute() {
    let outdated_agent =
        || agent("n2").with_changed_report(|report| report.applied_versions.as_mut().unwrap().services = 4);
    let mut failing_agent = agent("n2").with_changed_report(|report| report.error = Some("busy".to_owned()));
    failing_agent.failing_since = Some(at(100));
    let mut restarted_agent = agent("n2").with_changed_report(|report| report.applied_versions = None);
    restarted_agent.failing_since = Some(at(100));
    let mut paused_agent = agent("n2").with_changed_report(|report| report.is_paused = true);
    paused_agent.silent_at = at(160);
    for second_agent in [outdated_agent(), failing_agent, restarted_agent, paused_agent] {
        let agents = || vec![agent("n1"), second_agent.clone(), agent("n3")];
        let state = state_with_agents(published_on_nodes(shared_web(), &[2]), agents());
        assert_eq!(
            desired_addresses_at(&state, 159),
            ["10.0.0.1", "10.0.0.2", "10.0.0.3"],
            "{second_agent:?}"
        );
        assert_eq!(decide(&proxy_config(), &state, at(159)).recheck_at, Some(at(160)));
        assert_eq!(desired_addresses_at(&state, 160), ["10.0.0.1", "10.0.0.3"], "{second_agent:?}");
        let unpublished_state = state_with_agents(published_on_nodes(shared_web(), &[1]), agents());
        assert_eq!(
            desired_addresses_at(&unpublished_state, 159),
            ["10.0.0.1", "10.0.0.3"],
            "{second_agent:?}"
        );
    }
}

#[test]
fn node_of_a_refusing_or_silent_agent_is_unpublished_at_once() {
    for second_agent in [agent("n2").silent(), agent("n2").refusing(PortOwner::Process)] {
        let agents = vec![agent("n1"), second_agent, agent("n3")];
        let state = state_with_agents(published_on_nodes(shared_web(), &[1, 2, 3]), agents);
        assert_eq!(desired_addresses_at(&state, 101), ["10.0.0.1", "10.0.0.3"]);
    }
}

#[test]
fn published_addresses_stay_if_all_agents_are_silent() {
    let silent_agents = || Vec::from(["n1", "n2", "n3"].map(|node| agent(node).silent()));
    let state = state_after_actions(state_with_agents(shared_web(), all_agents()));
    let mut service = (**state.service.as_ref().unwrap()).clone();
    service.metadata.managed_fields = published_on_nodes(shared_web(), &[1]).build().metadata.managed_fields;
    let agents = silent_agents().into_iter().map(|agent| (agent.observed_report.report.node.clone(), agent));
    let mut state =
        ServiceState { agents: Arc::new(agents.collect()), service: Some(Arc::new(service)), ..state };
    assert_eq!(planned_actions(&state), []);
    // After one agent reports again, the operator has contact, and considers the other nodes lost.
    set_agent(&mut state, agent("n3"));
    assert_eq!(desired_addresses(&state), ["10.0.0.3"]);
    // A Service without published addresses stays unpublished.
    let state = state_with_agents(shared_web(), silent_agents());
    assert!(desired_addresses(&state).is_empty());
    assert_exposure(&state, Reason::AgentsNotReady, &["n1, n2, n3", "15 s"]);
}

#[test]
fn condition_reports_that_no_agents_are_installed() {
    let state = state_with_agents(published_on_nodes(shared_web(), &[1]), Vec::new());
    assert!(desired_addresses(&state).is_empty());
    assert_exposure(
        &state,
        Reason::AgentsNotReady,
        &["the node agents do not report", "agent.enabled", "DaemonSet"],
    );
    assert_eq!(event_reasons(&planned_actions(&state)), [Reason::AgentsNotReady]);
}

#[test]
fn new_service_that_waits_for_agents_has_no_warning() {
    let outdated_agent = |node| {
        agent(node).with_changed_report(|report| report.applied_versions.as_mut().unwrap().services = 4)
    };
    let state = state_with_agents(shared_web(), ["n1", "n2", "n3"].map(outdated_agent).into());
    assert_exposure(&state, Reason::AgentsNotReady, &["waiting for the agents"]);
    assert_eq!(event_reasons(&planned_actions(&state)), []);
}

#[test]
fn condition_explains_why_all_nodes_are_unpublished() {
    let mut state = state_with_agents(shared_web(), all_agents());
    let excluded_node = node("n1")
        .internal_ip("10.0.0.1")
        .label("node.kubernetes.io/exclude-from-external-load-balancers", "");
    state.nodes = Arc::new(vec![NodeInfo::from_node(&excluded_node.build())]);
    assert_exposure(&state, Reason::NoAddresses, &["node n1 can forward but is not published"]);
    let service_with_selector = shared_web().annotation(annotations::NODE_SELECTOR, "pool=edge");
    assert_exposure(
        &state_with_agents(service_with_selector, all_agents()),
        Reason::NoNodes,
        &["no node matches the node selector \"pool=edge\" and has only tolerated taints; change"],
    );
    let service_with_external_type = shared_web().annotation(annotations::ADDRESS_TYPES, "ExternalIP");
    assert_exposure(
        &state_with_agents(service_with_external_type, all_agents()),
        Reason::NoAddresses,
        &["ExternalIP"],
    );
}

#[test]
fn node_is_published_after_its_agent_applies_the_local_endpoint() {
    let mut state =
        state_with_agents(published_on_nodes(shared_web().traffic_policy_local(), &[1]), all_agents());
    state.nodes_with_ready_endpoint = ["n1", "n2"].map(str::to_owned).into();
    let version = |version| ObservedVersion { version, seen_at: at(100) };
    state.endpoint_versions =
        BTreeMap::from([("n1".to_owned(), version(10)), ("n2".to_owned(), version(11))]);
    assert_eq!(desired_addresses(&state), ["10.0.0.1"]);
    let updated_agent = agent("n2")
        .with_changed_report(|report| report.applied_versions.as_mut().unwrap().endpoint_slices = 11);
    set_agent(&mut state, updated_agent);
    assert_eq!(desired_addresses(&state), ["10.0.0.1", "10.0.0.2"]);
}

#[test]
fn previous_node_of_an_endpoint_stays_published_until_the_next_node_serves() {
    let mut state =
        state_with_agents(published_on_nodes(shared_web().traffic_policy_local(), &[1]), all_agents());
    state.nodes_with_ready_endpoint = ["n2".to_owned()].into();
    let version = ObservedVersion { version: 11, seen_at: at(1000) };
    state.endpoint_versions = BTreeMap::from([("n2".to_owned(), version)]);
    assert_eq!(desired_addresses_at(&state, 1001), ["10.0.0.1"]);
    let updated_agent = agent("n2")
        .with_changed_report(|report| report.applied_versions.as_mut().unwrap().endpoint_slices = 11);
    set_agent(&mut state, updated_agent);
    assert_eq!(desired_addresses_at(&state, 1001), ["10.0.0.2"]);
}

#[test]
fn local_service_without_endpoints_is_published_on_serving_nodes() {
    let local_service = || shared_web().traffic_policy_local();
    let agents = || vec![agent("n1"), agent("n2").refusing(PortOwner::Process), agent("n3")];
    let state = state_with_agents(local_service(), agents());
    assert_eq!(desired_addresses(&state), ["10.0.0.1", "10.0.0.3"]);
    assert_exposure(&state, Reason::NoEndpoints, &["all ready nodes are published"]);
    let state = state_with_agents(published_on_nodes(local_service(), &[3]), agents());
    assert_eq!(desired_addresses(&state), ["10.0.0.3"]);
    assert_exposure(&state, Reason::NoEndpoints, &["the published addresses stay"]);
}

#[test]
fn internal_traffic_policy_local_does_not_exclude_nodes() {
    let mut state = state_with_agents(shared_web().internal_traffic_policy_local(), all_agents());
    state.nodes_with_ready_endpoint = ["n2".to_owned()].into();
    assert_eq!(desired_addresses(&state), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert_exposure(&state, Reason::Exposed, &[]);
}

#[test]
fn condition_mentions_shared_ports_and_masqueraded_peers() {
    let sharing_agent = agent("n1")
        .with_changed_report(|report| report.doubly_used_ports = vec![port_problem(PortOwner::Process)]);
    let state = state_with_agents(shared_web(), vec![sharing_agent, agent("n2"), agent("n3")]);
    assert_exposure(
        &state,
        Reason::Exposed,
        &["a process of node n1 listens on port 80/TCP; this Service keeps"],
    );
    assert_eq!(exposure(&state).warnings[0].0, Reason::PortInUse);

    let masquerading_agents = || {
        let peer = MasqueradedPeer { node: "n2".to_owned(), reason: "it has no agent".to_owned() };
        vec![
            agent("n1").with_changed_report(|report| report.masqueraded_peers = vec![peer]),
            agent("n2"),
            agent("n3"),
        ]
    };
    let state = state_with_agents(shared_web(), masquerading_agents());
    assert_exposure(&state, Reason::Exposed, &["packets to nodes n2 (it has no agent) are masqueraded"]);
    assert!(exposure(&state).warnings.is_empty());
    for service in [
        shared_web().annotation(annotations::CLIENT_ADDRESS, "masquerade"),
        shared_web().traffic_policy_local(),
    ] {
        let state = state_with_agents(service, masquerading_agents());
        assert!(!exposure(&state).message.contains("masqueraded"));
    }
}

#[test]
fn rejected_shared_service_keeps_nodes_that_can_answer() {
    let rejected_service =
        || published_on_nodes(shared_web(), &[1, 2]).annotation(annotations::IP_MODE, "bogus");
    let state = state_with_agents(rejected_service(), all_agents());
    assert_eq!(desired_addresses(&state), ["10.0.0.1", "10.0.0.2"]);
    assert_exposure(&state, Reason::InvalidAnnotation, &["bogus"]);
    let state = state_with_agents(rejected_service(), vec![agent("n1"), agent("n2").silent(), agent("n3")]);
    assert_eq!(desired_addresses(&state), ["10.0.0.1"]);
    let silent_agents = ["n1", "n2", "n3"].map(|node| agent(node).silent());
    assert_eq!(
        desired_addresses(&state_with_agents(rejected_service(), silent_agents.into())),
        ["10.0.0.1", "10.0.0.2"]
    );
}

#[test]
fn not_ready_node_with_a_reporting_agent_is_unpublished() {
    let mut state = state_with_agents(published_on_nodes(shared_web(), &[1, 2, 3]), all_agents());
    let lost_node = node("n2").internal_ip("10.0.0.2").with_ready_unknown().build();
    Arc::make_mut(&mut state.nodes)[1] = NodeInfo::from_node(&lost_node);
    assert_eq!(desired_addresses(&state), ["10.0.0.1", "10.0.0.3"]);
}
