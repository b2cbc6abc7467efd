//! The effect of a change of a Service's endpoints. Pure.

use akrobateo_services::spec::is_internal_policy_local;
use k8s_openapi::api::core::v1::Service;

/// The effect of a change of a Service's endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndpointChange {
    /// The change has no effect.
    None,
    /// The change affects only the decision about the Service.
    Decision,
    /// The change also affects the port allocation.
    Allocation,
}

impl EndpointChange {
    /// Returns the effect on a Service with externalTrafficPolicy Local. `have_nodes_changed` is true if other nodes have
    /// an endpoint now. `is_contested` is true if the last allocation read these nodes.
    pub(super) const fn new(have_nodes_changed: bool, is_contested: bool) -> Self {
        match (have_nodes_changed, is_contested) {
            (false, _) => Self::None,
            (true, false) => Self::Decision,
            (true, true) => Self::Allocation,
        }
    }

    /// Returns the effect on a Service without externalTrafficPolicy Local. Only internalTrafficPolicy Local makes its
    /// decision depend on the endpoints.
    pub(super) fn without_external_policy_local(service: Option<&Service>) -> Self {
        if service.is_some_and(is_internal_policy_local) { Self::Decision } else { Self::None }
    }
}
