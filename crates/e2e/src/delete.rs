//! Deletes objects that may not exist. Does I/O.

use std::fmt::Debug;

use k8s_openapi::serde::de::DeserializeOwned;
use kube::Api;
use kube::api::DeleteParams;

use crate::failure::Failure;

/// Deletes an object. Succeeds if the object does not exist.
pub(crate) async fn delete_if_exists<K: Clone + DeserializeOwned + Debug>(
    api: &Api<K>,
    name: &str,
    params: &DeleteParams,
) -> Result<(), Failure> {
    match api.delete(name, params).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        result => result.map(drop).map_err(Failure::from),
    }
}
