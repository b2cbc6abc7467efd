//! Writes the workloads that run proxies. Does I/O.

use k8s_openapi::api::apps::v1::DaemonSet;
use kube::api::{DeleteParams, Patch, Preconditions};
use kube::{Api, Client, ResourceExt};

use super::{CallError, as_akrobateo, call, unless_gone};

/// Makes a workload, or makes it so again.
pub(super) async fn apply(client: &Client, proxy: &DaemonSet) -> Result<(), CallError> {
    let api: Api<DaemonSet> = Api::namespaced(client.clone(), &proxy.namespace().unwrap_or_default());
    call(api.patch(&proxy.name_any(), &as_akrobateo(), &Patch::Apply(proxy))).await.map(drop)
}

/// Deletes a workload with its pods, unless it is gone or another one has taken its name.
pub(super) async fn delete(client: &Client, namespace: &str, name: &str, uid: &str) -> Result<(), CallError> {
    let api: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
    let only_this = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let params = DeleteParams { preconditions: Some(only_this), ..DeleteParams::background() };
    unless_gone(call(api.delete(name, &params)).await.map(drop))
}
