//! The operator's configuration: its flags and their environment variables. Pure.

mod lists;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use k8s_openapi::api::core::v1::Toleration;

use crate::address_type::AddressType;
use crate::decide::{ProxyConfig, ProxyNamespace};
use crate::node_info::NodePolicy;
use crate::spec::{IpModeSetting, LabelRequirement, PortSet, ServiceBounds, ServiceDefaults, WorkloadKind};
use crate::spec::{parse_node_selector, parse_tolerations};
use lists::{FormerProxyNamespaces, PriorityClassNames};
use values::{
    parse_image, parse_instance, parse_namespace_or_empty, parse_priority_class, parse_proxy_namespace,
    parse_socket_address,
};

/// The default image of the proxies. The image has the same version as this operator.
const DEFAULT_LB_IMAGE: &str = concat!("ghcr.io/akrobateo/akrobateo-lb:", env!("CARGO_PKG_VERSION"));
/// The default namespace of the proxies. The manifests and the chart create this namespace.
const DEFAULT_LB_NAMESPACE: &str = "akrobateo-proxies";
/// The default reserved ports. The TCP ports belong to SSH, BGP, etcd, the API server, and the daemons of Kubernetes.
/// The UDP ports belong to the tunnels of CNIs, such as VXLAN and Geneve.
const DEFAULT_RESERVED_PORTS: &str =
    "22,179,2379-2380,6443,10248-10250,10256-10259,udp/4789,udp/6081,udp/8472,udp/51820-51821";

/// Gives Services of type LoadBalancer the addresses of the cluster's nodes.
/// In a pod the operator uses the pod's ServiceAccount. Outside a pod the operator uses the kubeconfig.
#[derive(Parser, Clone, Debug)]
#[command(version)]
pub struct OperatorConfig {
    /// Namespace of the Services to watch; all namespaces if empty
    #[arg(long, env = "WATCH_NAMESPACE", value_name = "NAMESPACE", default_value = "")]
    #[arg(value_parser = parse_namespace_or_empty)]
    watch_namespace: String,

    /// Namespace in which the proxies run, or @service for the namespace of each Service
    #[arg(long, env = "LB_NAMESPACE", value_name = "NAMESPACE|@service", default_value = DEFAULT_LB_NAMESPACE, value_parser = parse_proxy_namespace)]
    lb_namespace: ProxyNamespace,

    /// Earlier values of --lb-namespace, comma-separated; the operator deletes the proxies in these namespaces
    /// [default: none]
    #[arg(long, env = "FORMER_LB_NAMESPACES", value_name = "NAMESPACES", default_value = "")]
    former_lb_namespaces: FormerProxyNamespaces,

    /// Name of this operator in its labels, field manager and Lease; operators with different names ignore each other's
    /// proxies
    #[arg(long, env = "INSTANCE", value_name = "NAME", default_value = akrobateo_core::DEFAULT_INSTANCE, value_parser = parse_instance)]
    instance: String,

    /// Container image of the proxies
    #[arg(long, env = "LB_IMAGE", value_name = "IMAGE", default_value = DEFAULT_LB_IMAGE, value_parser = parse_image)]
    lb_image: String,

    /// Also serve Services without a loadBalancerClass; if false, serve only Services with the class akrobateo.io/lb
    #[arg(long, env = "DEFAULT_CLASS", value_name = "true|false", default_value_t = true, action = clap::ArgAction::Set)]
    default_class: bool,

    /// Ports of the nodes that no Service may use, comma-separated: numbers and ranges with the prefix tcp/ (the
    /// default), udp/ or sctp/; an empty list reserves no port
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

    /// Publish the addresses in a node's annotation akrobateo.io/address instead of the addresses in its status; if
    /// false, ignore the annotation
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

    /// Label selector for the nodes that may run proxies, in kubectl's syntax; an annotation can only select fewer
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

    /// Kind of workload that runs the proxies of a Service: DaemonSet or Deployment
    #[arg(long, env = "WORKLOAD", value_name = "KIND", default_value = "DaemonSet")]
    workload: WorkloadKind,

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

    /// IP address and TCP port of the HTTP server for /healthz, /readyz and /metrics
    #[arg(long, env = "HTTP_ADDRESS", value_name = "ADDRESS:PORT", default_value = "[::]:8080")]
    #[arg(value_parser = parse_socket_address)]
    pub(crate) http_address: SocketAddr,

    /// Path of the kubeconfig [default: in a pod its ServiceAccount, otherwise $KUBECONFIG or ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// Context of the kubeconfig [default: its current context]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
}

/// The value of `--node-selector`. The value has its own type, because clap reads a plain `Vec` as one requirement for
/// each occurrence of the flag.
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

/// The value of `--tolerations`. The value has its own type, because clap reads a plain `Vec` as one toleration for
/// each occurrence of the flag.
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

/// The configuration in the form that the planner and the reconciler use.
pub(crate) struct ResolvedConfig {
    /// The configuration of the proxies that is the same for all Services.
    pub(crate) proxy_config: ProxyConfig,
    /// The defaults for Services without annotations.
    pub(crate) defaults: ServiceDefaults,
}

impl OperatorConfig {
    /// Returns the namespace to watch, or `None` for all namespaces.
    pub(crate) fn watch_namespace(&self) -> Option<&str> {
        Some(self.watch_namespace.as_str()).filter(|namespace| !namespace.is_empty())
    }

    /// Returns the settings of the proxies and the defaults of Services.
    pub(crate) fn resolve(&self) -> ResolvedConfig {
        ResolvedConfig {
            proxy_config: ProxyConfig {
                instance: self.instance.clone(),
                proxy_namespace: self.lb_namespace.clone(),
                former_proxy_namespaces: self.former_lb_namespaces.0.clone(),
                image: self.lb_image.clone(),
            },
            defaults: ServiceDefaults {
                is_default_class: self.default_class,
                requirements: self.node_selector.0.clone(),
                tolerations: self.tolerations.0.clone(),
                workload: self.workload,
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
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use akrobateo_core::{HostPort, Protocol};

    use super::*;
    use crate::spec::IpMode;

    fn parse(args: &[&str]) -> Result<OperatorConfig, clap::Error> {
        OperatorConfig::try_parse_from(std::iter::once(&"akrobateo").chain(args))
    }

    #[test]
    fn operator_watches_all_namespaces_by_default() {
        assert_eq!(parse(&[]).unwrap().watch_namespace(), None);
        assert_eq!(parse(&["--watch-namespace="]).unwrap().watch_namespace(), None);
        assert_eq!(parse(&["--watch-namespace=shop"]).unwrap().watch_namespace(), Some("shop"));
    }

    #[test]
    fn proxies_run_in_the_namespace_akrobateo_proxies_by_default() {
        let proxy_namespace = |args: &[&str]| {
            let config = parse(args).unwrap();
            config.resolve().proxy_config.proxy_namespace.to_string()
        };
        assert_eq!(proxy_namespace(&[]), "akrobateo-proxies");
        assert_eq!(proxy_namespace(&["--lb-namespace=proxies"]), "proxies");
        assert_eq!(proxy_namespace(&["--lb-namespace=@service"]), "@service");
    }

    #[test]
    fn ip_mode_auto_is_proxy_if_vip_is_dangerous() {
        let ip_mode = |args: &[&str], danger: Option<&str>| {
            let mut defaults = parse(args).unwrap().resolve().defaults;
            defaults.vip_danger = danger.map(str::to_owned);
            defaults.default_ip_mode()
        };
        let danger_reason = Some("kube-proxy runs in IPVS mode");
        assert_eq!((ip_mode(&[], None), ip_mode(&[], danger_reason)), (IpMode::Vip, IpMode::Proxy));
        assert_eq!(ip_mode(&["--ip-mode=VIP"], danger_reason), IpMode::Vip);
        assert_eq!(ip_mode(&["--ip-mode=Proxy"], None), IpMode::Proxy);
    }

    #[test]
    fn lists_of_namespaces_and_priority_classes_are_comma_separated() {
        let config =
            parse(&["--former-lb-namespaces=kube-system, @service", "--allowed-priority-classes=a,b"])
                .unwrap();
        let ResolvedConfig { proxy_config, defaults } = config.resolve();
        let former_namespaces: Vec<_> =
            proxy_config.former_proxy_namespaces.iter().map(ToString::to_string).collect();
        assert_eq!(former_namespaces, ["kube-system", "@service"]);
        assert_eq!(defaults.bounds.priority_classes, ["a", "b"]);
        let ResolvedConfig { proxy_config, defaults } = parse(&[]).unwrap().resolve();
        assert_eq!(proxy_config.former_proxy_namespaces, []);
        assert!(defaults.bounds.priority_classes.is_empty() && defaults.bounds.tolerations.is_empty());
    }

    #[test]
    fn reserved_ports_default_to_the_ports_that_nodes_need() {
        let is_reserved = |args: &[&str], protocol, port| {
            parse(args).unwrap().reserved_ports.contains(HostPort { protocol, port })
        };
        for port in [22, 179, 2379, 2380, 6443, 10_248, 10_250, 10_256, 10_259] {
            assert!(is_reserved(&[], Protocol::Tcp, port), "tcp/{port}");
            assert!(!is_reserved(&[], Protocol::Udp, port), "udp/{port}");
        }
        for port in [4789, 6081, 8472, 51_820, 51_821] {
            assert!(is_reserved(&[], Protocol::Udp, port), "udp/{port}");
            assert!(!is_reserved(&[], Protocol::Tcp, port), "tcp/{port}");
        }
        assert!(![80, 443, 10_251].iter().any(|&port| is_reserved(&[], Protocol::Tcp, port)));
        assert!(!is_reserved(&["--reserved-ports="], Protocol::Tcp, 22));
        assert!(is_reserved(&["--reserved-ports=22,udp/53"], Protocol::Udp, 53));
    }

    #[test]
    fn error_of_an_invalid_flag_value_lists_the_expected_values() {
        for (flag, expected) in [
            ("--watch-namespace=Shop", "lower-case"),
            ("--lb-namespace=", "lower-case"),
            ("--lb-namespace=a_b", "@service"),
            ("--former-lb-namespaces=a_b", "@service"),
            ("--instance=Lb", "lower-case"),
            ("--instance=a-name-of-21-letters-x", "1 to 20"),
            ("--allowed-tolerations={", "list of tolerations"),
            ("--allowed-priority-classes=a_b", "PriorityClass"),
            ("--priority-class=a_b", "PriorityClass"),
            ("--max-ports=0", "1..=1000"),
            ("--lb-image=", "expected an image"),
            ("--reserved-ports=ssh", "65535"),
            ("--reserved-ports=9-3", "range"),
            ("--reserved-ports=icmp/1", "udp/ or sctp/"),
            ("--address-types=Hostname", "ExternalIP, InternalIP"),
            ("--ip-mode=vip", "auto, VIP, Proxy"),
            ("--node-selector=a b", "label selector"),
            ("--tolerations={", "list of tolerations"),
            ("--workload=daemonset", "DaemonSet, Deployment"),
            ("--replicas=0", "1..=1000"),
            ("--http-address=8080", "0.0.0.0:8080"),
        ] {
            let error = parse(&[flag]).unwrap_err().to_string();
            assert!(error.contains(expected), "{flag}: {error}");
        }
    }
}
