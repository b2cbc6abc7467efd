//! The diagnostics that a failed test prints: objects, events and logs. Does I/O.

use std::fmt::Debug;

use akrobateo_core::labels;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::serde::Serialize;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::api::{ListParams, LogParams};
use kube::{Api, Client, Resource, ResourceExt};

use crate::operator::{OPERATOR_SELECTOR, PROXIES_NAMESPACE};

const MAX_LOG_LINES: i64 = 60;

/// Prints the state of a test's namespace, of its proxies, and of the operator.
pub(crate) async fn print_diagnostics(client: &Client, namespace: &str) {
    let all_objects = ListParams::default();
    let proxies = all_objects.clone().labels(&format!("{}={namespace}", labels::SERVICE_NAMESPACE));
    eprintln!("--- objects in namespace {namespace}, and its proxies:");
    print_objects(Api::<Service>::namespaced(client.clone(), namespace), &all_objects).await;
    print_objects(Api::<Event>::namespaced(client.clone(), namespace), &all_objects).await;
    print_objects(Api::<Pod>::namespaced(client.clone(), namespace), &all_objects).await;
    print_objects(Api::<DaemonSet>::all(client.clone()), &proxies).await;
    print_objects(Api::<Pod>::all(client.clone()), &proxies).await;
    print_objects(Api::<Node>::all(client.clone()), &all_objects).await;
    print_logs(client, &proxies).await;
    print_logs(client, &all_objects.labels(OPERATOR_SELECTOR)).await;
    print_proxy_events(client, namespace).await;
}

async fn print_objects<K>(api: Api<K>, params: &ListParams)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug,
{
    match api.list(params).await {
        Ok(list) => list.items.into_iter().for_each(|object| eprintln!("{}", format_as_line(object))),
        Err(error) => eprintln!("cannot list {}s: {error}", K::kind(&())),
    }
}

/// Returns an object as one line. The line omits the managed fields of the object, and the image list of a node.
fn format_as_line<K: Resource<DynamicType = ()> + Serialize>(mut object: K) -> String {
    object.meta_mut().managed_fields = None;
    let mut value = serde_json::to_value(&object).unwrap_or_default();
    if let Some(status) = value.get_mut("status").and_then(serde_json::Value::as_object_mut) {
        status.remove("images");
    }
    let name = object.meta().name.clone().unwrap_or_default();
    format!("{} {name}: {value}", K::kind(&()))
}

async fn print_logs(client: &Client, params: &ListParams) {
    let pods = Api::<Pod>::all(client.clone()).list(params).await;
    for pod in pods.map(|list| list.items).unwrap_or_default() {
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
        let params = LogParams { tail_lines: Some(MAX_LOG_LINES), ..LogParams::default() };
        match api.logs(&pod.name_any(), &params).await {
            Ok(text) => eprintln!("--- log of {}:\n{text}", pod.name_any()),
            Err(error) => eprintln!("--- cannot read the log of {}: {error}", pod.name_any()),
        }
    }
}

/// Prints the events about the proxies of a test. The events are in the proxies' namespace, so the function selects
/// them by the name of the object.
async fn print_proxy_events(client: &Client, namespace: &str) {
    let events =
        Api::<Event>::namespaced(client.clone(), PROXIES_NAMESPACE).list(&ListParams::default()).await;
    for event in events.map(|list| list.items).unwrap_or_default() {
        let object = event.regarding.as_ref().and_then(|object| object.name.clone()).unwrap_or_default();
        if object.starts_with(&format!("akrobateo-{namespace}")) {
            let (reason, note) = (event.reason.unwrap_or_default(), event.note.unwrap_or_default());
            eprintln!("event about {object}: {reason}: {note}");
        }
    }
}
