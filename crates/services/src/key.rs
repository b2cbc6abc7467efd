//! The namespace and name of a Service. Pure.

use std::fmt;

use akrobateo_core::labels;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

/// The namespace and name of a Service. The Service may no longer exist.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// The namespace.
    pub namespace: String,
    /// The name in the namespace.
    pub name: String,
}

impl ServiceKey {
    /// Returns the key of a Service.
    #[must_use]
    pub fn from_service(service: &Service) -> Self {
        Self { namespace: service.namespace().unwrap_or_default(), name: service.name_any() }
    }

    /// Returns the key in the labels of a proxy's workload or pod, or `None` if a label is missing.
    pub fn from_proxy_labels(object: &impl ResourceExt) -> Option<Self> {
        let label = |name| object.labels().get(name).cloned();
        Some(Self { namespace: label(labels::SERVICE_NAMESPACE)?, name: label(labels::SERVICE_NAME)? })
    }

    /// Returns true if the labels of a proxy's workload or pod name this Service.
    pub fn matches_proxy_labels(&self, object: &impl ResourceExt) -> bool {
        let label = |name| object.labels().get(name).map(String::as_str);
        label(labels::SERVICE_NAMESPACE) == Some(&self.namespace)
            && label(labels::SERVICE_NAME) == Some(&self.name)
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
