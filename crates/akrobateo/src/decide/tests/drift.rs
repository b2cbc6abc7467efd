//! Tests of drift: edits of a workload by other field managers, and fields that the Service no longer needs.

use akrobateo_services::spec::parse_tolerations;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};

use super::*;

#[test]
fn a_workload_with_a_changed_field_is_applied_again() {
    let mut state = state_after_actions(observe(web().build()));
    let Some(Workload::DaemonSet(daemonset)) = state.workloads.first_mut() else { panic!("no DaemonSet") };
    daemonset.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[0].args = None;
    assert!(matches!(&planned_actions(&state)[..], [Action::Apply(_)]));
}

#[test]
fn workload_with_a_field_of_another_manager_is_recreated_once() {
    let mut edited_state = state_after_actions(observe(web().build()));
    let Some(Workload::DaemonSet(daemonset)) = edited_state.workloads.first_mut() else {
        panic!("no DaemonSet")
    };
    let fields = FieldsV1(serde_json::json!({ "f:spec": { "f:paused": {} } }));
    let managed_fields_entry =
        ManagedFieldsEntry { fields_v1: Some(fields), ..ManagedFieldsEntry::default() };
    daemonset.metadata.managed_fields = Some(vec![managed_fields_entry]);
    assert!(matches!(&planned_actions(&edited_state)[..], [Action::DeleteKeepingPods(_)]));
    let state_after_deletion = state_after_actions(edited_state);
    assert!(matches!(
        &planned_actions(&state_after_deletion)[..],
        [Action::Apply(_), Action::EmitEvent { .. }]
    ));
    assert_eq!(planned_actions(&state_after_actions(state_after_deletion)), []);
}

/// Returns the state of a Service with settings that allow every toleration.
fn observe_with_tolerations(service: Service) -> ServiceState {
    let mut defaults = defaults();
    defaults.bounds.tolerations = parse_tolerations("[{operator: Exists}]").unwrap();
    let state = observe(service);
    let services: Vec<_> = state.service.iter().cloned().collect();
    let allocations = PortAllocations::default().update(&services, &state.nodes, &defaults, &NothingObserved);
    ServiceState { allocation_result: allocations.get(&key("web")).cloned(), ..state }
}

#[test]
fn a_field_that_the_service_no_longer_needs_is_removed() {
    let deployment = || web().annotation(annotations::WORKLOAD, "Deployment");
    for (previous_service, current_service) in [
        (web().annotation(annotations::NODE_SELECTOR, "!spot"), web()),
        (web().annotation(annotations::TOLERATIONS, "[{key: dedicated, operator: Exists}]"), web()),
        (deployment().annotation(annotations::NODE_SELECTOR, "!spot"), deployment()),
    ] {
        let existing_state = state_after_actions(observe_with_tolerations(previous_service.build()));
        assert_eq!(planned_actions(&existing_state), []);
        let changed_state = ServiceState {
            allocation_result: observe_with_tolerations(current_service.build()).allocation_result,
            ..existing_state
        };
        assert!(
            matches!(&planned_actions(&changed_state)[..], [Action::Apply(_)]),
            "{:?}",
            planned_actions(&changed_state)
        );
        assert_eq!(planned_actions(&state_after_actions(changed_state)), []);
    }
}

#[test]
fn proxies_start_on_nodes_whose_port_an_older_service_released() {
    let nodes = ["n1", "n2"].map(|name| node(name).internal_ip("10.0.0.1").label("name", name).build());
    let older_service =
        service("older").tcp(80).created_at(1).annotation(annotations::NODE_SELECTOR, "name=n1").build();
    let state = state_after_actions(observe_with_other_services(
        web().created_at(2).build(),
        vec![older_service],
        Vec::new(),
        &nodes,
    ));
    let state_after_port_release = ServiceState {
        allocation_result: observe_with_other_services(
            web().created_at(2).build(),
            Vec::new(),
            Vec::new(),
            &nodes,
        )
        .allocation_result,
        ..state
    };
    assert!(
        planned_actions(&state_after_port_release).iter().any(|action| matches!(action, Action::Apply(_)))
    );
}

#[test]
fn workload_of_a_replaced_service_is_deleted() {
    for replacement in [web(), web().annotation(annotations::IP_MODE, "bogus")] {
        let mut replacement = replacement.build();
        replacement.metadata.uid = Some("uid-of-replacement".to_owned());
        let mut state = observe(replacement.clone());
        state.obsolete_workloads = state_after_actions(observe(web().build())).workloads;
        assert!(!state.obsolete_workloads[0].belongs_to(&replacement));
        let actions = planned_actions(&state);
        assert!(matches!(actions[0], Action::Delete(_)), "{actions:?}");
        let is_rejected = decision(&state).proxy == ProxyDecision::KeepWorkloads;
        assert_eq!(!is_rejected, matches!(actions[1], Action::Apply(_)), "{actions:?}");
    }
}
