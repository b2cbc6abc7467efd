//! Writes a Service's status. Does I/O.

use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Service, ServiceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::Api;
use kube::api::Patch;

use super::{Writer, apply_params, ignore_not_found};
use crate::call::{CallError, call};
use crate::key::ServiceKey;

impl Writer {
    /// Publishes addresses and condition, unless the Service is gone or, by its `uid`, another one.
    ///
    /// No addresses are published by giving up the field: what somebody else has written there stays.
    pub(super) async fn publish(
        &self,
        key: &ServiceKey,
        uid: &str,
        addresses: &[LoadBalancerIngress],
        condition: Option<&Condition>,
    ) -> Result<(), CallError> {
        let load_balancer =
            (!addresses.is_empty()).then(|| LoadBalancerStatus { ingress: Some(addresses.to_vec()) });
        let conditions = condition.map(|condition| vec![condition.clone()]);
        let given_up = load_balancer.is_none() && conditions.is_none();
        let patch = Service {
            metadata: ObjectMeta { uid: Some(uid.to_owned()), ..ObjectMeta::default() },
            spec: None,
            status: (!given_up).then_some(ServiceStatus { load_balancer, conditions }),
        };
        let api: Api<Service> = Api::namespaced(self.client.clone(), &key.namespace);
        let (params, patch) = (apply_params(), Patch::Apply(&patch));
        ignore_not_found(
            call(&self.metrics, "publish_status", api.patch_status(&key.name, &params, &patch))
                .await
                .map(drop),
        )
    }
}
