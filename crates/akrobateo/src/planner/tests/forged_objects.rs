//! Tests of forged objects: the operator ignores workloads and pods that it did not create, even if they have the
//! labels of a proxy.

use akrobateo_services::allocation::{Allocation, AllocationResult};
use akrobateo_services::spec::LoadBalancerSpec;
use serde_json::{Value, json, to_value};

use super::*;
use crate::decide::fixtures::{INSTANCE, at, pod};
use crate::decide::{
    Action, ProxyConfig, ProxyDecision, ProxyNamespace, ServiceState, Workload, decide, plan_actions,
};

/// Returns metadata that makes a workload or pod look like a proxy of a Service.
fn forged_metadata(name: &str, in_namespace: &str, service_namespace: &str, service: &str) -> Value {
    json!({
        "name": name, "namespace": in_namespace, "uid": format!("uid-of-{name}"), "resourceVersion": "1",
        "labels": {
            "app.kubernetes.io/name": "akrobateo-lb", "app.kubernetes.io/managed-by": "akrobateo",
            "akrobateo.io/service-name": service, "akrobateo.io/service-namespace": service_namespace,
        },
        "managedFields": operator_managed_fields(),
    })
}

/// Returns a Deployment without replicas. The Deployment's pod template has these hostPorts.
fn forged_deployment(metadata: &Value, ports: &[u16]) -> Value {
    let ports: Vec<_> = ports.iter().map(|port| json!({ "containerPort": port, "hostPort": port })).collect();
    let template = json!({ "spec": { "containers": [{ "name": "forward", "ports": ports }] } });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
        "spec": { "replicas": 0, "selector": {}, "template": template },
    })
}

/// Returns a running pod of a tenant with this metadata and this owner.
fn forged_pod(mut metadata: Value, node: &str, owner: Option<Value>) -> Value {
    metadata
        .as_object_mut()
        .unwrap()
        .extend(owner.map(|owner| ("ownerReferences".to_owned(), json!([owner]))));
    let running_pod = to_value(pod("forged").on(node).ready().build()).unwrap();
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": running_pod["spec"], "status": running_pod["status"],
    })
}

/// Returns a tenant's Service with an invalid annotation.
fn rejected_service_of_tenant() -> Value {
    let mut service = service("x").tcp(18080).annotation("akrobateo.io/ip-mode", "bogus").build();
    service.metadata.namespace = Some("evil".to_owned());
    to_value(service).unwrap()
}

/// Returns the state of `default/web` in a cluster with one node and these additional objects.
async fn state_with_objects(proxy_namespace: ProxyNamespace, objects: Vec<Value>) -> ServiceState {
    let (client, api) = scripted_api();
    let config = ProxyConfig { proxy_namespace, ..proxy_config() };
    let mut planner =
        Planner::watch(&client, &WatchScope::ALL, &config, Arc::new(defaults()), &Metrics::new());
    let server = tokio::spawn(api.serve_lists([vec![web_service(), node_a()], objects].concat()));
    planner.wait_until_synced().await.unwrap();
    planner.resync();
    server.abort();
    planner.service_state(&key("web"), at(1000))
}

fn shared_proxy_namespace() -> ProxyNamespace {
    ProxyNamespace::SharedNamespace("proxies".to_owned())
}

fn assert_objects_have_no_effect(state: &ServiceState) {
    assert!(state.workloads.is_empty(), "{:?}", state.workloads);
    assert!(state.pods.is_empty(), "{:?}", state.pods);
    let Some(AllocationResult::Accepted(_, allocation)) = &state.allocation_result else {
        panic!("{:?}", state.allocation_result)
    };
    assert_eq!(allocation.conflicts, []);
}

#[tokio::test(start_paused = true)]
async fn forged_workload_of_a_rejected_service_does_not_take_ports() {
    let deployment = forged_deployment(&forged_metadata("trap", "evil", "evil", "x"), &[80, 443]);
    let pod = forged_pod(forged_metadata("pod", "proxies", "evil", "x"), "a", None);
    let objects = vec![rejected_service_of_tenant(), deployment, pod];
    assert_objects_have_no_effect(&state_with_objects(shared_proxy_namespace(), objects.clone()).await);
    assert_objects_have_no_effect(&state_with_objects(ProxyNamespace::ServiceNamespace, objects).await);
}

/// Returns a DaemonSet of `default/web` and the running pod of this DaemonSet. The operator applied the DaemonSet for
/// the Service with this UID.
fn applied_daemonset_and_pod(namespace: &str, service_uid: &str) -> Vec<Value> {
    let web = service("web").tcp(80).build();
    let state = ServiceState {
        allocation_result: Some(AllocationResult::Accepted(
            Arc::new(LoadBalancerSpec::from_service(&web, &defaults()).unwrap()),
            Allocation::default(),
        )),
        service: Some(Arc::new(web)),
        ..ServiceState::default()
    };
    let ProxyDecision::RunWorkload(Workload::DaemonSet(daemonset)) =
        decide(&proxy_config(), &state, at(0)).proxy
    else {
        panic!("no DaemonSet")
    };
    let mut daemonset = to_value(daemonset).unwrap();
    let metadata = forged_metadata("own", namespace, "default", "web");
    for field in ["namespace", "uid", "managedFields", "resourceVersion"] {
        daemonset["metadata"][field] = metadata[field].clone();
    }
    daemonset["metadata"]["annotations"]["akrobateo.io/service-uid"] = json!(service_uid);
    let owner = json!({ "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "own", "uid": "uid-of-own", "controller": true });
    let pod = forged_pod(forged_metadata("pod", namespace, "default", "web"), "a", Some(owner));
    vec![daemonset, pod]
}

#[tokio::test(start_paused = true)]
async fn workload_and_pods_of_the_operator_are_trusted() {
    let state =
        state_with_objects(shared_proxy_namespace(), applied_daemonset_and_pod("proxies", "uid-of-web"))
            .await;
    assert_eq!((state.workloads.len(), state.pods.len(), state.obsolete_workloads.len()), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn workload_of_another_field_manager_is_not_trusted() {
    let mut objects = applied_daemonset_and_pod("proxies", "uid-of-web");
    objects[0]["metadata"]["managedFields"][0]["operation"] = json!("Update");
    assert_objects_have_no_effect(&state_with_objects(shared_proxy_namespace(), objects).await);
}

#[tokio::test(start_paused = true)]
async fn pod_of_another_controller_is_not_a_proxy_of_the_service() {
    let mut objects = applied_daemonset_and_pod("proxies", "uid-of-web");
    objects[1]["metadata"]["ownerReferences"][0]["uid"] = json!("another");
    let state = state_with_objects(shared_proxy_namespace(), objects).await;
    assert_eq!((state.workloads.len(), state.pods.len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn proxies_of_a_deleted_service_with_the_same_name_are_obsolete() {
    let state =
        state_with_objects(shared_proxy_namespace(), applied_daemonset_and_pod("proxies", "uid-of-former"))
            .await;
    assert_eq!((state.workloads.len(), state.pods.len(), state.obsolete_workloads.len()), (0, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn proxies_of_another_instance_are_ignored() {
    let mut objects = applied_daemonset_and_pod("proxies", "uid-of-web");
    for object in &mut objects {
        object["metadata"]["labels"]["app.kubernetes.io/managed-by"] = json!("other");
    }
    objects[0]["metadata"]["managedFields"][0]["manager"] = json!("other");
    assert_objects_have_no_effect(&state_with_objects(shared_proxy_namespace(), objects).await);
}

#[tokio::test(start_paused = true)]
async fn workload_in_the_service_namespace_must_belong_to_the_service() {
    let mut objects = applied_daemonset_and_pod("default", "uid-of-web");
    assert_objects_have_no_effect(
        &state_with_objects(ProxyNamespace::ServiceNamespace, objects.clone()).await,
    );
    objects[0]["metadata"]["ownerReferences"] = json!([
        { "apiVersion": "v1", "kind": "Service", "name": "web", "uid": "uid-of-web", "controller": true }
    ]);
    let state = state_with_objects(ProxyNamespace::ServiceNamespace, objects).await;
    assert_eq!((state.workloads.len(), state.pods.len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn former_proxies_are_deleted_before_new_proxies_are_created() {
    let (client, api) = scripted_api();
    let former_proxy_namespaces = vec![ProxyNamespace::SharedNamespace("proxies".to_owned())];
    let config = ProxyConfig { former_proxy_namespaces, ..proxy_config() };
    let mut planner =
        Planner::watch(&client, &WatchScope::ALL, &config, Arc::new(defaults()), &Metrics::new());
    let objects =
        [vec![web_service(), node_a()], applied_daemonset_and_pod("proxies", "uid-of-web")].concat();
    let server = tokio::spawn(api.serve_lists(objects));
    planner.wait_until_synced().await.unwrap();
    planner.resync();
    server.abort();
    let state = planner.service_state(&key("web"), at(1000));
    let actions = plan_actions(INSTANCE, &state, &decide(&config, &state, at(1000)), at(1000));
    let [Action::Delete(former), Action::Apply(current), ..] = &actions[..] else { panic!("{actions:?}") };
    let namespaces = [former, current].map(|workload| workload.metadata().namespace.as_deref());
    assert_eq!(namespaces, [Some("proxies"), Some("akrobateo-proxies")]);
}

#[tokio::test(start_paused = true)]
async fn forged_workload_takes_only_ports_that_its_pod_uses() {
    let owner =
        json!({ "apiVersion": "v1", "kind": "Service", "name": "x", "uid": "uid-of-x", "controller": true });
    let mut deployment = forged_deployment(&forged_metadata("trap", "evil", "evil", "x"), &[80, 443]);
    deployment["metadata"]["ownerReferences"] = json!([owner]);
    deployment["metadata"]["annotations"] = json!({ "akrobateo.io/service-uid": "uid-of-x" });
    let replica_set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "trap-1", "uid": "forged", "controller": true,
    });
    let mut pod = forged_pod(forged_metadata("pod", "evil", "evil", "x"), "a", Some(replica_set));
    pod["metadata"]["labels"]["pod-template-hash"] = json!("1");
    pod["status"]["phase"] = json!("Running");
    let objects = vec![rejected_service_of_tenant(), deployment, pod];
    assert_objects_have_no_effect(&state_with_objects(ProxyNamespace::ServiceNamespace, objects).await);
}

#[tokio::test(start_paused = true)]
async fn workload_in_another_namespace_does_not_belong_to_the_service() {
    let forged_object = forged_deployment(&forged_metadata("trap", "evil", "default", "web"), &[80]);
    assert_objects_have_no_effect(
        &state_with_objects(shared_proxy_namespace(), vec![forged_object.clone()]).await,
    );
    assert_objects_have_no_effect(
        &state_with_objects(ProxyNamespace::ServiceNamespace, vec![forged_object]).await,
    );
}

#[tokio::test(start_paused = true)]
async fn pod_in_another_namespace_is_not_a_proxy_of_the_service() {
    let forged_object = forged_pod(forged_metadata("pod", "evil", "default", "web"), "a", None);
    assert_objects_have_no_effect(
        &state_with_objects(ProxyNamespace::ServiceNamespace, vec![forged_object]).await,
    );
}

#[tokio::test(start_paused = true)]
async fn forged_workload_does_not_take_ports_after_the_proxies_moved() {
    let owner =
        json!({ "apiVersion": "v1", "kind": "Service", "name": "x", "uid": "uid-of-x", "controller": true });
    let mut deployment = forged_deployment(&forged_metadata("trap", "evil", "evil", "x"), &[80, 443]);
    deployment["metadata"]["ownerReferences"] = json!([owner]);
    deployment["metadata"]["annotations"] = json!({ "akrobateo.io/service-uid": "uid-of-x" });
    let (client, api) = scripted_api();
    let former_proxy_namespaces = vec![ProxyNamespace::ServiceNamespace];
    let config =
        ProxyConfig { proxy_namespace: shared_proxy_namespace(), former_proxy_namespaces, ..proxy_config() };
    let mut planner =
        Planner::watch(&client, &WatchScope::ALL, &config, Arc::new(defaults()), &Metrics::new());
    let objects = vec![web_service(), node_a(), rejected_service_of_tenant(), deployment];
    let server = tokio::spawn(api.serve_lists(objects));
    planner.wait_until_synced().await.unwrap();
    planner.resync();
    server.abort();
    assert_objects_have_no_effect(&planner.service_state(&key("web"), at(1000)));
}
