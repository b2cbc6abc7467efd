//! The validated spec of one Service. Pure.

use std::collections::BTreeSet;

use akrobateo_core::{Family, Forward, Frontend, HostPort, ProxyArgs};
use k8s_openapi::api::core::v1::Service;

use super::client_address::ClientAddress;
use super::defaults::ServiceDefaults;
use super::error::SpecError;
use super::ip_mode::IpMode;
use super::node_selection::NodeSelection;
use super::traffic_policies::{is_external_policy_local, is_internal_policy_local};
use super::workload_spec::{ProxyWorkload, WorkloadSpec};
use super::{annotation_values, data_path, ports};
use crate::address_type::AddressType;

/// The validated spec of an eligible Service, with the operator's defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadBalancerSpec {
    /// The arguments of the proxies.
    pub proxy_args: ProxyArgs,
    /// The nodes that may serve the Service.
    pub nodes: NodeSelection,
    /// The programs that forward the packets.
    pub workload: WorkloadSpec,
    /// The priority class of the proxies; empty if they have none.
    pub priority_class: String,
    /// The address types to publish, the preferred type first.
    pub address_types: Vec<AddressType>,
    /// The address that endpoints see as the client's address. Only the node agents can keep the client's address.
    pub client_address: ClientAddress,
    /// The ipMode of the published addresses.
    pub ip_mode: IpMode,
    /// The address families of the Service, in the Service's order.
    pub families: Vec<Family>,
    /// True for externalTrafficPolicy Local: only nodes with a ready endpoint are published, and backends see the
    /// client's address.
    pub is_external_traffic_policy_local: bool,
    /// True for internalTrafficPolicy Local: clients inside the cluster, such as proxies, reach only the endpoints of
    /// their node.
    pub is_internal_traffic_policy_local: bool,
}

impl LoadBalancerSpec {
    /// Validates the spec and the annotations of an eligible Service.
    pub fn from_service(service: &Service, defaults: &ServiceDefaults) -> Result<Self, SpecError> {
        let mut proxy_args = ports::read_proxy_args(service, defaults.bounds.max_ports)?;
        (proxy_args.data_path, proxy_args.proxy_protocol) =
            data_path::read_data_path_and_proxy_protocol(service, &proxy_args.forwards)?;
        let workload = annotation_values::read_workload(service, defaults, proxy_args.data_path)?;
        let spec = Self {
            nodes: NodeSelection {
                requirements: annotation_values::read_node_selector(service, defaults)?,
                tolerations: annotation_values::read_tolerations(service, defaults)?,
            },
            workload,
            client_address: annotation_values::read_client_address(service, defaults)?,
            priority_class: annotation_values::read_priority_class(service, defaults)?,
            address_types: annotation_values::read_address_types(service, defaults)?,
            ip_mode: annotation_values::read_ip_mode(service, defaults, workload, proxy_args.data_path)?,
            families: families(service),
            is_external_traffic_policy_local: is_external_policy_local(service),
            is_internal_traffic_policy_local: is_internal_policy_local(service),
            proxy_args,
        };
        match spec.host_ports().into_iter().find(|port| defaults.reserved_ports.contains(*port)) {
            Some(port) => Err(SpecError::PortReserved(port)),
            None => Ok(spec),
        }
    }

    /// Returns the families whose addresses are published, in the Service's order.
    ///
    /// If the source ranges have only one family, the proxies deny all clients of the other family, but kube-proxy
    /// allows all these clients. Therefore, with ipMode VIP, a family without a source range is not published.
    pub fn published_families(&self) -> impl Iterator<Item = Family> {
        let is_published = |family: &Family| self.ip_mode == IpMode::Proxy || self.has_source_range(*family);
        self.families.iter().copied().filter(is_published)
    }

    /// Returns true if the source ranges allow clients of this family. A Service without source ranges allows all
    /// clients.
    #[must_use]
    pub fn has_source_range(&self, family: Family) -> bool {
        let mut sources = self.proxy_args.sources.iter();
        sources.len() == 0 || sources.any(|range| Family::from_ip(range.addr()) == family)
    }

    /// Returns the number of proxies that should run if proxies may run on `node_count` nodes.
    #[must_use]
    pub fn proxy_count(&self, node_count: usize) -> usize {
        match self.workload {
            WorkloadSpec::Shared => 0,
            WorkloadSpec::Dedicated(ProxyWorkload::DaemonSet) => node_count,
            WorkloadSpec::Dedicated(ProxyWorkload::Deployment { replicas }) => {
                node_count.min(replicas.into())
            }
        }
    }

    /// Returns true if the node agents forward the Service.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.workload == WorkloadSpec::Shared
    }

    /// Returns the address families, protocols and ports that clients of the Service use.
    #[must_use]
    pub fn frontends(&self) -> BTreeSet<Frontend> {
        let frontend = |forward: &Forward| Frontend {
            family: Family::from_ip(forward.target.ip()),
            protocol: forward.protocol,
            port: forward.port,
        };
        self.proxy_args.forwards.iter().map(frontend).collect()
    }

    /// Returns the ports that each proxy occupies on its node.
    pub fn host_ports(&self) -> BTreeSet<HostPort> {
        self.frontends().into_iter().map(Frontend::host_port).collect()
    }
}

fn families(service: &Service) -> Vec<Family> {
    let names = service.spec.iter().flat_map(|spec| spec.ip_families.iter().flatten());
    names.filter_map(|name| Family::from_name(name)).collect()
}
