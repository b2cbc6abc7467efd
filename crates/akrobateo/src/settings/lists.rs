//! The values of flags that are lists of names. Pure.
//!
//! These values have their own types, because clap reads a plain `Vec` as one value for each occurrence of the flag.

use std::str::FromStr;

use super::values::{parse_priority_class, parse_proxy_namespace};
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

/// The value of `--allowed-priority-classes`.
#[derive(Clone, Debug)]
pub(super) struct PriorityClassNames(pub(super) Vec<String>);

impl FromStr for PriorityClassNames {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_list(text, parse_priority_class).map(Self)
    }
}

fn parse_list<T>(list: &str, parse_name: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(|name| parse_name(name).map_err(|expected| format!("{name:?}: {expected}"))).collect()
}
