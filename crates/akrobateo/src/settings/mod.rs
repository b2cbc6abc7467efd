//! The operator's configuration: its flags and their environment variables. Pure.

mod lists;
mod values;

use std::net::SocketAddr;

use akrobateo_services::settings::ServiceSettings;
use akrobateo_services::spec::ServiceDefaults;
use api_client::ConnectOptions;
use clap::Parser;

use crate::decide::{ProxyConfig, ProxyNamespace};
use lists::FormerProxyNamespaces;
use values::{parse_image, parse_instance, parse_proxy_namespace, parse_socket_address};

/// The default image of the proxies. The image has the same version as this operator.
const DEFAULT_LB_IMAGE: &str = concat!("ghcr.io/akrobateo/akrobateo-lb:", env!("CARGO_PKG_VERSION"));
/// The default namespace of the operator: for an operator outside a pod, and for commands that search for the operator.
pub(crate) const DEFAULT_OPERATOR_NAMESPACE: &str = "kube-system";
/// The default namespace of the proxies. The manifests and the chart create this namespace.
const DEFAULT_LB_NAMESPACE: &str = "akrobateo-proxies";
/// Gives Services of type LoadBalancer the addresses of the cluster's nodes.
/// In a pod the operator uses the pod's ServiceAccount. Outside a pod the operator uses the kubeconfig.
#[derive(Parser, Clone, Debug)]
#[command(version)]
pub struct OperatorConfig {
    #[command(flatten)]
    services: ServiceSettings,

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

    /// IP address and TCP port of the HTTP server for /healthz, /readyz and /metrics
    #[arg(long, env = "HTTP_ADDRESS", value_name = "ADDRESS:PORT", default_value = "[::]:8080")]
    #[arg(value_parser = parse_socket_address)]
    pub(crate) http_address: SocketAddr,

    #[command(flatten)]
    pub(crate) connection: ConnectOptions,
}

/// The configuration in the form that the planner and the reconciler use.
pub(crate) struct ResolvedConfig {
    /// The configuration that the proxies of all Services share.
    pub(crate) proxy_config: ProxyConfig,
    /// The defaults for Services without annotations.
    pub(crate) defaults: ServiceDefaults,
}

impl OperatorConfig {
    /// Returns the namespace to watch, or `None` for all namespaces.
    pub(crate) fn watch_namespace(&self) -> Option<&str> {
        self.services.watch_namespace()
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
            defaults: self.services.defaults(),
        }
    }
}

#[cfg(test)]
mod tests {
    use akrobateo_core::{HostPort, Protocol};
    use akrobateo_services::spec::IpMode;

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
            parse(args).unwrap().resolve().defaults.reserved_ports.contains(HostPort { protocol, port })
        };
        for port in [22, 179, 2379, 2380, 6443, 10_248, 10_250, 10_256, 10_259] {
            assert!(is_reserved(&[], Protocol::Tcp, port), "tcp/{port}");
            assert!(!is_reserved(&[], Protocol::Udp, port), "udp/{port}");
        }
        for port in [4789, 6081, 8472, 8478, 8479, 51_820, 51_821] {
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
