//! The operator's defaults for Services. Pure.

use k8s_openapi::api::core::v1::Toleration;

use super::bounds::ServiceBounds;
use super::client_address::ClientAddress;
use super::ip_mode::{IpMode, IpModeSetting};
use super::node_selector::LabelRequirement;
use super::port_set::PortSet;
use super::workload_spec::WorkloadKind;
use crate::address_type::AddressType;
use crate::node_info::NodePolicy;

/// The operator's settings for Services: the defaults of annotations, and the limits for all Services.
#[derive(Clone, Debug)]
pub struct ServiceDefaults {
    /// True if Services without a loadBalancerClass are eligible.
    pub is_default_class: bool,
    /// The requirements of the administrator's node selector. The annotation of a Service can only add requirements.
    pub requirements: Vec<LabelRequirement>,
    /// The tolerations of the proxies.
    pub tolerations: Vec<Toleration>,
    /// The kind of workload for Services without the annotation.
    pub workload: WorkloadKind,
    /// True if Services may have their own proxies.
    pub allows_dedicated_proxies: bool,
    /// The address that backends see as the client's address, for Services without the annotation.
    pub client_address: ClientAddress,
    /// The number of proxies of a Deployment.
    pub replicas: u16,
    /// The address types to publish, the preferred type first.
    pub address_types: Vec<AddressType>,
    /// The setting of the ipMode for Services without the annotation.
    pub ip_mode: IpModeSetting,
    /// The reason why ipMode VIP is dangerous in this cluster; `None` if VIP is not dangerous.
    pub vip_danger: Option<String>,
    /// The priority class of the proxies; empty if the proxies have no priority class.
    pub priority_class: String,
    /// The ports that no Service may use.
    pub reserved_ports: PortSet,
    /// The rules for reading node objects.
    pub node_policy: NodePolicy,
    /// The limits of the values in annotations.
    pub bounds: ServiceBounds,
}

impl ServiceDefaults {
    /// Returns the ipMode of Services with their own proxies and without the annotation.
    #[must_use]
    pub fn default_ip_mode(&self) -> IpMode {
        match self.ip_mode {
            IpModeSetting::Proxy => IpMode::Proxy,
            IpModeSetting::Auto if self.vip_danger.is_some() => IpMode::Proxy,
            IpModeSetting::Auto | IpModeSetting::Vip => IpMode::Vip,
        }
    }

    /// Returns true if the operator must find out whether ipMode VIP is dangerous. With `--ip-mode=VIP` the
    /// administrator has decided that VIP is not dangerous.
    #[must_use]
    pub fn must_detect_vip_danger(&self) -> bool {
        self.ip_mode != IpModeSetting::Vip
    }
}
