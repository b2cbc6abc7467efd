//! The configuration that all proxies share. Pure.

use std::fmt;

/// The configuration that all proxies share.
#[derive(Clone, Debug)]
pub(crate) struct ProxyConfig {
    /// The name of this operator: the field manager and a label of each workload.
    pub(crate) instance: String,
    pub(crate) placement: Placement,
    /// The places from which the operator deletes workloads: they had the proxies before `placement` did.
    pub(crate) former_placements: Vec<Placement>,
    /// The image of the data plane.
    pub(crate) image: String,
}

/// The namespace of the proxies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// One namespace for all proxies.
    SharedNamespace(String),
    /// The namespace of each Service, which owns its workload.
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
    pub(crate) fn check_placement(&self, recorded: Option<&str>) -> Result<(), ProxiesElsewhere> {
        let mut known = std::iter::once(&self.placement).chain(&self.former_placements);
        match recorded {
            Some(recorded) if !known.any(|placement| placement.to_string() == recorded) => {
                Err(ProxiesElsewhere { recorded: recorded.to_owned(), current: self.placement.to_string() })
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Placement {
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
        assert_eq!(config.check_placement(None), Ok(()));
        assert_eq!(config.check_placement(Some("akrobateo-proxies")), Ok(()));
        for recorded in ["kube-system", "@service"] {
            let message = config.check_placement(Some(recorded)).unwrap_err().to_string();
            assert!(message.contains("--lb-namespace is akrobateo-proxies"), "{message}");
            assert!(message.contains(&format!("--former-lb-namespaces={recorded}")), "{message}");
        }
        config.former_placements =
            vec![Placement::SharedNamespace("kube-system".to_owned()), Placement::ServiceNamespace];
        for recorded in ["kube-system", "@service"] {
            assert_eq!(config.check_placement(Some(recorded)), Ok(()));
        }
    }
}
