//! The administrator's bounds: limits for the annotations and ports of Services. Pure.

use k8s_openapi::api::core::v1::Toleration;

/// The settings of the operator that limit the annotations and ports of Services.
#[derive(Clone, Debug)]
pub struct ServiceBounds {
    /// The tolerations that annotations may use in addition to the default tolerations.
    pub tolerations: Vec<Toleration>,
    /// The priority classes that annotations may use in addition to the default priority class.
    pub priority_classes: Vec<String>,
    /// The maximum number of ports of a Service.
    pub max_ports: u16,
}
