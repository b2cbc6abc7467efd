//! Reads the traffic policies of a Service. Pure.

use k8s_openapi::api::core::v1::Service;

/// Returns true if externalTrafficPolicy is Local.
#[must_use]
pub fn is_external_policy_local(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| is_local(spec.external_traffic_policy.as_deref()))
}

/// Returns true if internalTrafficPolicy is Local.
#[must_use]
pub fn is_internal_policy_local(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| is_local(spec.internal_traffic_policy.as_deref()))
}

fn is_local(policy: Option<&str>) -> bool {
    policy == Some("Local")
}
