//! The configuration that all proxies share. Pure.

use std::fmt;

/// The configuration that all proxies share.
#[derive(Clone, Debug)]
pub(crate) struct ProxyConfig {
    pub(crate) placement: Placement,
    /// The image of the data plane.
    pub(crate) image: String,
}

/// The namespace of the proxies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// One namespace for all proxies.
    SharedNamespace(String),
    /// The namespace of each Service, which owns its workload.
    ServiceNamespace,
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SharedNamespace(namespace) => namespace,
            Self::ServiceNamespace => "@service",
        })
    }
}
