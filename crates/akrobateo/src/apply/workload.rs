//! Writes the workloads of proxies. Does I/O.

use std::fmt::Debug;

use api_client::{CallError, call};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::serde::Serialize;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::api::{DeleteParams, Patch, Preconditions};
use kube::{Api, Resource, ResourceExt};

use super::{Writer, ignore_not_found};
use crate::decide::Workload;

impl Writer {
    /// Creates a workload, or restores its fields. Returns the new resourceVersion of the workload.
    pub(super) async fn apply_workload(&self, workload: &Workload) -> Result<Option<String>, CallError> {
        match workload {
            Workload::DaemonSet(daemonset) => self.apply_workload_object::<DaemonSet>(daemonset).await,
            Workload::Deployment(deployment) => self.apply_workload_object::<Deployment>(deployment).await,
        }
    }

    /// Deletes a workload. Succeeds if the workload no longer exists. The request contains the UID, so that the API
    /// server never deletes a new workload with the same name.
    pub(super) async fn delete_workload(
        &self,
        workload: &Workload,
        params: DeleteParams,
    ) -> Result<(), CallError> {
        let metadata = workload.metadata();
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let name = metadata.name.as_deref().unwrap_or_default();
        let uid_precondition = Preconditions { uid: metadata.uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(uid_precondition), ..params };
        let client = self.client.clone();
        ignore_not_found(match workload {
            Workload::DaemonSet(_) => {
                let api: Api<DaemonSet> = Api::namespaced(client, namespace);
                call(&self.metrics.api, "delete_workload", api.delete(name, &params)).await.map(drop)
            }
            Workload::Deployment(_) => {
                let api: Api<Deployment> = Api::namespaced(client, namespace);
                call(&self.metrics.api, "delete_workload", api.delete(name, &params)).await.map(drop)
            }
        })
    }

    async fn apply_workload_object<K>(&self, object: &K) -> Result<Option<String>, CallError>
    where
        K: Resource<Scope = NamespaceResourceScope> + Serialize + DeserializeOwned + Clone + Debug,
        K::DynamicType: Default,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &object.namespace().unwrap_or_default());
        let (name, params, patch) = (object.name_any(), self.apply_params(), Patch::Apply(object));
        call(&self.metrics.api, "apply_workload", api.patch(&name, &params, &patch))
            .await
            .map(|applied| applied.resource_version())
    }
}
