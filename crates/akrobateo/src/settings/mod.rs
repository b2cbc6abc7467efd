//! The operator's configuration: its flags and their environment variables. Pure.

mod values;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use k8s_openapi::api::core::v1::Toleration;

use crate::address_type::AddressType;
use crate::decide::{ProxyConfig, ProxyNamespace};
use crate::spec::{IpMode, PortSet, Requirement, ServiceDefaults, WorkloadKind};
use crate::spec::{parse_node_selector, parse_tolerations};
use values::{image, parse_namespace_or_empty, parse_proxy_namespace, parse_socket_address};

/// The proxies' image of the same version as this operator.
const DEFAULT_LB_IMAGE: &str = concat!("ghcr.io/akrobateo/akrobateo-lb:", env!("CARGO_PKG_VERSION"));
/// The ports that a node needs for SSH, BGP, etcd, the API server, and the daemons of Kubernetes.
const DEFAULT_RESERVED_PORTS: &str = "22,179,2379-2380,6443,10248-10250,10256-10259";

/// Gives Services of type LoadBalancer the addresses of the cluster's nodes.
///
/// In a pod the operator uses the pod's ServiceAccount, elsewhere the kubeconfig.
#[derive(Parser, Clone, Debug)]
#[command(version)]
pub struct OperatorConfig {
    /// Namespace of the Services to watch; all namespaces if empty
    #[arg(long, env = "WATCH_NAMESPACE", value_name = "NAMESPACE", default_value = "")]
    #[arg(value_parser = parse_namespace_or_empty)]
    watch_namespace: String,

    /// Namespace in which the proxies run, or @service for the namespace of each Service [default: the operator's
    /// namespace; kube-system outside a cluster]
    #[arg(long, env = "LB_NAMESPACE", value_name = "NAMESPACE|@service", value_parser = parse_proxy_namespace)]
    lb_namespace: Option<ProxyNamespace>,

    /// Container image of the proxies
    #[arg(long, env = "LB_IMAGE", value_name = "IMAGE", default_value = DEFAULT_LB_IMAGE, value_parser = image)]
    lb_image: String,

    /// Serve Services without a loadBalancerClass too; if false, serve only class akrobateo.io/lb
    #[arg(long, env = "DEFAULT_CLASS", value_name = "true|false", default_value_t = true, action = clap::ArgAction::Set)]
    default_class: bool,

    /// TCP ports of the nodes that no Service may use: numbers and ranges, comma-separated; empty reserves none
    #[arg(long, env = "RESERVED_PORTS", value_name = "PORTS", default_value = DEFAULT_RESERVED_PORTS)]
    reserved_ports: PortSet,

    /// Types of node addresses, comma-separated, in order of preference; the operator publishes the addresses of the
    /// first type that a node has
    #[arg(
        long,
        env = "ADDRESS_TYPES",
        value_name = "TYPES",
        value_delimiter = ',',
        default_value = "ExternalIP,InternalIP"
    )]
    address_types: Vec<AddressType>,

    /// The ipMode of published addresses; auto is Proxy if kube-proxy runs in IPVS mode, otherwise VIP
    #[arg(long, env = "IP_MODE", value_name = "MODE", default_value = "auto")]
    ip_mode: IpModeSetting,

    /// Label selector for the nodes that may run proxies, in kubectl's syntax [default: all nodes]
    #[arg(long, env = "NODE_SELECTOR", value_name = "SELECTOR", default_value = "")]
    node_selector: NodeSelector,

    /// Tolerations of the proxy pods, as a JSON or YAML list [default: none]
    #[arg(long, env = "TOLERATIONS", value_name = "LIST", default_value = "")]
    tolerations: Tolerations,

    /// Kind of workload that runs the proxies of a Service: DaemonSet or Deployment
    #[arg(long, env = "WORKLOAD", value_name = "KIND", default_value = "DaemonSet")]
    workload: WorkloadKind,

    /// Number of proxies of a Deployment, from 1 to 1000
    #[arg(long, env = "REPLICAS", value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1000))]
    replicas: u16,

    /// Name of the priority class of the proxy pods
    #[arg(long, env = "PRIORITY_CLASS", value_name = "NAME", default_value = "system-node-critical")]
    priority_class: String,

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

/// The value of `--ip-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "verbatim")]
enum IpModeSetting {
    #[value(name = "auto")]
    Auto,
    #[value(name = "VIP")]
    Vip,
    Proxy,
}

/// The value of `--node-selector`. This is a separate type, because with a plain `Vec` clap would expect exactly
/// one requirement in each occurrence of the flag.
#[derive(Clone, Debug)]
struct NodeSelector(Vec<Requirement>);

impl std::str::FromStr for NodeSelector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error =
            |reason| format!("{reason}; expected a label selector, for example pool=edge,zone in (a,b)");
        parse_node_selector(text).map(Self).map_err(error)
    }
}

/// The value of `--tolerations`. This is a separate type, because clap would read a plain `Vec` as one toleration per
/// occurrence of the flag.
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

/// The configuration of the operator in its cluster, with all detected values filled in.
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

    /// Returns the configured ipMode, or `None` for auto.
    pub(crate) fn ip_mode(&self) -> Option<IpMode> {
        match self.ip_mode {
            IpModeSetting::Auto => None,
            IpModeSetting::Vip => Some(IpMode::Vip),
            IpModeSetting::Proxy => Some(IpMode::Proxy),
        }
    }

    /// Resolves the values that depend on the cluster. The proxies run in `own_namespace`, the namespace of the
    /// operator, unless `--lb-namespace` is set.
    pub(crate) fn resolve(&self, own_namespace: &str, ip_mode: IpMode) -> ResolvedConfig {
        let shared = || ProxyNamespace::SharedNamespace(own_namespace.to_owned());
        ResolvedConfig {
            proxy_config: ProxyConfig {
                proxy_namespace: self.lb_namespace.clone().unwrap_or_else(shared),
                image: self.lb_image.clone(),
            },
            defaults: ServiceDefaults {
                default_class: self.default_class,
                requirements: self.node_selector.0.clone(),
                tolerations: self.tolerations.0.clone(),
                workload: self.workload,
                replicas: self.replicas,
                address_types: self.address_types.clone(),
                ip_mode,
                priority_class: self.priority_class.clone(),
                reserved_ports: self.reserved_ports.clone(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use akrobateo_core::{HostPort, Protocol};

    use super::*;

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
    fn lb_namespace_overrides_the_namespace_of_the_operator() {
        let proxy_namespace = |args: &[&str]| {
            let config = parse(args).unwrap();
            config.resolve("own", IpMode::Vip).proxy_config.proxy_namespace.to_string()
        };
        assert_eq!(proxy_namespace(&[]), "own");
        assert_eq!(proxy_namespace(&["--lb-namespace=proxies"]), "proxies");
        assert_eq!(proxy_namespace(&["--lb-namespace=@service"]), "@service");
    }

    #[test]
    fn ip_mode_auto_configures_no_ip_mode() {
        assert_eq!(parse(&[]).unwrap().ip_mode(), None);
        assert_eq!(parse(&["--ip-mode=VIP"]).unwrap().ip_mode(), Some(IpMode::Vip));
        assert_eq!(parse(&["--ip-mode=Proxy"]).unwrap().ip_mode(), Some(IpMode::Proxy));
    }

    #[test]
    fn reserved_ports_default_to_the_ports_that_nodes_need() {
        let is_reserved = |args: &[&str], port| {
            parse(args).unwrap().reserved_ports.contains(HostPort { protocol: Protocol::Tcp, port })
        };
        assert!(
            [22, 179, 2379, 2380, 6443, 10_248, 10_250, 10_256, 10_259]
                .iter()
                .all(|&port| is_reserved(&[], port))
        );
        assert!(![80, 443, 10_251].iter().any(|&port| is_reserved(&[], port)));
        assert!(!is_reserved(&["--reserved-ports="], 22));
    }

    #[test]
    fn error_of_an_invalid_flag_value_lists_the_expected_values() {
        for (flag, expected) in [
            ("--watch-namespace=Shop", "lower-case"),
            ("--lb-namespace=", "lower-case"),
            ("--lb-namespace=a_b", "@service"),
            ("--lb-image=", "expected an image"),
            ("--reserved-ports=ssh", "65535"),
            ("--reserved-ports=9-3", "range"),
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
