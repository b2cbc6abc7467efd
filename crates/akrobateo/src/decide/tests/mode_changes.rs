//! Tests of Services that move between dedicated mode and shared mode. No connection may be lost.

use akrobateo_services::agent_report::PortOwner;

use super::shared::{desired_addresses, desired_addresses_at, shared_web, state_with_agents};
use super::*;
use crate::decide::fixtures::agent;
use crate::decide::workload_fixtures::daemonset;

fn ready_pods(names: &[&str]) -> Vec<Arc<Pod>> {
    names.iter().map(|name| Arc::new(pod(name).on(name).ready().build())).collect()
}

/// Returns the state of a Service that moved from dedicated to shared mode at 100 s. The Service's proxies on all nodes
/// are still ready.
fn state_with_previous_proxies(agents: Vec<AgentState>) -> ServiceState {
    let service = (1..=3).fold(shared_web(), |service, number| {
        service.published(&format!("10.0.0.{number}"), "VIP", INSTANCE)
    });
    ServiceState {
        workloads: vec![daemonset(&[], None)],
        pods: ready_pods(&["n1", "n2", "n3"]),
        ..state_with_agents(service, agents)
    }
}

fn outdated_agent(node: &str) -> AgentState {
    agent(node).with_changed_report(|report| report.applied_versions.as_mut().unwrap().services = 4)
}

fn keeps_proxies(state: &ServiceState, now_seconds: i64) -> bool {
    match decide(&proxy_config(), state, at(now_seconds)).proxy {
        ProxyDecision::KeepWorkloads => true,
        ProxyDecision::DeleteWorkloads => false,
        ProxyDecision::RunWorkload(_) => panic!("a shared Service has no workload"),
    }
}

fn ip_modes(state: &ServiceState) -> Vec<String> {
    let addresses = decision(state).status.unwrap().addresses;
    addresses.into_iter().filter_map(|ingress| ingress.ip_mode).collect()
}

#[test]
fn proxies_stay_until_agents_serve_the_service() {
    let state = state_with_previous_proxies(vec![agent("n1"), outdated_agent("n2"), outdated_agent("n3")]);
    assert_eq!(desired_addresses(&state), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert!(keeps_proxies(&state, 101) && keeps_proxies(&state, 10_000));
    assert_eq!(ip_modes(&state), ["Proxy", "VIP", "VIP"]);

    let state = state_with_previous_proxies(["n1", "n2", "n3"].map(agent).into());
    assert!(!keeps_proxies(&state, 101));
    assert_eq!(ip_modes(&state), ["Proxy", "Proxy", "Proxy"]);
    let actions = planned_actions(&state);
    let position =
        |is_searched_action: fn(&Action) -> bool| actions.iter().position(is_searched_action).unwrap();
    let status_position = position(|action| matches!(action, Action::PatchStatus { .. }));
    assert!(status_position < position(|action| matches!(action, Action::Delete(_))));
}

#[test]
fn proxies_stay_for_one_minute_if_an_agent_refuses_or_is_silent() {
    for third_agent in [Some(agent("n3").silent()), Some(agent("n3").refusing(PortOwner::Process)), None] {
        let agents = [agent("n1"), agent("n2")].into_iter().chain(third_agent);
        let state = state_with_previous_proxies(agents.collect());
        assert!(keeps_proxies(&state, 159));
        assert_eq!(desired_addresses_at(&state, 159), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        assert_eq!(decide(&proxy_config(), &state, at(159)).recheck_at, Some(at(160)));
        assert!(!keeps_proxies(&state, 160));
    }
}

#[test]
fn proxies_stay_while_all_agents_fail() {
    for agents in [Vec::new(), ["n1", "n2", "n3"].map(|node| agent(node).silent()).into()] {
        let state = state_with_previous_proxies(agents);
        assert!(keeps_proxies(&state, 10_000));
        assert_eq!(desired_addresses(&state), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    }
}

/// Returns the state of a Service that moved from shared to dedicated mode at 100 s.
fn state_with_previous_agents(ready_proxies: &[&str], agents: Vec<AgentState>) -> ServiceState {
    let service = (1..=3)
        .fold(web(), |service, number| service.published(&format!("10.0.0.{number}"), "Proxy", INSTANCE));
    ServiceState { pods: ready_pods(ready_proxies), ..state_with_agents(service, agents) }
}

fn agent_that_waits_for_proxy(node: &str) -> AgentState {
    agent(node)
        .with_changed_report(|report| report.services_waiting_for_proxies.push("default/web".to_owned()))
}

#[test]
fn nodes_stay_published_until_their_proxies_are_ready() {
    let agents = || ["n1", "n2", "n3"].map(agent_that_waits_for_proxy).into();
    let state = state_with_previous_agents(&[], agents());
    assert_eq!(desired_addresses(&state), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert!(planned_actions(&state).iter().any(|action| matches!(action, Action::Apply(_))));
    let state = state_with_previous_agents(&["n1"], agents());
    assert_eq!(desired_addresses(&state), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    // The agents of n1 and n2 no longer serve the Service, because a proxy is ready on each of these nodes.
    let state = state_with_previous_agents(
        &["n1", "n2"],
        vec![agent("n1"), agent("n2"), agent_that_waits_for_proxy("n3")],
    );
    assert_eq!(desired_addresses(&state), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    let state = state_with_previous_agents(&["n1", "n2"], ["n1", "n2", "n3"].map(agent).into());
    assert_eq!(desired_addresses(&state), ["10.0.0.1", "10.0.0.2"]);
}

#[test]
fn node_of_a_slow_agent_stays_published_for_one_minute() {
    let state = state_with_previous_agents(&[], ["n1", "n2", "n3"].map(outdated_agent).into());
    assert_eq!(desired_addresses_at(&state, 159), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert!(desired_addresses_at(&state, 160).is_empty());
}

#[test]
fn node_of_a_silent_agent_is_unpublished() {
    let agents = vec![
        agent_that_waits_for_proxy("n1"),
        agent_that_waits_for_proxy("n2").silent(),
        agent_that_waits_for_proxy("n3"),
    ];
    assert_eq!(desired_addresses(&state_with_previous_agents(&[], agents)), ["10.0.0.1", "10.0.0.3"]);
}

#[test]
fn agents_serve_until_the_deployment_has_enough_proxies() {
    let service = (1..=3).fold(
        web().annotation(annotations::WORKLOAD, "Deployment").annotation(annotations::REPLICAS, "2"),
        |service, number| service.published(&format!("10.0.0.{number}"), "Proxy", INSTANCE),
    );
    let agents = || ["n1", "n2", "n3"].map(agent_that_waits_for_proxy).into();
    let mut state = state_with_agents(service, agents());
    state.pods = ready_pods(&["n1"]);
    assert_eq!(desired_addresses(&state), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    state.pods = ready_pods(&["n1", "n2"]);
    assert_eq!(desired_addresses(&state), ["10.0.0.1", "10.0.0.2"]);
}
