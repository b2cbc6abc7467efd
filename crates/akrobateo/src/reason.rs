//! The reasons of conditions and events. Pure.

use std::fmt;

use akrobateo_services::spec::SpecError;

/// The reason of a condition or an event.
///
/// The names are part of the user interface: alerts, scripts and docs/reference.md use them. If Kubernetes' service
/// controller emits an event with this meaning, the reason has the name that Kubernetes uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    // Reasons of the condition.
    Exposed,
    PartlyExposed,
    ProxiesNotReady,
    AgentsNotReady,
    NoAddresses,
    NoNodes,
    NoEndpoints,
    PortConflict,
    PortReserved,
    PortInUse,
    InvalidAnnotation,
    UnsupportedSpec,
    // Reasons that only events have.
    EnsuringLoadBalancer,
    EnsuredLoadBalancer,
    UpdatedLoadBalancer,
    UnAvailableLoadBalancer,
    DeletingLoadBalancer,
    SyncLoadBalancerFailed,
    ClientAddressNotKept,
    DataPathChanged,
    InvalidNodeAddress,
    NodePortsOpen,
    OutdatedProxies,
    SessionAffinityNotKept,
    StatusConflict,
    UnknownAnnotation,
    WorkloadConflict,
}

impl From<&SpecError> for Reason {
    fn from(error: &SpecError) -> Self {
        match error {
            SpecError::InvalidAnnotation { .. } => Self::InvalidAnnotation,
            SpecError::UnsupportedSpec(_) => Self::UnsupportedSpec,
            SpecError::PortReserved(_) => Self::PortReserved,
        }
    }
}

impl Reason {
    /// Returns the name, as in conditions, events and metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Exposed => "Exposed",
            Self::PartlyExposed => "PartlyExposed",
            Self::ProxiesNotReady => "ProxiesNotReady",
            Self::AgentsNotReady => "AgentsNotReady",
            Self::NoAddresses => "NoAddresses",
            Self::NoNodes => "NoNodes",
            Self::NoEndpoints => "NoEndpoints",
            Self::PortConflict => "PortConflict",
            Self::PortReserved => "PortReserved",
            Self::PortInUse => "PortInUse",
            Self::InvalidAnnotation => "InvalidAnnotation",
            Self::UnsupportedSpec => "UnsupportedSpec",
            Self::EnsuringLoadBalancer => "EnsuringLoadBalancer",
            Self::EnsuredLoadBalancer => "EnsuredLoadBalancer",
            Self::UpdatedLoadBalancer => "UpdatedLoadBalancer",
            Self::UnAvailableLoadBalancer => "UnAvailableLoadBalancer",
            Self::DeletingLoadBalancer => "DeletingLoadBalancer",
            Self::SyncLoadBalancerFailed => "SyncLoadBalancerFailed",
            Self::ClientAddressNotKept => "ClientAddressNotKept",
            Self::DataPathChanged => "DataPathChanged",
            Self::InvalidNodeAddress => "InvalidNodeAddress",
            Self::NodePortsOpen => "NodePortsOpen",
            Self::OutdatedProxies => "OutdatedProxies",
            Self::SessionAffinityNotKept => "SessionAffinityNotKept",
            Self::StatusConflict => "StatusConflict",
            Self::UnknownAnnotation => "UnknownAnnotation",
            Self::WorkloadConflict => "WorkloadConflict",
        }
    }

    /// Returns true if the spec of the Service is rejected.
    pub(crate) const fn is_rejection(self) -> bool {
        matches!(self, Self::PortReserved | Self::InvalidAnnotation | Self::UnsupportedSpec)
    }

    /// Returns true if the condition's status is always `True` with this reason. With another reason, the status is
    /// `True` if the Service still has addresses.
    pub(crate) const fn is_exposed(self) -> bool {
        matches!(self, Self::Exposed | Self::PartlyExposed)
    }

    /// Returns true if an event with this reason is a Warning, because the user has to act.
    pub(crate) const fn is_warning(self) -> bool {
        !matches!(
            self,
            Self::Exposed
                | Self::PartlyExposed
                | Self::EnsuringLoadBalancer
                | Self::EnsuredLoadBalancer
                | Self::UpdatedLoadBalancer
                | Self::DeletingLoadBalancer
                | Self::DataPathChanged
        )
    }
}

/// The content of the tables in docs/reference.md. A test compares the tables with the code.
#[cfg(test)]
impl Reason {
    /// All reasons, in the order of the reference: first the reasons of the condition, then the reasons that only
    /// events have.
    pub(crate) const ALL: [Self; 27] = [
        Self::Exposed,
        Self::PartlyExposed,
        Self::ProxiesNotReady,
        Self::AgentsNotReady,
        Self::NoAddresses,
        Self::NoNodes,
        Self::NoEndpoints,
        Self::PortConflict,
        Self::PortReserved,
        Self::PortInUse,
        Self::InvalidAnnotation,
        Self::UnsupportedSpec,
        Self::EnsuringLoadBalancer,
        Self::EnsuredLoadBalancer,
        Self::UpdatedLoadBalancer,
        Self::UnAvailableLoadBalancer,
        Self::DeletingLoadBalancer,
        Self::SyncLoadBalancerFailed,
        Self::ClientAddressNotKept,
        Self::DataPathChanged,
        Self::InvalidNodeAddress,
        Self::NodePortsOpen,
        Self::OutdatedProxies,
        Self::SessionAffinityNotKept,
        Self::StatusConflict,
        Self::UnknownAnnotation,
        Self::WorkloadConflict,
    ];

    /// Returns the meaning of the reason, for docs/reference.md.
    pub(crate) const fn help(self) -> &'static str {
        match self {
            Self::Exposed => "The Service has the addresses of all nodes that should answer.",
            Self::PartlyExposed => {
                "Some of the nodes that should be published are missing from the status. Their proxy or agent \
                 is not ready, they lack an address of a requested type, or another Service owns one of the \
                 ports. The Service also has this reason if some proxies stay outdated after a change. The \
                 message names the first affected nodes."
            }
            Self::ProxiesNotReady => {
                "None of the proxies is ready: they are starting, or they cannot run. The message names the cause."
            }
            Self::AgentsNotReady => {
                "The node agents forward the Service, but none of them can serve it now. The agents are not \
                 installed, do not report, or cannot change the rules of the kernel. The message names the \
                 cause."
            }
            Self::NoAddresses => {
                "Proxies or agents are ready, but the operator cannot publish their nodes. The nodes lack an \
                 address of the requested types, or must not be published."
            }
            Self::NoNodes => {
                "All nodes are excluded by the node selector, or by a taint that is not tolerated."
            }
            Self::NoEndpoints => {
                "A traffic policy is Local, and no node that may run a proxy has a ready endpoint. Published \
                 addresses stay. If the status has no addresses yet, all nodes are published until the Service \
                 has an endpoint, except nodes where another Service has the port and can answer."
            }
            Self::PortConflict => {
                "On every node another Service owns one of the ports, or uses this port as its nodePort or \
                 healthCheckNodePort."
            }
            Self::PortReserved => {
                "One of the ports is reserved for programs of the nodes (`--reserved-ports`)."
            }
            Self::PortInUse => {
                "Another pod uses one of the ports as a hostPort, or a process of the node listens on this port. The program or \
                 the Service that used the port first keeps the port."
            }
            Self::InvalidAnnotation => "An annotation has a value that is not allowed.",
            Self::UnsupportedSpec => "The proxies cannot serve a part of the Service's spec.",
            _ => self.event_help(),
        }
    }

    const fn event_help(self) -> &'static str {
        match self {
            Self::EnsuringLoadBalancer => "The operator created the proxies.",
            Self::EnsuredLoadBalancer => "The Service has addresses now.",
            Self::UpdatedLoadBalancer => "The addresses of the Service changed.",
            Self::UnAvailableLoadBalancer => "The Service no longer has an address.",
            Self::DeletingLoadBalancer => "The operator deleted the proxies.",
            Self::SyncLoadBalancerFailed => {
                "A write to the API server failed. The note names the write and the error. The operator tries again."
            }
            Self::ClientAddressNotKept => {
                "externalTrafficPolicy is Local, but backends see the address of a proxy. The note names the cause."
            }
            Self::DataPathChanged => {
                "The data path changed between the kernel and userspace, so the operator replaces the proxies."
            }
            Self::InvalidNodeAddress => {
                "The annotation `akrobateo.io/address` of a Node has parts that cannot be published. The operator ignores these \
                 parts. If the annotation has no valid address of a family, the operator publishes the addresses of this \
                 family from the Node's status."
            }
            Self::NodePortsOpen => {
                "loadBalancerSourceRanges do not apply to the nodePorts of the Service, so every client can reach the nodePorts."
            }
            Self::OutdatedProxies => {
                "Some proxies still use the settings from before the last change, and the rollout does not continue by \
                 itself. The note names the nodes."
            }
            Self::SessionAffinityNotKept => {
                "sessionAffinity is ClientIP, but all clients of a proxy reach the same backend, because kube-proxy sees only the \
                 address of the proxy."
            }
            Self::StatusConflict => {
                "Another program repeatedly overwrites the addresses or the condition. The note names the field manager of this \
                 program. The operator waits longer before each restore, up to 5 minutes."
            }
            Self::UnknownAnnotation => {
                "The Service has an annotation akrobateo.io/... that Akrobateo does not know. The annotation has no effect."
            }
            Self::WorkloadConflict => {
                "Another program repeatedly changes the DaemonSet or Deployment of the proxies. The note names the \
                 fields, and the field manager of this program. The operator leaves these fields unchanged for hours, and then \
                 restores its own values again."
            }
            _ => "",
        }
    }

    /// Returns true if the condition `akrobateo.io/Exposed` can have this reason.
    pub(crate) const fn is_condition_reason(self) -> bool {
        match self {
            Self::Exposed
            | Self::PartlyExposed
            | Self::ProxiesNotReady
            | Self::AgentsNotReady
            | Self::NoAddresses
            | Self::NoNodes
            | Self::NoEndpoints
            | Self::PortConflict
            | Self::PortReserved
            | Self::PortInUse
            | Self::InvalidAnnotation
            | Self::UnsupportedSpec => true,
            Self::EnsuringLoadBalancer
            | Self::EnsuredLoadBalancer
            | Self::UpdatedLoadBalancer
            | Self::UnAvailableLoadBalancer
            | Self::DeletingLoadBalancer
            | Self::SyncLoadBalancerFailed
            | Self::ClientAddressNotKept
            | Self::DataPathChanged
            | Self::InvalidNodeAddress
            | Self::NodePortsOpen
            | Self::OutdatedProxies
            | Self::SessionAffinityNotKept
            | Self::StatusConflict
            | Self::UnknownAnnotation
            | Self::WorkloadConflict => false,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_of_all_reasons_follows_the_order_of_the_variants() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{reason}");
            assert_eq!(reason.as_str(), format!("{reason:?}"));
            assert!(reason.help().ends_with('.'), "{reason}");
        }
        assert!(Reason::ALL.into_iter().all(|reason| !reason.is_exposed() || reason.is_condition_reason()));
    }
}
