//! The configuration that all proxies share. Pure.

use std::fmt;

/// The configuration that all proxies share.
#[derive(Clone, Debug)]
pub(crate) struct ProxyConfig {
    pub(crate) proxy_namespace: ProxyNamespace,
    /// The image of the data plane.
    pub(crate) image: String,
}

/// The namespace of the proxies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProxyNamespace {
    /// One namespace for all proxies.
    SharedNamespace(String),
    /// The namespace of each Service. The Service then owns its workload.
    ServiceNamespace,
}

impl fmt::Display for ProxyNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SharedNamespace(namespace) => namespace,
            Self::ServiceNamespace => "@service",
        })
    }
}
