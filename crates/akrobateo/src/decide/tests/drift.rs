//! A workload that is there stays as it should be, or becomes so.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};

use super::*;

#[test]
fn a_workload_edited_by_hand_is_applied_again() {
    let mut observed = after(observed(web().build()));
    let Some(Workload::DaemonSet(daemonset)) = observed.workloads.first_mut() else { panic!("no DaemonSet") };
    daemonset.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[0].args = None;
    assert!(matches!(&changes(&observed)[..], [Action::Apply(_)]));
}

#[test]
fn a_workload_that_somebody_has_added_to_is_made_anew_and_once_is_enough() {
    let mut edited = after(observed(web().build()));
    let Some(Workload::DaemonSet(daemonset)) = edited.workloads.first_mut() else { panic!("no DaemonSet") };
    let theirs = FieldsV1(serde_json::json!({ "f:spec": { "f:paused": {} } }));
    let entry = ManagedFieldsEntry { fields_v1: Some(theirs), ..ManagedFieldsEntry::default() };
    daemonset.metadata.managed_fields = Some(vec![entry]);
    assert!(matches!(&changes(&edited)[..], [Action::Recreate(_)]));
    let gone = after(edited);
    assert!(matches!(&changes(&gone)[..], [Action::Apply(_), Action::EmitEvent { .. }]));
    assert_eq!(changes(&after(gone)), []);
}

#[test]
fn what_a_service_no_longer_asks_for_is_taken_from_its_workload() {
    let deployed = || web().annotation(annotations::WORKLOAD, "Deployment");
    for (asked, plain) in [
        (web().annotation(annotations::NODE_SELECTOR, "!spot"), web()),
        (web().annotation(annotations::TOLERATIONS, "[{key: dedicated, operator: Exists}]"), web()),
        (deployed().annotation(annotations::NODE_SELECTOR, "!spot"), deployed()),
    ] {
        let made = after(observed(asked.build()));
        assert_eq!(changes(&made), []);
        let no_longer = ServiceState { case: observed(plain.build()).case, ..made };
        assert!(matches!(&changes(&no_longer)[..], [Action::Apply(_)]), "{:?}", changes(&no_longer));
        assert_eq!(changes(&after(no_longer)), []);
    }
}

#[test]
fn proxies_come_to_the_nodes_that_an_older_service_has_given_up() {
    let nodes = ["n1", "n2"].map(|name| node(name).internal("10.0.0.1").label("name", name).build());
    let older = service("older").tcp(80).created(1).annotation(annotations::NODE_SELECTOR, "name=n1").build();
    let kept_off = after(among(web().created(2).build(), vec![older], Vec::new(), &nodes));
    let alone = ServiceState {
        case: among(web().created(2).build(), Vec::new(), Vec::new(), &nodes).case,
        ..kept_off
    };
    assert!(changes(&alone).iter().any(|change| matches!(change, Action::Apply(_))));
}
