//! Why a Service's wish is not granted, in words for its author. Pure.

use akrobateo_core::Protocol;

use crate::reason::Reason;

/// Something that only an edit of the Service can mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpecError {
    /// An annotation's value is not among those allowed.
    #[error("annotation {name} is {value:?}; allowed: {allowed}")]
    InvalidAnnotation { name: &'static str, value: String, allowed: String },
    /// A part of the spec that the API server lets through and proxies cannot serve.
    #[error("{0}")]
    UnsupportedSpec(String),
    /// A port that the nodes need themselves.
    #[error("port {}/{} is reserved for the nodes themselves (the operator's --reserved-ports)", .0.1, upper(.0.0))]
    PortReserved((Protocol, u16)),
}

impl SpecError {
    /// The reason of events and conditions.
    pub(crate) const fn reason(&self) -> Reason {
        match self {
            Self::InvalidAnnotation { .. } => Reason::InvalidAnnotation,
            Self::UnsupportedSpec(_) => Reason::UnsupportedSpec,
            Self::PortReserved(_) => Reason::PortReserved,
        }
    }
}

fn upper(protocol: Protocol) -> String {
    protocol.as_str().to_uppercase()
}
