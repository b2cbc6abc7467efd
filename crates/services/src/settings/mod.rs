//! The settings that the operator and the node agents share: their flags and environment variables. Pure.

mod names;

use clap::Args;
use k8s_openapi::api::core::v1::Toleration;

use crate::address_type::AddressType;
use crate::node_info::NodePolicy;
use crate::spec::{
    ClientAddress, IpModeSetting, LabelRequirement, PortSet, ServiceBounds, ServiceDefaults, WorkloadKind,
};
use crate::spec::{parse_node_selector, parse_tolerations};
use names::PriorityClassNames;
pub use names::{parse_list, parse_namespace};
use names::{parse_namespace_or_empty, parse_priority_class};

/// The default reserved ports. The TCP ports belong to SSH, BGP, etcd, the API server, and the daemons of Kubernetes.
/// The UDP ports belong to the tunnels of CNIs, such as VXLAN and Geneve, and to the node agents.
const DEFAULT_RESERVED_PORTS: &str =
    "22,179,2379-2380,6443,10248-10250,10256-10259,udp/4789,udp/6081,udp/8472,udp/8478-8479,udp/51820-51821";

/// The flags that decide which Services are served, and with which settings. The operator and the node agents need the
/// same values.
#[derive(Args, Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each field is a flag")]
pub struct ServiceSettings {
    /// Namespace of the Services to watch; all namespaces if empty
    #[arg(long, env = "WATCH_NAMESPACE", value_name = "NAMESPACE", default_value = "")]
    #[arg(value_parser = parse_namespace_or_empty)]
    watch_namespace: String,

    /// Also serve Services without a loadBalancerClass; if false, serve only Services with the class akrobateo.io/lb
    #[arg(long, env = "DEFAULT_CLASS", value_name = "true|false", default_value_t = true, action = clap::ArgAction::Set)]
    default_class: bool,

    /// Ports of the nodes that no Service may use, comma-separated: numbers and ranges with the prefix tcp/ (the
    /// default), udp/ or sctp/; an empty list reserves nothing
    #[arg(long, env = "RESERVED_PORTS", value_name = "PORTS", default_value = DEFAULT_RESERVED_PORTS)]
    reserved_ports: PortSet,

    /// Types of node addresses in order of preference, comma-separated; for each address family the operator publishes
    /// the first type that the node has
    #[arg(
        long,
        env = "ADDRESS_TYPES",
        value_name = "TYPES",
        value_delimiter = ',',
        default_value = "ExternalIP,InternalIP"
    )]
    address_types: Vec<AddressType>,

    /// If true, the annotation akrobateo.io/address of a node replaces the node's own addresses; if false, the
    /// annotation has no effect
    #[arg(long, env = "NODE_ADDRESS_ANNOTATION", value_name = "true|false", default_value_t = true, action = clap::ArgAction::Set)]
    node_address_annotation: bool,

    /// Also publish nodes with the label node.kubernetes.io/exclude-from-external-load-balancers
    #[arg(
        long,
        env = "IGNORE_EXCLUDE_LABEL",
        value_name = "true|false",
        default_value_t = false,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = clap::ArgAction::Set
    )]
    ignore_exclude_label: bool,

    /// The ipMode of published addresses; auto selects Proxy if kube-proxy runs in IPVS mode or another program
    /// replaces kube-proxy, otherwise VIP
    #[arg(long, env = "IP_MODE", value_name = "MODE", default_value = "auto")]
    ip_mode: IpModeSetting,

    /// Label selector for the nodes that may serve Services, in kubectl's syntax; an annotation can only select fewer
    /// nodes [default: all nodes]
    #[arg(long, env = "NODE_SELECTOR", value_name = "SELECTOR", default_value = "")]
    node_selector: NodeSelector,

    /// Tolerations of the proxy pods, as a JSON or YAML list [default: none]
    #[arg(long, env = "TOLERATIONS", value_name = "LIST", default_value = "")]
    tolerations: Tolerations,

    /// Further tolerations that annotations may use, in addition to --tolerations, as a JSON or YAML list [default:
    /// none]
    #[arg(long, env = "ALLOWED_TOLERATIONS", value_name = "LIST", default_value = "")]
    allowed_tolerations: Tolerations,

    /// Programs that forward a Service: Shared (the node agents), or a DaemonSet or Deployment of proxies for each
    /// Service
    #[arg(long, env = "WORKLOAD", value_name = "KIND", default_value = "Shared")]
    workload: WorkloadKind,

    /// If true, Services may have their own proxies (the workloads DaemonSet and Deployment); if false, the operator
    /// rejects such Services, and needs no rights on workloads and pods
    #[arg(long, env = "DEDICATED", value_name = "true|false", default_value_t = true, action = clap::ArgAction::Set)]
    dedicated: bool,

    /// The address that backends see as the client's address in shared mode: keep (the client's own) or masquerade (an
    /// address of the node)
    #[arg(long, env = "CLIENT_ADDRESS", value_name = "ADDRESS", default_value = "keep")]
    client_address: ClientAddress,

    /// Number of proxies of a Deployment, from 1 to 1000
    #[arg(long, env = "REPLICAS", value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1000))]
    replicas: u16,

    /// Name of the priority class of the proxy pods; if empty, the pods have no priority class
    #[arg(long, env = "PRIORITY_CLASS", value_name = "NAME", default_value = "akrobateo-proxy", value_parser = parse_priority_class)]
    priority_class: String,

    /// Further priority classes that annotations may use, in addition to --priority-class, comma-separated [default:
    /// none]
    #[arg(long, env = "ALLOWED_PRIORITY_CLASSES", value_name = "NAMES", default_value = "")]
    allowed_priority_classes: PriorityClassNames,

    /// Maximum number of ports of a Service, from 1 to 1000
    #[arg(long, env = "MAX_PORTS", value_name = "NUMBER", default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=1000))]
    max_ports: u16,
}

/// The value of `--node-selector`. The requirements are not a plain `Vec`, because clap would expect one occurrence of
/// the flag for each requirement.
#[derive(Clone, Debug)]
struct NodeSelector(Vec<LabelRequirement>);

impl std::str::FromStr for NodeSelector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error =
            |reason| format!("{reason}; expected a label selector, for example pool=edge,zone in (a,b)");
        parse_node_selector(text).map(Self).map_err(error)
    }
}

/// The value of `--tolerations`. The tolerations are not a plain `Vec`, because clap would expect one occurrence of the
/// flag for each toleration.
#[derive(Clone, Debug)]
struct Tolerations(Vec<Toleration>);

impl std::str::FromStr for Tolerations {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let example = "[{key: dedicated, operator: Exists}]";
        let error = |reason| format!("{reason}; expected a list of tolerations, for example {example}");
        parse_tolerations(text).map(Self).map_err(error)
    }
}

impl ServiceSettings {
    /// Returns the namespace to watch, or `None` for all namespaces.
    #[must_use]
    pub fn watch_namespace(&self) -> Option<&str> {
        Some(self.watch_namespace.as_str()).filter(|namespace| !namespace.is_empty())
    }

    /// Returns the defaults of Services, and the limits for all Services.
    #[must_use]
    pub fn defaults(&self) -> ServiceDefaults {
        ServiceDefaults {
            is_default_class: self.default_class,
            requirements: self.node_selector.0.clone(),
            tolerations: self.tolerations.0.clone(),
            workload: self.workload,
            allows_dedicated_proxies: self.dedicated,
            client_address: self.client_address,
            replicas: self.replicas,
            address_types: self.address_types.clone(),
            ip_mode: self.ip_mode,
            vip_danger: None,
            priority_class: self.priority_class.clone(),
            reserved_ports: self.reserved_ports.clone(),
            node_policy: NodePolicy {
                reads_address_annotation: self.node_address_annotation,
                ignores_exclude_label: self.ignore_exclude_label,
            },
            bounds: ServiceBounds {
                tolerations: self.allowed_tolerations.0.clone(),
                priority_classes: self.allowed_priority_classes.0.clone(),
                max_ports: self.max_ports,
            },
        }
    }
}
