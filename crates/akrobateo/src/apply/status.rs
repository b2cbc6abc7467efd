//! Writes the addresses into a Service's status. Does I/O.

use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Service, ServiceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::Patch;
use kube::{Api, Client};

use super::{CallError, as_akrobateo, call, unless_gone};
use crate::key::ServiceKey;

/// Publishes `addresses`, unless the Service is gone or, by its `uid`, another one.
///
/// No addresses are published by giving up the field: what somebody else has written there stays.
pub(super) async fn publish(
    client: &Client,
    key: &ServiceKey,
    uid: &str,
    addresses: &[LoadBalancerIngress],
) -> Result<(), CallError> {
    let status = LoadBalancerStatus { ingress: Some(addresses.to_vec()) };
    let patch = Service {
        metadata: ObjectMeta { uid: Some(uid.to_owned()), ..ObjectMeta::default() },
        spec: None,
        status: (!addresses.is_empty())
            .then(|| ServiceStatus { load_balancer: Some(status), ..ServiceStatus::default() }),
    };
    let api: Api<Service> = Api::namespaced(client.clone(), &key.namespace);
    unless_gone(call(api.patch_status(&key.name, &as_akrobateo(), &Patch::Apply(&patch))).await.map(drop))
}
