//! Writes the status of Services. Does I/O.

use akrobateo_services::key::ServiceKey;
use api_client::{CallError, call};
use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Service, ServiceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::Api;
use kube::api::Patch;

use super::{Writer, ignore_not_found};

impl Writer {
    /// Applies addresses and condition to the Service with this `uid`, and returns the new resourceVersion of the
    /// Service. Succeeds if the Service no longer exists.
    ///
    /// If `addresses` is empty, the request omits the field `loadBalancer`. Server-side apply then removes the
    /// operator's addresses, and keeps the addresses of other field managers.
    pub(super) async fn patch_status(
        &self,
        key: &ServiceKey,
        uid: &str,
        addresses: &[LoadBalancerIngress],
        condition: Option<&Condition>,
    ) -> Result<Option<String>, CallError> {
        let load_balancer =
            (!addresses.is_empty()).then(|| LoadBalancerStatus { ingress: Some(addresses.to_vec()) });
        let conditions = condition.map(|condition| vec![condition.clone()]);
        let is_empty = load_balancer.is_none() && conditions.is_none();
        let patch = Service {
            metadata: ObjectMeta { uid: Some(uid.to_owned()), ..ObjectMeta::default() },
            spec: None,
            status: (!is_empty).then_some(ServiceStatus { load_balancer, conditions }),
        };
        let api: Api<Service> = Api::namespaced(self.client.clone(), &key.namespace);
        let (params, patch) = (self.apply_params(), Patch::Apply(&patch));
        ignore_not_found(
            call(&self.metrics.api, "publish_status", api.patch_status(&key.name, &params, &patch))
                .await
                .map(|service| service.metadata.resource_version),
        )
    }
}
