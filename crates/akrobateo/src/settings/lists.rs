//! The values of flags that are lists of names. Pure.
//!
//! The lists are not plain `Vec`s, because clap would expect one occurrence of the flag for each item.

use std::str::FromStr;

use akrobateo_services::settings::parse_list;

use super::values::parse_proxy_namespace;
use crate::decide::ProxyNamespace;

/// The value of `--former-lb-namespaces`.
#[derive(Clone, Debug)]
pub(super) struct FormerProxyNamespaces(pub(super) Vec<ProxyNamespace>);

impl FromStr for FormerProxyNamespaces {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_list(text, parse_proxy_namespace).map(Self)
    }
}
