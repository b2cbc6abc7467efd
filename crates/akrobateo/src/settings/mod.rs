//! The operator's flags; each has an environment variable.

mod values;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use k8s_openapi::api::core::v1::Toleration;

use crate::address_type::AddressType;
use crate::spec::{IpMode, PortSet, Requirement, ServiceDefaults, WorkloadKind};
use crate::spec::{parse_node_selector, parse_tolerations};
pub(crate) use values::LbNamespace;
use values::{image, namespace_or_empty};

/// The data plane that belongs to this operator: the same version.
const DEFAULT_LB_IMAGE: &str = concat!("ghcr.io/akrobateo/akrobateo-lb:", env!("CARGO_PKG_VERSION"));
/// What a node needs for itself: SSH, BGP, etcd, the API server, and Kubernetes' own daemons.
const DEFAULT_RESERVED_PORTS: &str = "22,179,2379-2380,6443,10248-10250,10256-10259";

/// Gives Services of type LoadBalancer the addresses of the cluster's nodes.
///
/// Runs in a cluster with the rights of its ServiceAccount, elsewhere with those of the kubeconfig.
#[derive(Parser, Clone, Debug)]
#[command(version)]
pub struct OperatorConfig {
    /// Look after the Services of this namespace only; unset or empty: of all namespaces
    #[arg(long, env = "WATCH_NAMESPACE", value_name = "NAMESPACE", default_value = "", value_parser = namespace_or_empty)]
    watch_namespace: String,

    /// Namespace in which the proxies run, or @service for each Service's own [default: the operator's own;
    /// kube-system when it runs outside a cluster]
    #[arg(long, env = "LB_NAMESPACE", value_name = "NAMESPACE|@service")]
    pub(crate) lb_namespace: Option<LbNamespace>,

    /// Image of the proxies
    #[arg(long, env = "LB_IMAGE", value_name = "IMAGE", default_value = DEFAULT_LB_IMAGE, value_parser = image)]
    pub(crate) lb_image: String,

    /// Whether Services without a loadBalancerClass are served, and not only those of class akrobateo.io/lb
    #[arg(long, env = "DEFAULT_CLASS", value_name = "true|false", default_value_t = true, action = clap::ArgAction::Set)]
    default_class: bool,

    /// TCP ports of the nodes that no Service gets, comma-separated, also ranges; empty allows all
    #[arg(long, env = "RESERVED_PORTS", value_name = "PORTS", default_value = DEFAULT_RESERVED_PORTS)]
    reserved_ports: PortSet,

    /// Kinds of node addresses to publish: the first that a node has
    #[arg(
        long,
        env = "ADDRESS_TYPES",
        value_name = "TYPES",
        value_delimiter = ',',
        default_value = "ExternalIP,InternalIP"
    )]
    address_types: Vec<AddressType>,

    /// ipMode of published addresses; auto is VIP, but Proxy where kube-proxy runs in IPVS mode
    #[arg(long, env = "IP_MODE", value_name = "MODE", default_value = "auto")]
    pub(crate) ip_mode: IpModeSetting,

    /// Nodes that may run proxies: a label selector as kubectl takes it [default: all nodes]
    #[arg(long, env = "NODE_SELECTOR", value_name = "SELECTOR", default_value = "")]
    node_selector: NodeSelector,

    /// Tolerations of the proxies: a JSON or YAML list [default: none]
    #[arg(long, env = "TOLERATIONS", value_name = "LIST", default_value = "")]
    tolerations: Tolerations,

    /// What runs a Service's proxies
    #[arg(long, env = "WORKLOAD", value_name = "KIND", default_value = "DaemonSet")]
    workload: WorkloadKind,

    /// Proxies of a Deployment
    #[arg(long, env = "REPLICAS", value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1000))]
    replicas: u16,

    /// Priority class of the proxies
    #[arg(long, env = "PRIORITY_CLASS", value_name = "NAME", default_value = "system-node-critical")]
    priority_class: String,

    /// Where /healthz, /readyz and /metrics answer
    #[arg(long, env = "HTTP_ADDRESS", value_name = "ADDRESS:PORT", default_value = "[::]:8080")]
    pub(crate) http_address: SocketAddr,

    /// Kubeconfig to use outside a cluster [default: $KUBECONFIG, then ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// Context of the kubeconfig [default: its current one]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
}

/// `--ip-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "verbatim")]
pub(crate) enum IpModeSetting {
    #[value(name = "auto")]
    Auto,
    #[value(name = "VIP")]
    Vip,
    Proxy,
}

/// `--node-selector`.
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

/// `--tolerations`.
#[derive(Clone, Debug)]
struct Tolerations(Vec<Toleration>);

impl std::str::FromStr for Tolerations {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |reason| {
            format!(
                "{reason}; expected a list of tolerations, for example [{{key: dedicated, operator: Exists}}]"
            )
        };
        parse_tolerations(text).map(Self).map_err(error)
    }
}

impl OperatorConfig {
    /// The namespace that Services are watched in, `None` for all.
    pub(crate) fn watched(&self) -> Option<&str> {
        Some(self.watch_namespace.as_str()).filter(|namespace| !namespace.is_empty())
    }

    /// What holds for Services that do not choose. `auto` is what `--ip-mode auto` comes to on this cluster.
    pub(crate) fn defaults(&self, auto: IpMode) -> ServiceDefaults {
        ServiceDefaults {
            default_class: self.default_class,
            requirements: self.node_selector.0.clone(),
            tolerations: self.tolerations.0.clone(),
            workload: self.workload,
            replicas: self.replicas,
            address_types: self.address_types.clone(),
            ip_mode: match self.ip_mode {
                IpModeSetting::Auto => auto,
                IpModeSetting::Vip => IpMode::Vip,
                IpModeSetting::Proxy => IpMode::Proxy,
            },
            priority_class: self.priority_class.clone(),
            reserved_ports: self.reserved_ports.clone(),
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
    fn by_default_all_namespaces_are_watched() {
        assert_eq!(parse(&[]).unwrap().watched(), None);
        assert_eq!(parse(&["--watch-namespace="]).unwrap().watched(), None);
        assert_eq!(parse(&["--watch-namespace=shop"]).unwrap().watched(), Some("shop"));
    }

    #[test]
    fn the_nodes_own_ports_are_reserved_unless_all_are_allowed() {
        let reserved = |args: &[&str], port| {
            parse(args).unwrap().reserved_ports.contains(HostPort { protocol: Protocol::Tcp, port })
        };
        assert!(
            [22, 179, 2379, 2380, 6443, 10_248, 10_250, 10_256, 10_259]
                .iter()
                .all(|&port| reserved(&[], port))
        );
        assert!(![80, 443, 10_251].iter().any(|&port| reserved(&[], port)));
        assert!(!reserved(&["--reserved-ports="], 22));
    }

    #[test]
    fn a_bad_value_is_refused_with_what_is_allowed() {
        for (flag, allowed) in [
            ("--watch-namespace=Shop", "lower-case"),
            ("--lb-namespace=", "lower-case"),
            ("--lb-namespace=a_b", "@service"),
            ("--lb-image=", "an image is named"),
            ("--reserved-ports=ssh", "a port from 1 to 65535"),
            ("--reserved-ports=9-3", "a range of ports"),
            ("--address-types=Hostname", "ExternalIP, InternalIP"),
            ("--ip-mode=vip", "auto, VIP, Proxy"),
            ("--node-selector=a b", "label selector"),
            ("--tolerations={", "list of tolerations"),
            ("--workload=daemonset", "DaemonSet, Deployment"),
            ("--replicas=0", "1..=1000"),
        ] {
            let error = parse(&[flag]).unwrap_err().to_string();
            assert!(error.contains(allowed), "{flag}: {error}");
        }
    }
}
