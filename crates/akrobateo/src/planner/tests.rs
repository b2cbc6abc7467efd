//! Tests of the planner and its watches with a scripted API server and a paused clock.

mod agents;
mod forged_objects;
mod rejected_services;
mod scale;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use akrobateo_services::allocation::AllocationResult;
use akrobateo_services::key::ServiceKey;
use akrobateo_services::node_info::NodePolicy;
use akrobateo_services::spec::IpMode;
use api_client::WatchLabels;
use api_client::scripted_api::{ReceivedRequest, ScriptedApi, error_status, scripted_api};
use k8s_openapi::serde::Serialize;
use serde_json::{Value, json, to_value};
use tokio::sync::watch;
use tokio::time::timeout;

use super::Planner;
use crate::cache::WatchScope;
use crate::decide::Workload;
use crate::decide::fixtures::{at, defaults, key, node, proxy_config, service};
use crate::decide::workload_fixtures::daemonset;
use crate::metrics::Metrics;

const SERVICES_PATH: &str = "/api/v1/services";
const NODES_PATH: &str = "/api/v1/nodes";
const DAEMONSETS_PATH: &str = "/apis/apps/v1/namespaces/akrobateo-proxies/daemonsets";

/// Returns the object as JSON with this resource version.
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

/// Returns the managed fields of a workload that the operator has applied.
fn operator_managed_fields() -> Value {
    json!([{
        "manager": "akrobateo", "operation": "Apply", "apiVersion": "apps/v1", "fieldsType": "FieldsV1",
        "fieldsV1": { "f:spec": { "f:template": {} } },
    }])
}

/// Returns the DaemonSet of the Service `default/web`, which the operator has applied.
fn applied_daemonset() -> Value {
    let Workload::DaemonSet(daemonset) = daemonset(&[], None) else { panic!("no DaemonSet") };
    let mut daemonset = with_resource_version(&*daemonset, "1");
    daemonset["metadata"]["managedFields"] = operator_managed_fields();
    daemonset
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
    let mut planner =
        Planner::watch(&client, &WatchScope::ALL, &proxy_config(), Arc::new(defaults()), &Metrics::new());
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

fn only_service_web() -> BTreeSet<ServiceKey> {
    BTreeSet::from([key("web")])
}

fn node_names(planner: &Planner) -> Vec<&str> {
    planner.nodes.iter().map(|node| node.name.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn expired_watch_causes_a_new_list() {
    let SyncedPlanner { mut planner, mut api, node_watch, service_watch: _open } = synced_planner().await;
    node_watch.answer_watch(&[("ERROR", error_status(410, "Expired"))]);
    let list = api.next_request_to(&[NODES_PATH]).await;
    assert!(!list.is_watch(), "{}", list.query);
    // The store keeps the previous nodes until the list is complete.
    assert_eq!(next_affected_services(&mut planner).await, None);
    assert!(planner.stores.node("a", NodePolicy::default()).is_some());
    list.answer_list(&[with_resource_version(&node("b").build(), "2")]);
    assert_eq!(next_affected_services(&mut planner).await, Some(only_service_web()));
    assert_eq!(node_names(&planner), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn unchanged_node_that_returns_affects_every_service() {
    let SyncedPlanner { mut planner, mut api, node_watch, service_watch: _open } = synced_planner().await;
    node_watch.answer_watch(&[("ERROR", error_status(410, "Expired"))]);
    api.next_request_to(&[NODES_PATH]).await.answer_list(&[]);
    let watch = api.next_request_to(&[NODES_PATH]).await;
    assert_eq!(next_affected_services(&mut planner).await, Some(only_service_web()));
    assert!(node_names(&planner).is_empty());

    watch.answer_watch(&[("ADDED", node_a())]);
    assert_eq!(next_affected_services(&mut planner).await, Some(only_service_web()));
    assert_eq!(node_names(&planner), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn heartbeat_of_a_node_does_not_affect_services() {
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
    assert_eq!(next_affected_services(&mut planner).await, Some(only_service_web()));
    assert!(node_names(&planner).is_empty());
}

#[tokio::test(start_paused = true)]
async fn status_write_does_not_cause_a_port_allocation() {
    let SyncedPlanner { mut planner, mut api, service_watch, node_watch: _open } = synced_planner().await;
    let nodes_before = planner.nodes.clone();
    let published_service = service("web").tcp(80).published("192.0.2.1", "VIP", "akrobateo").build();
    service_watch.answer_watch(&[("MODIFIED", with_resource_version(&published_service, "2"))]);
    assert_eq!(next_affected_services(&mut planner).await, Some(only_service_web()));
    // Each allocation replaces the list of nodes.
    assert!(Arc::ptr_eq(&planner.nodes, &nodes_before));

    let watch = api.next_request_to(&[SERVICES_PATH]).await;
    watch.answer_watch(&[("MODIFIED", with_resource_version(&service("web").tcp(81).build(), "3"))]);
    assert_eq!(next_affected_services(&mut planner).await, Some(only_service_web()));
    assert!(!Arc::ptr_eq(&planner.nodes, &nodes_before));
}

#[tokio::test(start_paused = true)]
async fn annotation_or_deletion_of_a_service_causes_a_port_allocation() {
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
        assert_eq!(next_affected_services(&mut planner).await, Some(only_service_web()));
        assert!(!Arc::ptr_eq(&planner.nodes, &nodes_before), "{event_type} {version}");
        service_watch = api.next_request_to(&[SERVICES_PATH]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn failed_list_is_counted_and_repeated() {
    let ((client, mut api), metrics) = (scripted_api(), Metrics::new());
    let planner = Planner::watch(&client, &WatchScope::ALL, &proxy_config(), Arc::new(defaults()), &metrics);
    api.next_request_to(&[NODES_PATH]).await.answer_error(429, "TooManyRequests");
    api.next_request_to(&[NODES_PATH]).await.answer_error(503, "ServiceUnavailable");
    assert!(timeout(Duration::from_millis(1), planner.wait_until_synced()).await.is_err());
    api.next_request_to(&[NODES_PATH]).await.answer_list(&[]);
    planner.wait_until_synced().await.unwrap();
    let kind = "Node".to_owned();
    assert_eq!(metrics.api.watch_errors.get_or_create(&WatchLabels { kind }).get(), 2);
}

#[tokio::test(start_paused = true)]
async fn error_of_a_failed_list_names_the_kind_of_object() {
    let (client, mut api) = scripted_api();
    let metrics = Metrics::new();
    let list_task = tokio::spawn(async move {
        Planner::list(&client, &WatchScope::ALL, &proxy_config(), Arc::new(defaults()), &metrics)
            .await
            .map(drop)
    });
    api.next_request_to(&[NODES_PATH]).await.answer_error(403, "Forbidden");
    let error = list_task.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "cannot list objects of kind Node");
}

#[tokio::test(start_paused = true)]
async fn change_of_the_kube_proxy_mode_changes_the_ip_mode_of_every_service() {
    let SyncedPlanner { planner, api: _api, service_watch: _services, node_watch: _nodes } =
        synced_planner().await;
    let (sender, receiver) = watch::channel(None);
    let mut planner = planner.with_vip_danger(receiver);
    assert_eq!(next_affected_services(&mut planner).await, None);
    sender.send(Some("kube-proxy runs in IPVS mode".to_owned())).unwrap();
    assert_eq!(next_affected_services(&mut planner).await, Some(only_service_web()));
    let Some(AllocationResult::Accepted(spec, _)) = planner.allocations.get(&key("web")) else {
        panic!("rejected")
    };
    assert_eq!(spec.ip_mode, IpMode::Proxy);
}

#[tokio::test(start_paused = true)]
async fn ipvs_argument_of_a_k3s_node_changes_the_ip_mode() {
    let SyncedPlanner { mut planner, api: _api, service_watch: _services, node_watch } =
        synced_planner().await;
    let arguments = r#"["server","--kube-proxy-arg","proxy-mode=ipvs"]"#;
    let node = node("a").internal_ip("192.0.2.1").annotation("k3s.io/node-args", arguments).build();
    node_watch.answer_watch(&[("MODIFIED", with_resource_version(&node, "2"))]);
    assert_eq!(next_affected_services(&mut planner).await, Some(only_service_web()));
    let Some(AllocationResult::Accepted(spec, _)) = planner.allocations.get(&key("web")) else {
        panic!("rejected")
    };
    assert_eq!(spec.ip_mode, IpMode::Proxy);
}

/// Returns a planner that has listed these objects, and the planner's watches by path.
async fn planner_with_lists(
    lists: &[(&str, &[Value])],
) -> (Planner, ScriptedApi, HashMap<String, ReceivedRequest>) {
    let (client, mut api) = scripted_api();
    let mut planner =
        Planner::watch(&client, &WatchScope::ALL, &proxy_config(), Arc::new(defaults()), &Metrics::new());
    let paths: Vec<_> = lists.iter().map(|(path, _)| *path).collect();
    let mut watches = HashMap::new();
    while watches.len() < lists.len() {
        let request = api.next_request_to(&paths).await;
        if request.is_watch() {
            watches.insert(request.path.clone(), request);
        } else {
            let (_, objects) = lists.iter().find(|(path, _)| *path == request.path).unwrap();
            request.answer_list(objects);
        }
    }
    planner.wait_until_synced().await.unwrap();
    planner.resync();
    while next_affected_services(&mut planner).await.is_some() {}
    (planner, api, watches)
}

/// Returns the nodes on which a Service owns its ports, or `None` for all nodes.
fn owned_nodes(planner: &Planner, name: &str) -> Option<Vec<String>> {
    let Some(AllocationResult::Accepted(_, allocation)) = planner.allocations.get(&key(name)) else {
        panic!("{name} is not accepted")
    };
    Some(allocation.owned_nodes.clone()?.into_iter().collect())
}

#[tokio::test(start_paused = true)]
async fn service_keeps_the_node_of_a_lost_endpoint_for_one_minute() {
    const SLICES_PATH: &str = "/apis/discovery.k8s.io/v1/endpointslices";
    let broker_service =
        |name| with_resource_version(&service(name).tcp(9092).traffic_policy_local().build(), "1");
    let build_slice = |service: &str, nodes: &[&str], version: &str| {
        let endpoints: Vec<_> = nodes.iter().map(|node| json!({"addresses": [], "nodeName": node})).collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": "default",
                "name": service,
                "labels": {"kubernetes.io/service-name": service},
                "resourceVersion": version,
            },
            "addressType": "IPv4",
            "endpoints": endpoints,
        })
    };
    let (services, nodes, slices) = (
        [broker_service("one"), broker_service("two")],
        [node_a()],
        [build_slice("one", &["a"], "1"), build_slice("two", &[], "1")],
    );
    let lists: [(&str, &[Value]); 3] =
        [(SERVICES_PATH, &services), (NODES_PATH, &nodes), (SLICES_PATH, &slices)];
    let (mut planner, _api, mut watches) = planner_with_lists(&lists).await;
    assert_eq!(owned_nodes(&planner, "one"), None);
    assert_eq!(owned_nodes(&planner, "two"), Some(Vec::new()));

    let events = [("MODIFIED", build_slice("one", &[], "2")), ("MODIFIED", build_slice("two", &["a"], "3"))];
    watches.remove(SLICES_PATH).unwrap().answer_watch(&events);
    while next_affected_services(&mut planner)
        .await
        .is_some_and(|changed_services| !changed_services.contains(&key("two")))
    {}
    assert_eq!(owned_nodes(&planner, "one"), None);
    assert_eq!(owned_nodes(&planner, "two"), Some(Vec::new()));
    let changed_services =
        timeout(Duration::from_secs(61), planner.wait_for_changes()).await.unwrap().unwrap();
    assert_eq!(changed_services, BTreeSet::from([key("one"), key("two")]));
    assert_eq!(owned_nodes(&planner, "one"), Some(Vec::new()));
    assert_eq!(owned_nodes(&planner, "two"), None);
}

#[tokio::test(start_paused = true)]
async fn service_keeps_its_port_after_restart_and_workload_deletion() {
    let daemonset = applied_daemonset();
    let services = [
        with_resource_version(&service("older").tcp(80).created_at(1).build(), "1"),
        with_resource_version(&service("web").tcp(80).created_at(2).build(), "1"),
    ];
    let (nodes, daemonsets) = ([node_a()], [daemonset.clone()]);
    let lists: [(&str, &[Value]); 3] =
        [(SERVICES_PATH, &services), (NODES_PATH, &nodes), (DAEMONSETS_PATH, &daemonsets)];
    let (mut planner, _api, mut watches) = planner_with_lists(&lists).await;
    assert_eq!((owned_nodes(&planner, "older"), owned_nodes(&planner, "web")), (Some(Vec::new()), None));
    // No other Service gets the port before the reconciliation of Service web creates the DaemonSet again.
    watches.remove(DAEMONSETS_PATH).unwrap().answer_watch(&[("DELETED", daemonset)]);
    assert_eq!(next_affected_services(&mut planner).await, Some(only_service_web()));
    assert_eq!((owned_nodes(&planner, "older"), owned_nodes(&planner, "web")), (Some(Vec::new()), None));
}

#[tokio::test(start_paused = true)]
async fn service_without_first_endpoint_does_not_claim_nodes_after_a_restart() {
    let daemonset = applied_daemonset();
    let node = node("a").internal_ip("10.0.0.1").build();
    let web = service("web").tcp(80).traffic_policy_local().published("10.0.0.1", "VIP", "akrobateo");
    let mut web = with_resource_version(&web.build(), "1");
    web["status"]["conditions"] = json!([{
        "type": "akrobateo.io/Exposed", "status": "True", "reason": "NoEndpoints",
        "message": "all ready nodes are published until an endpoint is ready",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]);
    let other_service =
        service("other").tcp(80).traffic_policy_local().published("10.0.0.1", "Proxy", "akrobateo");
    let other_service = with_resource_version(&other_service.build(), "1");
    let (services, nodes) = ([web.clone(), other_service], [with_resource_version(&node, "1")]);
    let daemonsets = [daemonset];
    let lists: [(&str, &[Value]); 3] =
        [(SERVICES_PATH, &services), (NODES_PATH, &nodes), (DAEMONSETS_PATH, &daemonsets)];
    let (mut planner, _api, mut watches) = planner_with_lists(&lists).await;
    assert_eq!(owned_nodes(&planner, "web"), None);
    let state = planner.service_state(&key("other"), at(0));
    assert_eq!(state.pod_change_times.last_change_times["a"], at(0));
    let Some(AllocationResult::Accepted(_, allocation)) = state.allocation_result else {
        panic!("not accepted")
    };
    assert_eq!(
        (allocation.unclaimed_nodes, allocation.conflicts),
        (BTreeSet::from(["a".to_owned()]), Vec::new())
    );
    assert!(planner.recent_endpoints.nodes(&key("web")).is_empty());
    // The node is now allocated to Service other. The published address stays while the first proxy of Service other
    // starts.
    watches.remove(SERVICES_PATH).unwrap().answer_watch(&[("DELETED", web)]);
    while next_affected_services(&mut planner).await.is_some() {}
    assert_eq!(owned_nodes(&planner, "other"), None);
    assert_eq!(
        planner.service_state(&key("other"), at(100)).pod_change_times.last_change_times["a"],
        at(100)
    );
}

#[tokio::test(start_paused = true)]
async fn service_that_lost_its_endpoints_keeps_its_nodes_after_a_restart() {
    let daemonset = applied_daemonset();
    let node_b = with_resource_version(&node("b").internal_ip("192.0.2.2").build(), "1");
    let web = service("web").tcp(80).traffic_policy_local().published("192.0.2.1", "VIP", "akrobateo");
    let mut web = with_resource_version(&web.build(), "1");
    web["status"]["conditions"] = json!([{
        "type": "akrobateo.io/Exposed", "status": "True", "reason": "NoEndpoints",
        "message": "externalTrafficPolicy is Local, and the Service has no ready endpoint",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]);
    let other_service = with_resource_version(&service("other").tcp(80).traffic_policy_local().build(), "1");
    let (services, nodes, daemonsets) = ([web, other_service], [node_a(), node_b], [daemonset]);
    let lists: [(&str, &[Value]); 3] =
        [(SERVICES_PATH, &services), (NODES_PATH, &nodes), (DAEMONSETS_PATH, &daemonsets)];
    let (mut planner, _api, _watches) = planner_with_lists(&lists).await;
    assert_eq!((owned_nodes(&planner, "web"), owned_nodes(&planner, "other")), (None, Some(Vec::new())));
    while timeout(Duration::from_secs(61), planner.wait_for_changes()).await.is_ok() {}
    assert_eq!((owned_nodes(&planner, "web"), owned_nodes(&planner, "other")), (None, Some(Vec::new())));
}
