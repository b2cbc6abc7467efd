//! The operator's flags; each has an environment variable.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

/// The data plane that belongs to this operator: the same version.
const DEFAULT_LB_IMAGE: &str = concat!("ghcr.io/akrobateo/akrobateo-lb:", env!("CARGO_PKG_VERSION"));

/// Gives Services of type LoadBalancer the addresses of the cluster's nodes.
///
/// Runs in a cluster with the rights of its ServiceAccount, elsewhere with those of the kubeconfig.
#[derive(Parser, Clone, Debug)]
#[command(version)]
pub struct Settings {
    /// Look after the Services of this namespace only; unset or empty: of all namespaces
    #[arg(long, env = "WATCH_NAMESPACE", value_name = "NAMESPACE", default_value = "", value_parser = namespace_or_empty)]
    pub watch_namespace: String,

    /// Namespace in which the proxies run [default: the operator's own; kube-system when it runs outside]
    #[arg(long, env = "LB_NAMESPACE", value_name = "NAMESPACE", value_parser = namespace)]
    pub lb_namespace: Option<String>,

    /// Image of the proxies
    #[arg(long, env = "LB_IMAGE", value_name = "IMAGE", default_value = DEFAULT_LB_IMAGE, value_parser = image)]
    pub lb_image: String,

    /// Where /healthz and /readyz answer
    #[arg(long, env = "HEALTH_ADDRESS", value_name = "ADDRESS:PORT", default_value = "[::]:8080")]
    pub health_address: SocketAddr,

    /// Kubeconfig to use outside a cluster [default: $KUBECONFIG, then ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

impl Settings {
    /// The namespace that Services are watched in, `None` for all.
    #[must_use]
    pub fn watched(&self) -> Option<&str> {
        Some(self.watch_namespace.as_str()).filter(|namespace| !namespace.is_empty())
    }
}

fn namespace_or_empty(text: &str) -> Result<String, String> {
    if text.is_empty() { Ok(String::new()) } else { namespace(text) }
}

/// A namespace's name is an RFC 1123 label.
fn namespace(text: &str) -> Result<String, String> {
    let valid = (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    if valid {
        Ok(text.to_owned())
    } else {
        Err("a namespace's name has 1 to 63 lower-case letters, digits and hyphens, and neither begins nor ends \
             with a hyphen"
            .to_owned())
    }
}

fn image(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(char::is_whitespace) {
        Err("an image is named as in a pod, for example ghcr.io/akrobateo/akrobateo-lb:0.1.0".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Settings, clap::Error> {
        Settings::try_parse_from(std::iter::once(&"akrobateo").chain(args))
    }

    #[test]
    fn by_default_all_namespaces_are_watched() {
        assert_eq!(parse(&[]).unwrap().watched(), None);
        assert_eq!(parse(&["--watch-namespace="]).unwrap().watched(), None);
        assert_eq!(parse(&["--watch-namespace=shop"]).unwrap().watched(), Some("shop"));
    }

    #[test]
    fn a_bad_namespace_is_refused_with_what_is_allowed() {
        for flag in ["--watch-namespace=Shop", "--lb-namespace=", "--lb-namespace=a_b", "--lb-namespace=-a"] {
            let error = parse(&[flag]).unwrap_err().to_string();
            assert!(error.contains("lower-case"), "{flag}: {error}");
        }
    }

    #[test]
    fn an_empty_image_is_refused() {
        assert!(parse(&["--lb-image="]).unwrap_err().to_string().contains("an image is named"));
    }
}
