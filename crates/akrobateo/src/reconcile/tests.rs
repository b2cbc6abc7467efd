//! Tests of reconciliations with a scripted API server: the order of writes, and the actions after a failure.

use std::sync::Arc;

use akrobateo_services::allocation::{NothingObserved, PortAllocations};
use akrobateo_services::node_info::NodeInfo;
use api_client::scripted_api::{ReceivedRequest, ScriptedApi, scripted_api};
use http::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Context, reconcile};
use crate::apply::{ApplyError, Writer};
use crate::decide::fixtures::{INSTANCE, at, defaults, key, node, pod, proxy_config, service};
use crate::decide::{Action, ProxyDecision, ServiceState, Workload, decide, plan_actions};
use crate::metrics::Metrics;

const EVENTS_PATH: &str = "/apis/events.k8s.io/v1/namespaces/default/events";
const DAEMONSETS_PATH: &str = "/apis/apps/v1/namespaces/akrobateo-proxies/daemonsets/";
const PODS_PATH: &str = "/api/v1/namespaces/akrobateo-proxies/pods/";
const STATUS_PATH: &str = "/api/v1/namespaces/default/services/web/status";

fn context() -> (Context, ScriptedApi) {
    let (client, api) = scripted_api();
    let metrics = Metrics::new();
    let writer = Writer::new(client, INSTANCE, metrics.clone());
    (Context::new(writer, proxy_config(), metrics), api)
}

/// Returns the state of a new Service in a cluster without nodes. The Service needs a DaemonSet, an event, a status,
/// and an event about the status.
fn new_service_state() -> ServiceState {
    service_state_with_nodes(Vec::new())
}

/// Returns the state of a Service with a ready proxy on the only node.
fn exposed_service_state() -> ServiceState {
    let nodes = vec![NodeInfo::from_node(&node("n1").internal_ip("10.0.0.1").build())];
    let pods = vec![Arc::new(pod("p").on("n1").ready().build())];
    ServiceState { pods, ..service_state_with_nodes(nodes) }
}

fn service_state_with_nodes(nodes: Vec<NodeInfo>) -> ServiceState {
    let service = Arc::new(service("web").tcp(80).build());
    let services = [service.clone()];
    let allocations = PortAllocations::default().update(&services, &nodes, &defaults(), &NothingObserved);
    let allocation_result = allocations.get(&key("web")).cloned();
    let nodes = Arc::new(nodes);
    ServiceState { service: Some(service), allocation_result, nodes, ..ServiceState::default() }
}

/// Returns the DaemonSet of a Service after its first reconciliation.
fn applied_workloads(state: &ServiceState) -> Vec<Workload> {
    let decision = decide(&proxy_config(), state, at(0));
    let actions = plan_actions(INSTANCE, state, &decision, at(0)).into_iter();
    let workloads = actions.filter_map(|action| match action {
        Action::Apply(Workload::DaemonSet(mut daemonset)) => {
            daemonset.metadata.uid = Some("uid-of-daemonset".to_owned());
            Some(Workload::DaemonSet(daemonset))
        }
        _ => None,
    });
    workloads.collect()
}

/// Returns the state of a deleted Service whose DaemonSet still exists.
fn deleted_service_state() -> ServiceState {
    ServiceState { workloads: applied_workloads(&new_service_state()), ..ServiceState::default() }
}

/// Returns the state of a Service with an outdated proxy on its only node.
fn outdated_proxy_state() -> ServiceState {
    let nodes = Arc::new(vec![NodeInfo::from_node(&node("n1").internal_ip("10.0.0.1").build())]);
    let state = ServiceState { nodes, ..new_service_state() };
    let ProxyDecision::RunWorkload(Workload::DaemonSet(mut daemonset)) =
        decide(&proxy_config(), &state, at(0)).proxy
    else {
        panic!("no DaemonSet")
    };
    daemonset.metadata.uid = Some("uid-of-daemonset".to_owned());
    let mut outdated_pod = pod("outdated").on("n1").ready().build();
    outdated_pod.metadata.namespace = Some("akrobateo-proxies".to_owned());
    outdated_pod.metadata.uid = Some("uid-of-outdated".to_owned());
    ServiceState {
        workloads: vec![Workload::DaemonSet(daemonset)],
        pods: vec![Arc::new(outdated_pod)],
        ..state
    }
}

async fn next_request(api: &mut ScriptedApi, method: Method, path: &str) -> ReceivedRequest {
    let request = api.next_request().await;
    assert_eq!(request.method, method, "{}", request.path);
    assert!(request.path.starts_with(path), "{} {}", request.method, request.path);
    request
}

async fn next_apply(api: &mut ScriptedApi) -> ReceivedRequest {
    next_request(api, Method::PATCH, DAEMONSETS_PATH).await
}

async fn next_event(api: &mut ScriptedApi) -> ReceivedRequest {
    next_request(api, Method::POST, EVENTS_PATH).await
}

async fn next_status(api: &mut ScriptedApi) -> ReceivedRequest {
    next_request(api, Method::PATCH, STATUS_PATH).await
}

/// Reconciles the new Service while `script` answers the requests.
async fn reconcile_new_service(
    context: &Context,
    api: &mut ScriptedApi,
    script: impl AsyncFnOnce(&mut ScriptedApi),
) -> Result<(), ApplyError> {
    let (state, key) = (new_service_state(), key("web"));
    let (result, ()) = tokio::join!(reconcile(context, &key, &state, at(0)), async {
        script(api).await;
        api.expect_no_request().await;
    });
    result.map(drop)
}

/// Answers the apply of the DaemonSet with an error, and accepts the status.
async fn answer_apply_with_error(api: &mut ScriptedApi, code: u16, reason: &str) {
    next_apply(api).await.answer_error(code, reason);
    next_status(api).await.accept();
}

#[tokio::test(start_paused = true)]
async fn new_service_gets_proxies_before_its_status() {
    let (context, mut api) = context();
    let result = reconcile_new_service(&context, &mut api, async |api| {
        next_apply(api).await.accept();
        assert_eq!(next_event(api).await.accept_event_and_get_reason(), "EnsuringLoadBalancer");
        let status = next_status(api).await;
        assert_eq!(status.body["metadata"]["uid"], "uid-of-web");
        status.accept();
        assert_eq!(next_event(api).await.accept_event_and_get_reason(), "NoNodes");
    })
    .await;
    result.unwrap();
}

#[tokio::test(start_paused = true)]
async fn conflict_on_the_status_is_not_reported() {
    let (context, mut api) = context();
    let result = reconcile_new_service(&context, &mut api, async |api| {
        next_apply(api).await.accept();
        next_event(api).await.accept();
        next_status(api).await.answer_error(409, "Conflict");
    });
    assert!(result.await.unwrap_err().is_conflict());
}

#[tokio::test(start_paused = true)]
async fn writes_continue_after_a_failure_and_the_first_failure_is_returned() {
    let (context, mut api) = context();
    let result = reconcile_new_service(&context, &mut api, async |api| {
        next_apply(api).await.answer_error(403, "Forbidden");
        next_status(api).await.answer_error(500, "InternalError");
        let event = next_event(api).await;
        assert_eq!(event.body["type"], "Warning");
        assert!(event.body["note"].as_str().unwrap().contains("scripted: Forbidden"), "{}", event.body);
        assert_eq!(event.accept_event_and_get_reason(), "SyncLoadBalancerFailed");
    })
    .await;
    assert!(matches!(result, Err(ApplyError::ApplyWorkload(_))));
}

#[tokio::test(start_paused = true)]
async fn failure_is_reported_once_per_text_and_again_after_a_success() {
    let (context, mut api) = context();
    for (reason, is_reported) in [("Forbidden", true), ("Forbidden", false), ("Invalid", true)] {
        let result = reconcile_new_service(&context, &mut api, async |api| {
            answer_apply_with_error(api, 403, reason).await;
            if is_reported {
                next_event(api).await.accept();
            }
        })
        .await;
        result.unwrap_err();
    }
    let success_result = reconcile_new_service(&context, &mut api, async |api| {
        next_apply(api).await.accept();
        next_event(api).await.accept();
        // No event about the status follows, because the failed reconciliations already wrote the same status. The
        // history of writes contains these writes, even if the watch has not delivered the status yet.
        next_status(api).await.accept();
    })
    .await;
    success_result.unwrap();
    let result = reconcile_new_service(&context, &mut api, async |api| {
        answer_apply_with_error(api, 403, "Invalid").await;
        // The second report increases the count of the first event.
        let event = next_request(api, Method::PATCH, EVENTS_PATH).await;
        assert_eq!(event.body["series"]["count"], 2);
        event.accept();
    })
    .await;
    result.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn deletion_of_a_service_removes_the_record_of_its_failure() {
    let (context, mut api) = context();
    for _ in 0..2 {
        let result = reconcile_new_service(&context, &mut api, async |api| {
            answer_apply_with_error(api, 403, "Forbidden").await;
            api.next_request().await.accept();
        });
        result.await.unwrap_err();
        let deleted_state = ServiceState::default();
        reconcile(&context, &key("web"), &deleted_state, at(0)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn apply_error_is_returned_even_if_its_report_fails() {
    let (context, mut api) = context();
    let result = reconcile_new_service(&context, &mut api, async |api| {
        answer_apply_with_error(api, 403, "Forbidden").await;
        next_event(api).await.answer_error(500, "InternalError");
    })
    .await;
    assert!(matches!(result, Err(ApplyError::ApplyWorkload(_))));
}

#[tokio::test(start_paused = true)]
async fn status_write_to_a_deleted_service_succeeds() {
    let (context, mut api) = context();
    let result = reconcile_new_service(&context, &mut api, async |api| {
        next_apply(api).await.accept();
        next_event(api).await.accept();
        next_status(api).await.answer_error(404, "NotFound");
        next_event(api).await.accept();
    })
    .await;
    result.unwrap();
}

#[tokio::test(start_paused = true)]
async fn deletion_of_a_missing_workload_succeeds() {
    let (context, mut api) = context();
    let (state, key) = (deleted_service_state(), key("web"));
    assert_eq!(state.workloads.len(), 1);
    let (result, ()) = tokio::join!(reconcile(&context, &key, &state, at(0)), async {
        let delete = next_request(&mut api, Method::DELETE, DAEMONSETS_PATH).await;
        assert_eq!(delete.body["preconditions"]["uid"], "uid-of-daemonset");
        delete.answer_error(404, "NotFound");
    });
    result.unwrap();
}

#[tokio::test(start_paused = true)]
async fn outdated_pod_is_deleted_by_its_uid_after_the_status_write() {
    let (state, key) = (outdated_proxy_state(), key("web"));
    for error_answer in [None, Some((404, "NotFound")), Some((409, "Conflict"))] {
        let (context, mut api) = context();
        let (result, ()) = tokio::join!(reconcile(&context, &key, &state, at(0)), async {
            next_status(&mut api).await.accept();
            next_event(&mut api).await.accept();
            let delete = next_request(&mut api, Method::DELETE, PODS_PATH).await;
            assert!(delete.path.ends_with("/outdated"), "{}", delete.path);
            assert_eq!(delete.body["preconditions"]["uid"], "uid-of-outdated");
            match error_answer {
                None => delete.accept(),
                Some((code, reason)) => delete.answer_error(code, reason),
            }
            api.expect_no_request().await;
        });
        result.unwrap();
        let metrics = context.metrics.text().unwrap();
        assert!(metrics.contains("akrobateo_outdated_proxies 1"), "{metrics}");
    }
}

#[tokio::test(start_paused = true)]
async fn failed_deletion_of_a_pod_is_reported_and_tried_again() {
    let (context, mut api) = context();
    let (state, key) = (outdated_proxy_state(), key("web"));
    let (result, ()) = tokio::join!(reconcile(&context, &key, &state, at(0)), async {
        next_status(&mut api).await.accept();
        next_event(&mut api).await.accept();
        next_request(&mut api, Method::DELETE, PODS_PATH).await.answer_error(403, "Forbidden");
        let event = next_event(&mut api).await;
        assert!(event.body["note"].as_str().unwrap().contains("cannot delete a proxy pod"), "{}", event.body);
        event.accept();
    });
    assert!(matches!(result, Err(ApplyError::DeletePod(_))));
}

/// Accepts all writes, gives each written object a new resourceVersion, and sends the writes to the test.
fn record_writes(mut api: ScriptedApi) -> mpsc::UnboundedReceiver<(Method, String, Value)> {
    let (sender, writes) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for write in 1.. {
            let request = api.next_request().await;
            let mut answer = request.body.clone();
            answer["metadata"]["resourceVersion"] = json!((1000 * write).to_string());
            let recorded_write = (request.method.clone(), request.path.clone(), answer.clone());
            request.answer(&answer);
            if sender.send(recorded_write).is_err() {
                return;
            }
        }
    });
    writes
}

#[tokio::test(start_paused = true)]
async fn program_that_overwrites_the_status_causes_few_writes_and_one_warning() {
    let (context, api) = context();
    let (mut writes, key) = (record_writes(api), key("web"));
    let mut state = exposed_service_state();
    reconcile(&context, &key, &state, at(0)).await.unwrap();
    while writes.try_recv().is_ok() {}
    state.workloads = applied_workloads(&state);
    for second in 1..=60 {
        let mut service = service("web").tcp(80).published("10.9.9.9", "VIP", "rival").build();
        service.metadata.resource_version = Some((1000 * second * second + 1_000_000).to_string());
        state.service = Some(Arc::new(service));
        reconcile(&context, &key, &state, at(second)).await.unwrap();
    }
    let mut received_writes = Vec::new();
    while let Ok(write) = writes.try_recv() {
        received_writes.push(write);
    }
    let status_write_count = received_writes.iter().filter(|(_, path, _)| path == STATUS_PATH).count();
    assert!((5..=6).contains(&status_write_count), "{received_writes:#?}");
    let events: Vec<_> =
        received_writes.iter().filter(|(_, path, _)| path.starts_with(EVENTS_PATH)).collect();
    assert_eq!(events.len(), 1, "{events:#?}");
    assert_eq!((&events[0].2["reason"], &events[0].2["type"]), (&json!("StatusConflict"), &json!("Warning")));
    assert!(events[0].2["note"].as_str().unwrap().contains("field manager rival"), "{events:#?}");
}
