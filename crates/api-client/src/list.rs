//! Fills a store with one list request, for commands that read the cluster once. Does I/O.

use std::fmt::Debug;
use std::hash::Hash;

use k8s_openapi::serde::de::DeserializeOwned;
use kube::api::ListParams;
use kube::runtime::watcher::Event;
use kube::{Api, Resource};

use crate::call::{CallError, call};
use crate::metrics::ApiMetrics;
use crate::reflector::WatchSpec;
use crate::store::Store;

/// A list request that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot list objects of kind {kind}")]
pub struct ListError {
    kind: String,
    source: CallError,
}

/// Returns a store with the existing objects that match a label selector. An empty selector matches all objects. Prunes
/// the objects in the same way as a watch.
pub async fn list_into_store<K, T, I, V>(
    api: Api<K>,
    label_selector: &str,
    watch_spec: WatchSpec<K, T, I, V>,
    metrics: &ApiMetrics,
) -> Result<Store<V, I>, ListError>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone,
    I: Eq + Hash,
{
    let params = ListParams::default().labels(label_selector);
    let to_list_error = |source| ListError { kind: K::kind(&K::DynamicType::default()).into_owned(), source };
    let objects = call(metrics, "list", api.list(&params)).await.map_err(to_list_error)?;
    let (store, mut writer) = watch_spec.new_store();
    for object in objects {
        writer.apply(Event::InitApply(object));
    }
    writer.apply(Event::InitDone);
    Ok(store)
}
