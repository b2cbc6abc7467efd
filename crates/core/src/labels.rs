//! The labels of the objects that Akrobateo creates. Pure.

use std::collections::BTreeMap;

/// The label with the Service's name.
pub const SERVICE_NAME: &str = "akrobateo.io/service-name";
/// The label with the Service's namespace.
pub const SERVICE_NAMESPACE: &str = "akrobateo.io/service-namespace";
/// The label with the probe port, on pods whose Service uses the preferred probe port itself. The `NetworkPolicy` of
/// the proxies does not select these pods, because the rules of the policy contain only the preferred port.
pub const PROBE_PORT: &str = "akrobateo.io/probe-port";
/// The recommended label for the application that an object runs; on proxies the value is [`PROXY_APP_NAME`].
pub const APP_NAME: &str = "app.kubernetes.io/name";
/// The recommended label for the program that manages an object; on proxies the value is the name of the operator
/// instance that created the proxies.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The label value of [`APP_NAME`] on proxies.
pub const PROXY_APP_NAME: &str = "akrobateo-lb";

/// Returns the labels of a Service's proxies: on their workload, on their pods, and in their pod selector.
#[must_use]
pub fn proxy_labels(operator_instance: &str, namespace: &str, service: &str) -> BTreeMap<String, String> {
    [
        (APP_NAME, PROXY_APP_NAME),
        (MANAGED_BY, operator_instance),
        (SERVICE_NAME, service),
        (SERVICE_NAMESPACE, namespace),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// Returns the label selector that matches all proxies of an operator.
#[must_use]
pub fn all_proxies_selector(operator_instance: &str) -> String {
    format!("{APP_NAME}={PROXY_APP_NAME},{MANAGED_BY}={operator_instance}")
}
