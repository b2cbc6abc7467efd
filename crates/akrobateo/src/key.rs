//! The identity of a Service: what a reconcile is about. Pure.

use std::fmt;

use akrobateo_core::labels;
use kube::ResourceExt;

/// Names a Service, whether or not it exists.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ServiceKey {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl ServiceKey {
    /// The key of a Service.
    pub(crate) fn of(service: &k8s_openapi::api::core::v1::Service) -> Self {
        Self { namespace: service.namespace().unwrap_or_default(), name: service.name_any() }
    }

    /// The Service for which `object`, a proxy's workload or pod, was made, by its labels.
    pub(crate) fn of_proxy(object: &impl ResourceExt) -> Option<Self> {
        let label = |name| object.labels().get(name).cloned();
        Some(Self { namespace: label(labels::SERVICE_NAMESPACE)?, name: label(labels::SERVICE_NAME)? })
    }

    /// Whether `object`, a proxy's workload or pod, was made for this Service.
    pub(crate) fn is_of_proxy(&self, object: &impl ResourceExt) -> bool {
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
