//! What is printed when a test has failed: everything that could tell why. Does I/O.

use std::fmt::Debug;

use akrobateo_core::labels;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::serde::Serialize;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::api::{ListParams, LogParams};
use kube::{Api, Client, Resource, ResourceExt};

use crate::operator;
use crate::proxies::OPERATOR_NAMESPACE;

const LOG_LINES: i64 = 60;

/// Prints the state of a test's namespace, of what was made for it, and of the operator.
pub(crate) async fn print(client: &Client, namespace: &str) {
    let all = ListParams::default();
    let ours = all.clone().labels(&format!("{}={namespace}", labels::SERVICE_NAMESPACE));
    eprintln!("--- what there is in and for namespace {namespace}:");
    objects(Api::<Service>::namespaced(client.clone(), namespace), &all).await;
    objects(Api::<Event>::namespaced(client.clone(), namespace), &all).await;
    objects(Api::<Pod>::namespaced(client.clone(), namespace), &all).await;
    objects(Api::<DaemonSet>::all(client.clone()), &ours).await;
    objects(Api::<Pod>::all(client.clone()), &ours).await;
    objects(Api::<Node>::all(client.clone()), &all).await;
    logs(client, &ours).await;
    logs(client, &all.labels(operator::SELECTOR)).await;
    events_of_proxies(client, namespace).await;
}

async fn objects<K>(api: Api<K>, which: &ListParams)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug,
{
    match api.list(which).await {
        Ok(list) => list.items.into_iter().for_each(|object| eprintln!("{}", summary(object))),
        Err(error) => eprintln!("cannot list {}s: {error}", K::kind(&())),
    }
}

/// One line for each object, without what says nothing.
fn summary<K: Resource<DynamicType = ()> + Serialize>(mut object: K) -> String {
    object.meta_mut().managed_fields = None;
    let mut value = serde_json::to_value(&object).unwrap_or_default();
    if let Some(status) = value.get_mut("status").and_then(serde_json::Value::as_object_mut) {
        status.remove("images");
    }
    let name = object.meta().name.clone().unwrap_or_default();
    format!("{} {name}: {value}", K::kind(&()))
}

async fn logs(client: &Client, which: &ListParams) {
    let pods = Api::<Pod>::all(client.clone()).list(which).await;
    for pod in pods.map(|list| list.items).unwrap_or_default() {
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
        let params = LogParams { tail_lines: Some(LOG_LINES), ..LogParams::default() };
        match api.logs(&pod.name_any(), &params).await {
            Ok(text) => eprintln!("--- log of {}:\n{text}", pod.name_any()),
            Err(error) => eprintln!("--- no log of {}: {error}", pod.name_any()),
        }
    }
}

/// They are about objects in the operator's namespace, whose names begin alike.
async fn events_of_proxies(client: &Client, namespace: &str) {
    let events =
        Api::<Event>::namespaced(client.clone(), OPERATOR_NAMESPACE).list(&ListParams::default()).await;
    for event in events.map(|list| list.items).unwrap_or_default() {
        let about = event.regarding.as_ref().and_then(|object| object.name.clone()).unwrap_or_default();
        if about.starts_with(&format!("akrobateo-{namespace}")) {
            let (reason, note) = (event.reason.unwrap_or_default(), event.note.unwrap_or_default());
            eprintln!("event about {about}: {reason}: {note}");
        }
    }
}
