//! The configuration that all proxies share. Pure.

use std::fmt;

/// The configuration that all proxies share.
#[derive(Clone, Debug)]
pub(crate) struct ProxyConfig {
    /// The name of this operator. The operator uses this name as its field manager and as a label of each workload.
    pub(crate) instance: String,
    pub(crate) proxy_namespace: ProxyNamespace,
    /// The namespaces that contained the proxies earlier. The operator deletes the workloads in these namespaces.
    pub(crate) former_proxy_namespaces: Vec<ProxyNamespace>,
    /// The image of the data plane.
    pub(crate) image: String,
}

/// The namespace of the proxies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProxyNamespace {
    /// All proxies are in this namespace.
    SharedNamespace(String),
    /// Each proxy is in the namespace of its Service. The Service then owns its workload.
    ServiceNamespace,
}

/// The error if the proxies are in a namespace that the operator's configuration does not name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "--lb-namespace is {current_namespace}, but this operator's proxies are in {recorded_namespace} and still occupy their \
     ports; nothing was changed; to move the proxies, also set --former-lb-namespaces={recorded_namespace} \
     (settings.formerLbNamespaces in the chart), and allow the operator to delete proxies in that namespace; to undo the \
     change, set --lb-namespace={recorded_namespace} again"
)]
pub struct ProxyNamespaceMismatch {
    recorded_namespace: String,
    current_namespace: String,
}

impl ProxyConfig {
    /// Checks that the recorded namespace of the proxies is the current namespace or a former namespace.
    pub(crate) fn check_proxy_namespace(
        &self,
        recorded_namespace: Option<&str>,
    ) -> Result<(), ProxyNamespaceMismatch> {
        let mut managed_namespaces =
            std::iter::once(&self.proxy_namespace).chain(&self.former_proxy_namespaces);
        match recorded_namespace {
            Some(recorded_namespace)
                if !managed_namespaces
                    .any(|proxy_namespace| proxy_namespace.to_string() == recorded_namespace) =>
            {
                Err(ProxyNamespaceMismatch {
                    recorded_namespace: recorded_namespace.to_owned(),
                    current_namespace: self.proxy_namespace.to_string(),
                })
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for ProxyNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SharedNamespace(namespace) => namespace,
            Self::ServiceNamespace => "@service",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixtures::proxy_config;

    #[test]
    fn new_proxy_namespace_requires_the_former_namespace_in_the_settings() {
        let mut config = proxy_config();
        assert_eq!(config.check_proxy_namespace(None), Ok(()));
        assert_eq!(config.check_proxy_namespace(Some("akrobateo-proxies")), Ok(()));
        for recorded_namespace in ["kube-system", "@service"] {
            let message = config.check_proxy_namespace(Some(recorded_namespace)).unwrap_err().to_string();
            assert!(message.contains("--lb-namespace is akrobateo-proxies"), "{message}");
            assert!(message.contains(&format!("--former-lb-namespaces={recorded_namespace}")), "{message}");
        }
        config.former_proxy_namespaces =
            vec![ProxyNamespace::SharedNamespace("kube-system".to_owned()), ProxyNamespace::ServiceNamespace];
        for recorded_namespace in ["kube-system", "@service"] {
            assert_eq!(config.check_proxy_namespace(Some(recorded_namespace)), Ok(()));
        }
    }
}
