//! Fills a view once, for those who look and go. Does I/O.

use std::fmt::Debug;
use std::hash::Hash;

use k8s_openapi::serde::de::DeserializeOwned;
use kube::api::ListParams;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::Event;
use kube::{Api, Resource};

use super::reflector::WatchSpec;
use crate::call::{CallError, call};
use crate::metrics::Metrics;

/// Objects that cannot be listed.
#[derive(Debug, thiserror::Error)]
#[error("cannot list objects of kind {kind}")]
pub(crate) struct ListError {
    kind: String,
    source: CallError,
}

/// A view of what there is now, of which as much is forgotten as where it is watched.
pub(super) async fn listed<K>(
    api: Api<K>,
    params: ListParams,
    interest: &WatchSpec<K>,
    metrics: &Metrics,
) -> Result<Store<K>, ListError>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone,
{
    let failed = |source| ListError { kind: K::kind(&K::DynamicType::default()).into_owned(), source };
    let objects = call(metrics, "list", api.list(&params)).await.map_err(failed)?;
    let (store, mut writer) = reflector::store();
    writer.apply_watcher_event(&Event::Init);
    for mut object in objects {
        (interest.prune)(&mut object);
        writer.apply_watcher_event(&Event::InitApply(object));
    }
    writer.apply_watcher_event(&Event::InitDone);
    Ok(store)
}
