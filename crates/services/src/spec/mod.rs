//! Validates the annotations and the spec of a Service, and decides if the Service is eligible. Pure.

mod annotation;
mod annotation_values;
mod bounds;
mod client_address;
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
mod valid_settings;
mod workload_spec;

pub use bounds::ServiceBounds;
pub use client_address::ClientAddress;
pub use defaults::ServiceDefaults;
pub use eligibility::{ineligibility_reason, is_eligible};
pub use error::SpecError;
pub use ip_mode::{IpMode, IpModeSetting};
pub use load_balancer_spec::LoadBalancerSpec;
pub use node_selection::NodeSelection;
pub use node_selector::{LabelRequirement, parse as parse_node_selector};
pub use port_set::PortSet;
pub use tolerations::{parse as parse_tolerations, tolerates};
pub use traffic_policies::{is_external_policy_local, is_internal_policy_local};
pub use valid_settings::valid_settings;
pub use workload_spec::{ProxyWorkload, WorkloadKind, WorkloadSpec};
