//! Deletes proxy pods. Does I/O.

use api_client::{CallError, call};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use super::{Writer, ignore_not_found};
use crate::decide::PodReference;

impl Writer {
    /// Deletes a pod. Succeeds if the pod no longer exists, even if a new pod has the same name.
    pub(super) async fn delete_pod(&self, pod: &PodReference) -> Result<(), CallError> {
        let preconditions = Preconditions { uid: Some(pod.uid.clone()), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        match call(&self.metrics.api, "delete_pod", api.delete(&pod.name, &params)).await {
            Err(error) if error.is_conflict() => Ok(()),
            result => ignore_not_found(result.map(drop)),
        }
    }
}
