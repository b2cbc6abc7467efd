//! Tests of conflicts with other programs that write the fields of the operator, with a simulated clock.

use akrobateo_services::published::published_addresses;
use k8s_openapi::api::core::v1::LoadBalancerIngress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::*;

/// The field manager of the other program.
const OTHER_MANAGER: &str = "rival";

/// A Service in a simulated cluster with a simulated clock.
struct Simulation {
    state: ServiceState,
    history: WriteHistory,
    /// The resourceVersion of the last write.
    last_written_version: u64,
    /// The time of the simulated clock in milliseconds.
    now_milliseconds: i64,
    /// The actions that the operator has executed since the last call of [`Self::take_writes`].
    actions: Vec<Action>,
}

impl Simulation {
    /// Returns a simulation of a Service with proxies on two nodes. The operator has reconciled the Service.
    fn start(service: ServiceBuilder) -> Self {
        let nodes = ["n1", "n2"]
            .map(|name| node(name).internal_ip(&format!("10.0.0.{}", name.trim_start_matches('n'))).build());
        let pods = ["n1", "n2"].map(|name| pod(name).on(name).ready().build());
        let state = observe_with_other_services(service.build(), Vec::new(), pods.into(), &nodes);
        let history = WriteHistory::default();
        let mut simulation =
            Self { state, history, last_written_version: 0, now_milliseconds: 0, actions: Vec::new() };
        simulation.reconcile();
        assert_eq!(simulation.addresses(), ["10.0.0.1", "10.0.0.2"]);
        simulation.actions.clear();
        simulation
    }

    /// Repeats the reconciliation until it writes nothing. Returns the time of the next reconciliation.
    fn reconcile(&mut self) -> Option<i64> {
        for _ in 0..5 {
            let action_count = self.actions.len();
            let recheck_at = self.reconcile_once();
            if self.actions.len() == action_count {
                return recheck_at;
            }
        }
        panic!("the operator does not stop writing")
    }

    fn reconcile_once(&mut self) -> Option<i64> {
        let now = self.now();
        let decision = decide(&proxy_config(), &self.state, now);
        let decision = self.history.limit_writes(INSTANCE, &key("web"), &self.state, decision, now);
        for action in plan_actions(INSTANCE, &self.state, &decision, now) {
            self.last_written_version += 1;
            let version = self.last_written_version.to_string();
            self.execute(&action, &version);
            self.history.on_written(&key("web"), Some("uid-of-web"), &action, Some(&version), now);
            self.actions.push(action);
        }
        decision.recheck_at.map(Timestamp::as_millisecond)
    }

    fn execute(&mut self, action: &Action, version: &str) {
        match action {
            Action::Apply(workload) => {
                let mut workload = workload.clone();
                set_version(&mut workload, version, Vec::new());
                let template_metadata =
                    workload.pod_template().and_then(|template| template.metadata.clone());
                for pod in &mut self.state.pods {
                    let pod = Arc::make_mut(pod);
                    pod.metadata.annotations =
                        template_metadata.clone().and_then(|metadata| metadata.annotations);
                }
                self.state.workloads = vec![workload];
            }
            Action::Delete(_) | Action::DeleteKeepingPods(_) => self.state.workloads.clear(),
            Action::PatchStatus { addresses, condition, .. } => {
                let (addresses, condition) = (addresses.clone(), condition.clone());
                self.edit_service(INSTANCE, version, |service| {
                    let status = service.status.get_or_insert_default();
                    status.load_balancer.get_or_insert_default().ingress = Some(addresses);
                    status.conditions = condition.map(|condition| vec![condition]);
                });
            }
            Action::DeletePod(_) | Action::EmitEvent { .. } => (),
        }
    }

    fn edit_service(&mut self, manager: &str, version: &str, edit: impl FnOnce(&mut Service)) {
        let mut service = self.state.service.as_deref().cloned().unwrap();
        edit(&mut service);
        let condition = json!({ "k:{\"type\":\"akrobateo.io/Exposed\"}": { "f:message": {} } });
        service.metadata.managed_fields = Some(vec![ManagedFieldsEntry {
            manager: Some(manager.to_owned()),
            subresource: Some("status".to_owned()),
            fields_v1: Some(FieldsV1(
                json!({ "f:status": { "f:loadBalancer": {}, "f:conditions": condition } }),
            )),
            ..ManagedFieldsEntry::default()
        }]);
        service.metadata.resource_version = Some(version.to_owned());
        self.state.service = Some(Arc::new(service));
    }

    /// Edits the Service in the name of the other program.
    fn overwrite(&mut self, edit: impl FnOnce(&mut Service)) {
        self.last_written_version += 1;
        let version = self.last_written_version.to_string();
        self.edit_service(OTHER_MANAGER, &version, edit);
    }

    fn overwrite_addresses(&mut self) {
        self.overwrite(|service| {
            let status = service.status.get_or_insert_default();
            let ingress =
                LoadBalancerIngress { ip: Some("10.9.9.9".to_owned()), ..LoadBalancerIngress::default() };
            status.load_balancer.get_or_insert_default().ingress = Some(vec![ingress]);
        });
    }

    /// Runs the other program five times in each second, and reconciles after each run.
    fn run(&mut self, seconds: i64, mut other_program: impl FnMut(&mut Self)) {
        for _ in 0..seconds * 5 {
            other_program(self);
            self.now_milliseconds += 50;
            self.reconcile();
            self.now_milliseconds += 150;
        }
    }

    /// Advances the clock without the other program, and executes the reconciliations that the operator scheduled.
    fn wait(&mut self, seconds: i64) {
        let end = self.now_milliseconds + 1000 * seconds;
        while let Some(next) = self.reconcile().filter(|next| *next <= end) {
            assert!(next > self.now_milliseconds, "the operator scheduled a reconciliation in the past");
            self.now_milliseconds = next;
        }
        self.now_milliseconds = end;
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.now_milliseconds).unwrap()
    }

    fn addresses(&self) -> Vec<&str> {
        let service = self.state.service.as_deref().unwrap();
        published_addresses(service).iter().filter_map(|ingress| ingress.ip.as_deref()).collect()
    }

    fn message(&self) -> &str {
        let status = self.state.service.as_deref().unwrap().status.as_ref().unwrap();
        &status.conditions.as_ref().unwrap()[0].message
    }

    /// Returns the number of status writes and the reasons of the events since the last call.
    fn take_writes(&mut self) -> (usize, Vec<Reason>) {
        let actions = std::mem::take(&mut self.actions);
        let status_writes = actions.iter().filter(|action| matches!(action, Action::PatchStatus { .. }));
        (status_writes.count(), event_reasons(&actions))
    }
}

fn set_version(workload: &mut Workload, version: &str, managed_fields: Vec<ManagedFieldsEntry>) {
    let metadata = match workload {
        Workload::DaemonSet(daemonset) => &mut daemonset.metadata,
        Workload::Deployment(deployment) => &mut deployment.metadata,
    };
    metadata.resource_version = Some(version.to_owned());
    metadata.managed_fields = Some(managed_fields);
}

fn managed_spec_fields(fields: &Value) -> ManagedFieldsEntry {
    ManagedFieldsEntry {
        manager: Some(OTHER_MANAGER.to_owned()),
        fields_v1: Some(FieldsV1(json!({ "f:spec": fields }))),
        ..ManagedFieldsEntry::default()
    }
}

#[test]
fn conflict_about_addresses_causes_one_warning_and_few_writes() {
    let mut simulation = Simulation::start(web());
    simulation.run(20, Simulation::overwrite_addresses);
    let (writes, events) = simulation.take_writes();
    // The operator restores the status three times, writes the new condition once, and restores the status again ten
    // seconds later.
    assert_eq!((writes, events), (5, vec![Reason::StatusConflict]));
    let message = simulation.message();
    for expected in ["field manager rival", "status.loadBalancer", "loadBalancerClass"] {
        assert!(message.contains(expected), "{message}");
    }
    assert_eq!(simulation.addresses(), ["10.9.9.9"]);
    simulation.wait(15);
    assert_eq!(simulation.addresses(), ["10.0.0.1", "10.0.0.2"]);
    assert!(simulation.message().contains("field manager rival"));
    simulation.wait(60);
    assert_eq!(simulation.message(), "");
    assert_eq!(simulation.take_writes(), (2, vec![]));
}

#[test]
fn long_conflict_causes_one_write_every_five_minutes() {
    let mut simulation = Simulation::start(web());
    simulation.run(650, Simulation::overwrite_addresses);
    simulation.take_writes();
    simulation.run(650, Simulation::overwrite_addresses);
    let (writes, events) = simulation.take_writes();
    assert!((2..=3).contains(&writes), "{writes}");
    assert_eq!(events, []);
}

#[test]
fn address_of_a_lost_node_is_removed_at_once_during_a_conflict() {
    let mut simulation = Simulation::start(web());
    simulation.run(300, Simulation::overwrite_addresses);
    simulation.take_writes();
    let all_pods = simulation.state.pods.clone();
    simulation.state.pods.retain(|pod| pod.spec.as_ref().unwrap().node_name.as_deref() == Some("n1"));
    simulation.reconcile();
    assert_eq!(simulation.addresses(), ["10.0.0.1"]);
    assert_eq!(simulation.take_writes(), (1, vec![Reason::UpdatedLoadBalancer]));
    // While a proxy alternates between ready and not ready, the operator writes at most once in ten seconds.
    let mut run_count = 0;
    simulation.run(60, |simulation| {
        run_count += 1;
        simulation.overwrite_addresses();
        simulation.state.pods = all_pods[..=(run_count % 2)].to_vec();
    });
    let (writes, _) = simulation.take_writes();
    assert!((5..=7).contains(&writes), "{writes}");
}

#[test]
fn conflict_about_the_condition_causes_one_warning_and_few_writes() {
    let mut simulation = Simulation::start(web());
    simulation.run(20, |simulation| {
        simulation.overwrite(|service| {
            let conditions = service.status.as_mut().unwrap().conditions.as_mut().unwrap();
            "changed".clone_into(&mut conditions[0].message);
        });
    });
    assert_eq!(simulation.take_writes(), (5, vec![Reason::StatusConflict]));
    simulation.wait(15);
    let message = simulation.message();
    assert!(message.contains("rival") && message.contains("the condition akrobateo.io/Exposed"), "{message}");
    simulation.wait(60);
    assert_eq!(simulation.message(), "");
}

#[test]
fn message_reports_an_unknown_program_that_removes_the_addresses() {
    let mut simulation = Simulation::start(web());
    simulation.run(20, |simulation| {
        simulation.overwrite(|service| {
            service.status.as_mut().unwrap().load_balancer = None;
            service.metadata.managed_fields = None;
        });
        let mut service = simulation.state.service.as_deref().cloned().unwrap();
        service.metadata.managed_fields = None;
        simulation.state.service = Some(Arc::new(service));
    });
    assert_eq!(simulation.take_writes(), (5, vec![Reason::StatusConflict]));
    simulation.wait(15);
    assert!(simulation.message().contains("unknown field manager"), "{}", simulation.message());
}

#[test]
fn deletion_of_the_service_removes_the_record_of_the_conflict() {
    let mut simulation = Simulation::start(web());
    simulation.run(20, Simulation::overwrite_addresses);
    let service = simulation.state.service.take();
    simulation.reconcile();
    simulation.actions.clear();
    simulation.state.service = service;
    simulation.reconcile();
    assert_eq!(simulation.addresses(), ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(simulation.message(), "");
}

#[test]
fn frequent_changes_of_the_message_cause_few_writes() {
    let mut simulation = Simulation::start(web());
    let mut run_count = 0;
    simulation.run(60, |simulation| {
        run_count += 1;
        let failing_pod = pod("n3").on("n3").crashed(&format!("failure {run_count}")).build();
        simulation.state.pods.truncate(2);
        simulation.state.pods.push(Arc::new(failing_pod));
    });
    let (writes, events) = simulation.take_writes();
    assert!((5..=6).contains(&writes) && events.len() <= writes, "{writes} writes, {events:?}");
    simulation.wait(60);
    assert!(simulation.message().contains("failure 300"), "{}", simulation.message());
}

#[test]
fn operator_removes_added_fields_of_a_workload_twice_and_then_waits() {
    let mut simulation = Simulation::start(web());
    let pod_fields = json!({ "f:hostPID": {}, "f:shareProcessNamespace": {} });
    let managed_fields_entry = managed_spec_fields(&json!({ "f:template": { "f:spec": pod_fields } }));
    let add_fields = |simulation: &mut Simulation| {
        simulation.last_written_version += 1;
        let version = simulation.last_written_version.to_string();
        if let Some(workload) = simulation.state.workloads.first_mut() {
            set_version(workload, &version, vec![managed_fields_entry.clone()]);
        }
    };
    simulation.run(60, add_fields);
    let is_deletion = |action: &&Action| matches!(action, Action::DeleteKeepingPods(_));
    assert_eq!(simulation.actions.iter().filter(is_deletion).count(), 2);
    let (status_writes, events) = simulation.take_writes();
    assert_eq!(status_writes, 1);
    assert_eq!(events.iter().filter(|reason| **reason == Reason::WorkloadConflict).count(), 1);
    let message = simulation.message();
    for part in [
        "field manager rival",
        "spec.template.spec.hostPID",
        "DaemonSet akrobateo-proxies/",
        "kubectl delete",
    ] {
        assert!(message.contains(part), "{message}");
    }
    // The administrator configures the other program to ignore the DaemonSet, and deletes the DaemonSet.
    simulation.now_milliseconds += 3_600_000;
    simulation.state.workloads.clear();
    simulation.wait(601);
    assert_eq!(simulation.message(), "");
    assert_eq!(simulation.state.workloads.len(), 1);
}

#[test]
fn operator_restores_changed_fields_of_a_workload_twice_and_then_waits() {
    let mut simulation = Simulation::start(web());
    let change_field = |simulation: &mut Simulation| {
        simulation.last_written_version += 1;
        let version = simulation.last_written_version.to_string();
        let Some(Workload::DaemonSet(daemonset)) = simulation.state.workloads.first_mut() else {
            panic!("no DaemonSet")
        };
        daemonset.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[0].args =
            Some(vec!["--data-path=userspace".to_owned()]);
        let args = json!({ "f:containers": { "k:{\"name\":\"forward\"}": { "f:args": {} } } });
        let managed_fields_entry = managed_spec_fields(&json!({ "f:template": { "f:spec": args } }));
        set_version(simulation.state.workloads.first_mut().unwrap(), &version, vec![managed_fields_entry]);
    };
    simulation.run(60, change_field);
    let apply_actions = simulation.actions.iter().filter(|action| matches!(action, Action::Apply(_)));
    assert_eq!(apply_actions.count(), 2);
    assert_eq!(simulation.take_writes(), (1, vec![Reason::WorkloadConflict]));
    assert!(simulation.message().contains("containers[name=forward].args"), "{}", simulation.message());
    // The operator tries again after several hours. The other program stops, so the message disappears.
    simulation.wait(7 * 3600);
    assert_eq!(simulation.message(), "");
}

#[test]
fn cli_shows_the_conflict_that_the_condition_reports() {
    let mut simulation = Simulation::start(web());
    simulation.run(20, Simulation::overwrite_addresses);
    let service = simulation.state.service.as_deref();
    let decision =
        with_reported_conflicts(decide(&proxy_config(), &simulation.state, simulation.now()), service);
    assert_eq!(decision.status.unwrap().exposure.unwrap().message, simulation.message());
}

#[test]
fn rollout_continues_during_a_conflict_about_added_fields() {
    let mut simulation = Simulation::start(web());
    let managed_fields_entry = managed_spec_fields(&json!({ "f:revisionHistoryLimit": {} }));
    let add_fields = |simulation: &mut Simulation| {
        simulation.last_written_version += 1;
        let version = simulation.last_written_version.to_string();
        if let Some(workload) = simulation.state.workloads.first_mut() {
            set_version(workload, &version, vec![managed_fields_entry.clone()]);
        }
    };
    simulation.run(20, add_fields);
    let deletes_pods = |simulation: &Simulation| {
        simulation.actions.iter().any(|action| matches!(action, Action::DeletePod(_)))
    };
    assert!(!deletes_pods(&simulation));
    Arc::make_mut(&mut simulation.state.pods[0]).metadata.annotations = None;
    simulation.reconcile_once();
    assert!(deletes_pods(&simulation), "{:?}", simulation.actions.last());
}
