//! The operator's defaults for Services. Pure.

use k8s_openapi::api::core::v1::Toleration;

use super::bounds::ServiceBounds;
use super::ip_mode::{IpMode, IpModeSetting};
use super::node_selector::Requirement;
use super::port_set::PortSet;
use super::workload_spec::WorkloadKind;
use crate::address_type::AddressType;
use crate::node_info::NodePolicy;

/// The settings of the operator that apply to Services without the corresponding annotation.
#[derive(Clone, Debug)]
pub(crate) struct ServiceDefaults {
    /// True if Services without a loadBalancerClass are eligible.
    pub(crate) default_class: bool,
    /// The administrator's node selector, which each Service's own selector narrows.
    pub(crate) requirements: Vec<Requirement>,
    pub(crate) tolerations: Vec<Toleration>,
    pub(crate) workload: WorkloadKind,
    pub(crate) replicas: u16,
    pub(crate) address_types: Vec<AddressType>,
    pub(crate) ip_mode: IpModeSetting,
    /// The reason why ipMode VIP is dangerous in this cluster; `None` if it is not.
    pub(crate) vip_danger: Option<String>,
    /// The priority class; empty for none.
    pub(crate) priority_class: String,
    pub(crate) reserved_ports: PortSet,
    /// The rules by which nodes are read.
    pub(crate) node_policy: NodePolicy,
    pub(crate) bounds: ServiceBounds,
}

impl ServiceDefaults {
    /// Returns the ipMode of Services without the annotation.
    pub(crate) fn default_ip_mode(&self) -> IpMode {
        match self.ip_mode {
            IpModeSetting::Proxy => IpMode::Proxy,
            IpModeSetting::Auto if self.vip_danger.is_some() => IpMode::Proxy,
            IpModeSetting::Auto | IpModeSetting::Vip => IpMode::Vip,
        }
    }

    /// Returns true if the administrator leaves it to the operator to find out whether ipMode VIP is dangerous.
    pub(crate) fn detects_vip_danger(&self) -> bool {
        self.ip_mode != IpModeSetting::Vip
    }
}
