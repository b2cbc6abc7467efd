//! The validated spec of one Service. Pure.

use std::collections::BTreeSet;

use akrobateo_core::{HostPort, ProxyArgs};
use k8s_openapi::api::core::v1::Service;

use super::defaults::ServiceDefaults;
use super::error::SpecError;
use super::ip_mode::IpMode;
use super::node_selection::NodeSelection;
use super::workload_spec::WorkloadSpec;
use super::{annotation_values, data_path, ports};
use crate::address_type::AddressType;

/// The validated spec of an eligible Service, with the operator's defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LoadBalancerSpec {
    /// The arguments of the proxies.
    pub(crate) proxy_args: ProxyArgs,
    /// The nodes that may run proxies.
    pub(crate) nodes: NodeSelection,
    pub(crate) workload: WorkloadSpec,
    pub(crate) priority_class: String,
    /// The address types to publish, by preference.
    pub(crate) address_types: Vec<AddressType>,
    pub(crate) ip_mode: IpMode,
    /// True for externalTrafficPolicy Local: only nodes with a ready endpoint answer, and the client's address is kept.
    pub(crate) is_traffic_policy_local: bool,
}

impl LoadBalancerSpec {
    /// Validates the spec and the annotations of an eligible Service.
    pub(crate) fn from_service(service: &Service, defaults: &ServiceDefaults) -> Result<Self, SpecError> {
        let mut proxy_args = ports::proxy_args(service)?;
        (proxy_args.data_path, proxy_args.proxy_protocol) =
            data_path::data_path_and_proxy_protocol(service, &proxy_args.forwards)?;
        let traffic_policy = service.spec.as_ref().and_then(|spec| spec.external_traffic_policy.as_deref());
        let spec = Self {
            nodes: NodeSelection {
                requirements: annotation_values::node_selector(service, defaults)?,
                tolerations: annotation_values::tolerations(service, defaults)?,
            },
            workload: annotation_values::workload(service, defaults)?,
            priority_class: annotation_values::priority_class(service, defaults)?,
            address_types: annotation_values::address_types(service, defaults)?,
            ip_mode: annotation_values::ip_mode(service, defaults, proxy_args.data_path)?,
            is_traffic_policy_local: traffic_policy == Some("Local"),
            proxy_args,
        };
        match spec.host_ports().into_iter().find(|port| defaults.reserved_ports.contains(*port)) {
            Some(port) => Err(SpecError::PortReserved(port)),
            None => Ok(spec),
        }
    }

    /// Returns the number of proxies that should run if `node_count` nodes may run a proxy.
    pub(crate) fn proxy_count(&self, node_count: usize) -> usize {
        match self.workload {
            WorkloadSpec::DaemonSet => node_count,
            WorkloadSpec::Deployment { replicas } => node_count.min(replicas.into()),
        }
    }

    /// Returns the ports that each proxy occupies on its node.
    pub(crate) fn host_ports(&self) -> BTreeSet<HostPort> {
        let forwards = self.proxy_args.forwards.iter();
        forwards.map(|forward| HostPort { protocol: forward.protocol, port: forward.port.get() }).collect()
    }
}
