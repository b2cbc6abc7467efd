//! What a Service asks for, validated once: a `LoadBalancerSpec` cannot be wrong. Pure.

mod annotation_values;
mod data_path;
mod eligibility;
mod error;
mod node_selector;
mod ports;
mod tolerations;

use std::collections::BTreeSet;

use akrobateo_core::{Protocol, ProxyArgs};
use k8s_openapi::api::core::v1::{Service, Toleration};

pub(crate) use annotation_values::WorkloadKind;
pub(crate) use annotation_values::{IpMode, PortSet, ServiceDefaults, Workload};
pub(crate) use eligibility::why_not_eligible;
pub(super) use eligibility::{is_eligible, is_status_ours};
pub(crate) use error::SpecError;
pub(crate) use node_selector::Requirement;
pub(crate) use node_selector::parse as parse_node_selector;
pub(crate) use tolerations::parse as parse_tolerations;

use crate::address_type::AddressType;
use crate::node_info::NodeInfo;

/// A port of a node, as hostPorts hold it.
pub(crate) type HostPort = (Protocol, u16);

/// A wanted Service's wish.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LoadBalancerSpec {
    /// What is forwarded.
    pub(crate) proxy: ProxyArgs,
    /// Where.
    pub(crate) nodes: NodeChoice,
    /// By what.
    pub(crate) workload: Workload,
    pub(crate) priority_class: String,
    /// Which addresses of a node are published, by preference.
    pub(crate) address_types: Vec<AddressType>,
    pub(crate) ip_mode: IpMode,
    /// Whether only nodes with an endpoint may answer, and the client's address is kept.
    pub(crate) local: bool,
}

/// Which nodes may run a Service's proxies.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct NodeChoice {
    pub(crate) requirements: Vec<Requirement>,
    pub(crate) tolerations: Vec<Toleration>,
}

impl NodeChoice {
    /// Whether a node is chosen: by its system, its labels, and its lasting taints.
    pub(crate) fn includes(&self, node: &NodeInfo) -> bool {
        node.linux
            && self.requirements.iter().all(|requirement| requirement.holds(&node.labels))
            && node.taints.iter().all(|taint| tolerations::tolerate(&self.tolerations, taint))
    }
}

impl LoadBalancerSpec {
    /// Reads a wanted Service.
    pub(crate) fn of(service: &Service, defaults: &ServiceDefaults) -> Result<Self, SpecError> {
        let mut proxy = ports::of(service)?;
        (proxy.data_path, proxy.proxy_protocol) = data_path::of(service, &proxy.forwards)?;
        let wish = Self {
            nodes: NodeChoice {
                requirements: annotation_values::node_selector(service, defaults)?,
                tolerations: annotation_values::tolerations(service, defaults)?,
            },
            workload: annotation_values::workload(service, defaults)?,
            priority_class: annotation_values::priority_class(service, defaults)?,
            address_types: annotation_values::address_types(service, defaults)?,
            ip_mode: annotation_values::ip_mode(service, defaults, proxy.data_path)?,
            local: service.spec.as_ref().and_then(|spec| spec.external_traffic_policy.as_deref())
                == Some("Local"),
            proxy,
        };
        match wish.host_ports().into_iter().find(|port| defaults.reserved_ports.contains(*port)) {
            Some(port) => Err(SpecError::PortReserved(port)),
            None => Ok(wish),
        }
    }

    /// How many proxies run when so many nodes may run one.
    pub(crate) fn proxies_on(&self, nodes: usize) -> usize {
        match self.workload {
            Workload::DaemonSet => nodes,
            Workload::Deployment { replicas } => nodes.min(replicas.into()),
        }
    }

    /// The ports that its proxies hold on each of their nodes.
    pub(crate) fn host_ports(&self) -> BTreeSet<HostPort> {
        self.proxy.forwards.iter().map(|forward| (forward.protocol, forward.port.get())).collect()
    }
}
