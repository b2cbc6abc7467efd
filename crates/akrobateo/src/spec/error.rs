//! The errors of a Service's spec and annotations, with messages for the user who wrote the Service's manifest. Pure.

use akrobateo_core::HostPort;

use crate::reason::Reason;

/// An error that only a change of the Service, or of the operator's settings, can fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpecError {
    /// The value of an annotation is not allowed.
    #[error("annotation {name} is {value:?}: {reason}; allowed: {allowed}")]
    InvalidAnnotation { name: &'static str, value: String, reason: String, allowed: String },
    /// The API server accepts a part of the spec that proxies cannot serve.
    #[error("{0}")]
    UnsupportedSpec(String),
    /// The nodes need the port themselves.
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
