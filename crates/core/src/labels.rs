//! The labels by which what Akrobateo made is found again.

use std::collections::BTreeMap;

/// The Service's name.
pub const SERVICE_NAME: &str = "akrobateo.io/service-name";
/// The Service's namespace.
pub const SERVICE_NAMESPACE: &str = "akrobateo.io/service-namespace";
/// The recommended label for what an object is, here [`PROXY`].
pub const APP_NAME: &str = "app.kubernetes.io/name";
/// The recommended label for who looks after an object, here [`crate::FIELD_MANAGER`].
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The value of [`APP_NAME`] on proxies.
pub const PROXY: &str = "akrobateo-lb";

/// The labels of a Service's proxy: on its workload, its pods, and in its pod selector.
#[must_use]
pub fn of_proxy(namespace: &str, service: &str) -> BTreeMap<String, String> {
    [
        (APP_NAME, PROXY),
        (MANAGED_BY, crate::FIELD_MANAGER),
        (SERVICE_NAME, service),
        (SERVICE_NAMESPACE, namespace),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// The label selector that finds the proxies of all Services.
#[must_use]
pub fn all_proxies() -> String {
    format!("{APP_NAME}={PROXY},{MANAGED_BY}={}", crate::FIELD_MANAGER)
}
