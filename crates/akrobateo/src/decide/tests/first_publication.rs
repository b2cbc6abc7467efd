//! Tests of the first status write of a Service that the node agents forward. The operator first saw the Service at
//! 100 s.

use k8s_openapi::jiff::SignedDuration;

use super::shared::{desired_addresses_at, published_on_nodes, shared_web, state_with_agents};
use super::*;
use crate::decide::fixtures::agent;

/// Returns the state of a Service in a cluster with three nodes. The agents of the named nodes have not applied the
/// Service yet.
fn state_with_late_agents(service: ServiceBuilder, late_nodes: &[&str]) -> ServiceState {
    let agents = ["n1", "n2", "n3"].map(|name| {
        let is_late = late_nodes.contains(&name);
        agent(name).with_changed_report(|report| {
            report.applied_versions.as_mut().unwrap().services -= if is_late { 6 } else { 0 }
        })
    });
    state_with_agents(service, agents.into())
}

/// Returns the number of addresses in the status write at this time after the operator saw the Service; `None` if the
/// operator does not write the status. Checks that the next reconciliation is at the end of the delay.
fn written_address_count(state: &ServiceState, milliseconds_since_start: i64) -> Option<usize> {
    let now = at(100) + SignedDuration::from_millis(milliseconds_since_start);
    let decision = decide(&proxy_config(), state, now);
    let delayed_until = decision.write_limits.status.delayed_until();
    assert!(delayed_until.is_none_or(|until| until > now && decision.recheck_at == Some(until)));
    plan_actions(INSTANCE, state, &decision, now).into_iter().find_map(|action| match action {
        Action::PatchStatus { addresses, .. } => Some(addresses.len()),
        _ => None,
    })
}

#[test]
fn first_status_write_waits_for_all_agents() {
    assert_eq!(written_address_count(&state_with_late_agents(shared_web(), &["n1", "n2", "n3"]), 50), None);
    assert_eq!(written_address_count(&state_with_late_agents(shared_web(), &["n2"]), 60), None);
    assert_eq!(written_address_count(&state_with_late_agents(shared_web(), &[]), 70), Some(3));
}

#[test]
fn first_status_write_waits_only_a_short_time_for_late_agents() {
    assert_eq!(written_address_count(&state_with_late_agents(shared_web(), &["n2"]), 199), None);
    assert_eq!(written_address_count(&state_with_late_agents(shared_web(), &["n2"]), 200), Some(2));
    let unserved_state = state_with_late_agents(shared_web(), &["n1", "n2", "n3"]);
    assert_eq!(written_address_count(&unserved_state, 999), None);
    assert_eq!(written_address_count(&unserved_state, 1000), Some(0));
}

#[test]
fn first_status_write_waits_only_for_selected_agents_that_are_not_silent() {
    let agents = vec![agent("n1"), agent("n2").silent()];
    assert_eq!(written_address_count(&state_with_agents(shared_web(), agents), 50), Some(1));
    let service_with_selector = shared_web().annotation(annotations::NODE_SELECTOR, "pool=edge");
    assert_eq!(written_address_count(&state_with_late_agents(service_with_selector, &["n1"]), 50), Some(0));
}

#[test]
fn change_of_published_addresses_is_never_delayed() {
    let state = state_with_late_agents(published_on_nodes(shared_web(), &[1, 2]), &["n2"]);
    assert_eq!(written_address_count(&state, 50), Some(3));
    let mut state_without_agent = state_with_late_agents(published_on_nodes(shared_web(), &[1, 2]), &["n2"]);
    Arc::make_mut(&mut state_without_agent.agents).remove("n1");
    assert_eq!(desired_addresses_at(&state_without_agent, 100), ["10.0.0.2", "10.0.0.3"]);
    assert_eq!(written_address_count(&state_without_agent, 50), Some(2));
}
