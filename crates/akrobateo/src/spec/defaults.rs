//! The operator's defaults for Services. Pure.

use k8s_openapi::api::core::v1::Toleration;

use super::bounds::ServiceBounds;
use super::ip_mode::{IpMode, IpModeSetting};
use super::node_selector::LabelRequirement;
use super::port_set::PortSet;
use super::workload_spec::WorkloadKind;
use crate::address_type::AddressType;
use crate::node_info::NodePolicy;

/// The operator's settings for Services: the defaults of annotations, and the limits for all Services.
#[derive(Clone, Debug)]
pub(crate) struct ServiceDefaults {
    /// True if Services without a loadBalancerClass are eligible.
    pub(crate) is_default_class: bool,
    /// The requirements of the administrator's node selector. The annotation of a Service can only add requirements.
    pub(crate) requirements: Vec<LabelRequirement>,
    pub(crate) tolerations: Vec<Toleration>,
    pub(crate) workload: WorkloadKind,
    pub(crate) replicas: u16,
    pub(crate) address_types: Vec<AddressType>,
    pub(crate) ip_mode: IpModeSetting,
    /// The reason why ipMode VIP is dangerous in this cluster; `None` if VIP is not dangerous.
    pub(crate) vip_danger: Option<String>,
    /// The priority class of the proxies; empty if the proxies have no priority class.
    pub(crate) priority_class: String,
    pub(crate) reserved_ports: PortSet,
    /// The rules for reading node objects.
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

    /// Returns true if the operator must detect whether ipMode VIP is dangerous. With `--ip-mode=VIP` the administrator
    /// has decided that VIP is not dangerous.
    pub(crate) fn must_detect_vip_danger(&self) -> bool {
        self.ip_mode != IpModeSetting::Vip
    }
}
