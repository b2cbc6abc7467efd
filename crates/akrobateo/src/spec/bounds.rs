//! The administrator's bounds: settings that no annotation of a Service may exceed. Pure.

use k8s_openapi::api::core::v1::Toleration;

/// Settings of the operator that limit what Services may ask for.
#[derive(Clone, Debug)]
pub(crate) struct ServiceBounds {
    /// The tolerations that annotations may use, besides those of the administrator.
    pub(crate) tolerations: Vec<Toleration>,
    /// The priority classes that annotations may use.
    pub(crate) priority_classes: Vec<String>,
    /// Most ports of a Service.
    pub(crate) max_ports: u16,
}
