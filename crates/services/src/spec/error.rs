//! The errors in a Service's spec and annotations, with messages for the author of the Service's manifest. Pure.

use akrobateo_core::HostPort;

/// An error that remains until the user changes the Service or the operator's settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The value of an annotation is not allowed.
    #[error("annotation {name} is {value:?}: {reason}; allowed: {allowed_values}")]
    InvalidAnnotation {
        /// The name of the annotation.
        name: &'static str,
        /// The value of the annotation.
        value: String,
        /// The reason why the value is not allowed.
        reason: String,
        /// The allowed values.
        allowed_values: String,
    },
    /// The spec has a field or value that the API server accepts, but that the proxies do not support.
    #[error("{0}")]
    UnsupportedSpec(String),
    /// The administrator has reserved the port for programs of the nodes.
    #[error(
        "port {0} is reserved for the nodes by the setting RESERVED_PORTS (--reserved-ports); use another port, or ask the administrator to change the setting"
    )]
    PortReserved(HostPort),
}
