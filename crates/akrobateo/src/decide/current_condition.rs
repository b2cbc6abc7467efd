//! Reads the condition `akrobateo.io/Exposed` that a Service has now. Pure.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// The type of the condition.
pub(super) const CONDITION_TYPE: &str = "akrobateo.io/Exposed";

/// Returns the current condition of a Service.
pub(super) fn current_condition(service: &Service) -> Option<&Condition> {
    let conditions = service.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().find(|condition| condition.type_ == CONDITION_TYPE)
}
