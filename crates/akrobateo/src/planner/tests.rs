//! The planner and its watches against a scripted API server, with a paused clock.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::serde::Serialize;
use serde_json::{Value, json, to_value};
use tokio::time::timeout;

use super::Planner;
use crate::decide::ProxyNamespace;
use crate::decide::fixtures::{defaults, key, node, service};
use crate::key::ServiceKey;
use crate::metrics::{Metrics, WatchLabels};
use crate::scripted_api::{ReceivedRequest, ScriptedApi, error_status, scripted_api};

const SERVICES_PATH: &str = "/api/v1/services";
const NODES_PATH: &str = "/api/v1/nodes";

/// Returns the object with a resource version, as the API server sends it.
fn with_resource_version(object: &impl Serialize, version: &str) -> Value {
    let mut object = to_value(object).unwrap();
    object["metadata"]["resourceVersion"] = json!(version);
    object
}

fn web_service() -> Value {
    with_resource_version(&service("web").tcp(80).build(), "1")
}

fn node_a() -> Value {
    with_resource_version(&node("a").internal_ip("192.0.2.1").build(), "1")
}

struct SyncedPlanner {
    planner: Planner,
    api: ScriptedApi,
    service_watch: ReceivedRequest,
    node_watch: ReceivedRequest,
}

/// Returns a planner that has listed the Service `default/web` and the node `a`, and has handled all triggers of the
/// lists.
async fn synced_planner() -> SyncedPlanner {
    let (client, mut api) = scripted_api();
    let proxy_namespace = ProxyNamespace::SharedNamespace("kube-system".to_owned());
    let mut planner = Planner::watch(&client, None, &proxy_namespace, Arc::new(defaults()), &Metrics::new());
    let (mut service_watch, mut node_watch) = (None, None);
    while service_watch.is_none() || node_watch.is_none() {
        let request = api.next_request_to(&[SERVICES_PATH, NODES_PATH]).await;
        match (request.path == NODES_PATH, request.is_watch()) {
            (true, false) => request.answer_list(&[node_a()]),
            (true, true) => node_watch = Some(request),
            (false, false) => request.answer_list(&[web_service()]),
            (false, true) => service_watch = Some(request),
        }
    }
    planner.wait_until_synced().await.unwrap();
    planner.resync();
    while next_affected_services(&mut planner).await.is_some() {}
    SyncedPlanner { planner, api, service_watch: service_watch.unwrap(), node_watch: node_watch.unwrap() }
}

/// Returns the affected Services, or `None` if no trigger arrives.
async fn next_affected_services(planner: &mut Planner) -> Option<BTreeSet<ServiceKey>> {
    let wait_result = timeout(Duration::from_secs(10), planner.wait_for_changes()).await;
    wait_result.ok().map(Result::unwrap)
}

fn web() -> BTreeSet<ServiceKey> {
    BTreeSet::from([key("web")])
}

fn node_names(planner: &Planner) -> Vec<&str> {
    planner.nodes.iter().map(|node| node.name.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn expiry_of_a_watch_causes_a_new_list_and_affects_every_service() {
    let SyncedPlanner { mut planner, mut api, node_watch, service_watch: _open } = synced_planner().await;
    node_watch.answer_watch(&[("ERROR", error_status(410, "Expired"))]);
    let list = api.next_request_to(&[NODES_PATH]).await;
    assert!(!list.is_watch(), "{}", list.query);
    // The store keeps the previous nodes until the list is complete.
    assert_eq!(next_affected_services(&mut planner).await, None);
    assert!(planner.stores.node("a").is_some());
    list.answer_list(&[with_resource_version(&node("b").build(), "2")]);
    assert_eq!(next_affected_services(&mut planner).await, Some(web()));
    assert_eq!(node_names(&planner), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn node_that_is_missing_from_one_list_and_returns_unchanged_affects_every_service() {
    let SyncedPlanner { mut planner, mut api, node_watch, service_watch: _open } = synced_planner().await;
    node_watch.answer_watch(&[("ERROR", error_status(410, "Expired"))]);
    api.next_request_to(&[NODES_PATH]).await.answer_list(&[]);
    let watch = api.next_request_to(&[NODES_PATH]).await;
    assert_eq!(next_affected_services(&mut planner).await, Some(web()));
    assert!(node_names(&planner).is_empty());

    watch.answer_watch(&[("ADDED", node_a())]);
    assert_eq!(next_affected_services(&mut planner).await, Some(web()));
    assert_eq!(node_names(&planner), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn heartbeat_of_a_node_affects_no_service() {
    let SyncedPlanner { mut planner, node_watch, api: _api, service_watch: _open } = synced_planner().await;
    let mut node_with_new_heartbeat = node_a();
    node_with_new_heartbeat["metadata"]["resourceVersion"] = json!("2");
    node_with_new_heartbeat["status"]["conditions"][0]["lastHeartbeatTime"] = json!("2026-01-01T00:00:00Z");
    node_watch.answer_watch(&[("MODIFIED", node_with_new_heartbeat)]);
    assert_eq!(next_affected_services(&mut planner).await, Some(BTreeSet::new()));
}

#[tokio::test(start_paused = true)]
async fn deleted_node_affects_every_service() {
    let SyncedPlanner { mut planner, node_watch, api: _api, service_watch: _open } = synced_planner().await;
    node_watch.answer_watch(&[("DELETED", node_a())]);
    assert_eq!(next_affected_services(&mut planner).await, Some(web()));
    assert!(node_names(&planner).is_empty());
}

#[tokio::test(start_paused = true)]
async fn status_write_does_not_allocate_ports_again() {
    let SyncedPlanner { mut planner, mut api, service_watch, node_watch: _open } = synced_planner().await;
    let nodes_before = planner.nodes.clone();
    let published_service = service("web").tcp(80).published("192.0.2.1", "VIP", "akrobateo").build();
    service_watch.answer_watch(&[("MODIFIED", with_resource_version(&published_service, "2"))]);
    assert_eq!(next_affected_services(&mut planner).await, Some(web()));
    // Each allocation replaces the list of nodes.
    assert!(Arc::ptr_eq(&planner.nodes, &nodes_before));

    let watch = api.next_request_to(&[SERVICES_PATH]).await;
    watch.answer_watch(&[("MODIFIED", with_resource_version(&service("web").tcp(81).build(), "3"))]);
    assert_eq!(next_affected_services(&mut planner).await, Some(web()));
    assert!(!Arc::ptr_eq(&planner.nodes, &nodes_before));
}

#[tokio::test(start_paused = true)]
async fn new_annotation_or_deletion_of_a_service_allocates_ports_again() {
    let SyncedPlanner { mut planner, mut api, mut service_watch, node_watch: _open } = synced_planner().await;
    let service_with_selector =
        || service("web").tcp(80).annotation("akrobateo.io/node-selector", "pool=edge");
    let (annotated, terminating) =
        (service_with_selector().build(), service_with_selector().terminating().build());
    for (version, event_type, object) in
        [("2", "MODIFIED", &annotated), ("3", "MODIFIED", &terminating), ("4", "DELETED", &terminating)]
    {
        let nodes_before = planner.nodes.clone();
        service_watch.answer_watch(&[(event_type, with_resource_version(object, version))]);
        assert_eq!(next_affected_services(&mut planner).await, Some(web()));
        assert!(!Arc::ptr_eq(&planner.nodes, &nodes_before), "{event_type} {version}");
        service_watch = api.next_request_to(&[SERVICES_PATH]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn failed_list_is_counted_and_repeated() {
    let (client, mut api) = scripted_api();
    let (metrics, proxy_namespace) =
        (Metrics::new(), ProxyNamespace::SharedNamespace("kube-system".to_owned()));
    let planner = Planner::watch(&client, None, &proxy_namespace, Arc::new(defaults()), &metrics);
    api.next_request_to(&[NODES_PATH]).await.answer_error(429, "TooManyRequests");
    api.next_request_to(&[NODES_PATH]).await.answer_error(503, "ServiceUnavailable");
    assert!(timeout(Duration::from_millis(1), planner.wait_until_synced()).await.is_err());
    api.next_request_to(&[NODES_PATH]).await.answer_list(&[]);
    planner.wait_until_synced().await.unwrap();
    let kind = "Node".to_owned();
    assert_eq!(metrics.watch_errors.get_or_create(&WatchLabels { kind }).get(), 2);
}

#[tokio::test(start_paused = true)]
async fn error_of_a_failed_list_names_the_kind_of_object() {
    let (client, mut api) = scripted_api();
    let (metrics, proxy_namespace) =
        (Metrics::new(), ProxyNamespace::SharedNamespace("kube-system".to_owned()));
    let list_task = tokio::spawn(async move {
        Planner::list(&client, None, &proxy_namespace, Arc::new(defaults()), &metrics).await.map(drop)
    });
    api.next_request_to(&[NODES_PATH]).await.answer_error(403, "Forbidden");
    let error = list_task.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "cannot list objects of kind Node");
}
