//! Validates the annotations and the spec of a Service, and decides if the Service is eligible. Pure.

mod annotation;
mod annotation_values;
mod bounds;
mod data_path;
mod defaults;
mod eligibility;
mod error;
mod ip_mode;
mod load_balancer_spec;
mod node_selection;
mod node_selector;
mod port_set;
mod ports;
mod tolerations;
mod traffic_policies;
mod workload_spec;

pub(crate) use bounds::ServiceBounds;
pub(crate) use defaults::ServiceDefaults;
pub(crate) use eligibility::{ineligibility_reason, is_eligible};
pub(crate) use error::SpecError;
pub(crate) use ip_mode::{IpMode, IpModeSetting};
pub(crate) use load_balancer_spec::LoadBalancerSpec;
pub(crate) use node_selection::NodeSelection;
pub(crate) use node_selector::{LabelRequirement, parse as parse_node_selector};
pub(crate) use port_set::PortSet;
pub(crate) use tolerations::{parse as parse_tolerations, tolerates};
pub(crate) use traffic_policies::{is_external_policy_local, is_internal_policy_local};
pub(crate) use workload_spec::{WorkloadKind, WorkloadSpec};
