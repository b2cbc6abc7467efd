//! The errors in a Service's spec and annotations, with messages for the author of the Service's manifest. Pure.

use akrobateo_core::HostPort;

use crate::reason::Reason;

/// An error that remains until the user changes the Service or the operator's settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpecError {
    /// The value of an annotation is not allowed.
    #[error("annotation {name} is {value:?}: {reason}; allowed: {allowed}")]
    InvalidAnnotation { name: &'static str, value: String, reason: String, allowed: String },
    /// The API server accepts a field or value of the spec that the proxies do not support.
    #[error("{0}")]
    UnsupportedSpec(String),
    /// The administrator has reserved the port for programs of the nodes.
    #[error("port {0} is reserved for the nodes by the operator's --reserved-ports; use another port")]
    PortReserved(HostPort),
}

impl SpecError {
    /// Returns the reason for the condition and the event.
    pub(crate) const fn reason(&self) -> Reason {
        match self {
            Self::InvalidAnnotation { .. } => Reason::InvalidAnnotation,
            Self::UnsupportedSpec(_) => Reason::UnsupportedSpec,
            Self::PortReserved(_) => Reason::PortReserved,
        }
    }
}
