//! The configuration that all proxies share. Pure.

use std::fmt;

/// The configuration that all proxies share.
#[derive(Clone, Debug)]
pub(crate) struct ProxyConfig {
    /// The name of this operator: the field manager and a label of each workload.
    pub(crate) instance: String,
    pub(crate) proxy_namespace: ProxyNamespace,
    /// The places from which the operator deletes workloads: they had the proxies before `proxy_namespace` did.
    pub(crate) former_proxy_namespaces: Vec<ProxyNamespace>,
    /// The image of the data plane.
    pub(crate) image: String,
}

/// The namespace of the proxies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProxyNamespace {
    /// One namespace for all proxies.
    SharedNamespace(String),
    /// The namespace of each Service. The Service then owns its workload.
    ServiceNamespace,
}

/// The proxies were in another place, and no flag tells the operator to delete them there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "--lb-namespace is {current}, but this operator's proxies are in {recorded} and still hold their ports; nothing was \
     changed; to move them, also set --former-lb-namespaces={recorded} (settings.formerLbNamespaces in the chart) with the \
     right to delete them there, or set --lb-namespace={recorded} again"
)]
pub struct ProxiesElsewhere {
    recorded: String,
    current: String,
}

impl ProxyConfig {
    /// Checks that the operator manages the proxies in the recorded place, if there is a record.
    pub(crate) fn check_proxy_namespace(&self, recorded: Option<&str>) -> Result<(), ProxiesElsewhere> {
        let mut known = std::iter::once(&self.proxy_namespace).chain(&self.former_proxy_namespaces);
        match recorded {
            Some(recorded) if !known.any(|proxy_namespace| proxy_namespace.to_string() == recorded) => {
                Err(ProxiesElsewhere {
                    recorded: recorded.to_owned(),
                    current: self.proxy_namespace.to_string(),
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
    fn moved_proxies_are_refused_unless_their_former_place_is_known() {
        let mut config = proxy_config();
        assert_eq!(config.check_proxy_namespace(None), Ok(()));
        assert_eq!(config.check_proxy_namespace(Some("akrobateo-proxies")), Ok(()));
        for recorded in ["kube-system", "@service"] {
            let message = config.check_proxy_namespace(Some(recorded)).unwrap_err().to_string();
            assert!(message.contains("--lb-namespace is akrobateo-proxies"), "{message}");
            assert!(message.contains(&format!("--former-lb-namespaces={recorded}")), "{message}");
        }
        config.former_proxy_namespaces =
            vec![ProxyNamespace::SharedNamespace("kube-system".to_owned()), ProxyNamespace::ServiceNamespace];
        for recorded in ["kube-system", "@service"] {
            assert_eq!(config.check_proxy_namespace(Some(recorded)), Ok(()));
        }
    }
}
