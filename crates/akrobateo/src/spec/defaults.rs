//! The operator's defaults for Services. Pure.

use k8s_openapi::api::core::v1::Toleration;

use super::ip_mode::IpMode;
use super::node_selector::Requirement;
use super::port_set::PortSet;
use super::workload_spec::WorkloadKind;
use crate::address_type::AddressType;

/// The settings of the operator that apply to Services without the corresponding annotation.
#[derive(Clone, Debug)]
pub(crate) struct ServiceDefaults {
    /// True if Services without a loadBalancerClass are eligible.
    pub(crate) default_class: bool,
    pub(crate) requirements: Vec<Requirement>,
    pub(crate) tolerations: Vec<Toleration>,
    pub(crate) workload: WorkloadKind,
    pub(crate) replicas: u16,
    pub(crate) address_types: Vec<AddressType>,
    /// The ipMode, with `auto` already resolved for this cluster.
    pub(crate) ip_mode: IpMode,
    pub(crate) priority_class: String,
    pub(crate) reserved_ports: PortSet,
}
