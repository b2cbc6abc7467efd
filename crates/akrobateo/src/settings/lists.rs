//! The values of flags that are lists of names. Pure.
//!
//! A plain `Vec` would let clap take one value per occurrence of the flag.

use std::str::FromStr;

use super::values::{parse_proxy_namespace, priority_class};
use crate::decide::ProxyNamespace;

/// The value of `--former-lb-namespaces`.
#[derive(Clone, Debug)]
pub(super) struct FormerPlacements(pub(super) Vec<ProxyNamespace>);

impl FromStr for FormerPlacements {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_list(text, parse_proxy_namespace).map(Self)
    }
}

/// The value of `--allowed-priority-classes`.
#[derive(Clone, Debug)]
pub(super) struct PriorityClasses(pub(super) Vec<String>);

impl FromStr for PriorityClasses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_list(text, priority_class).map(Self)
    }
}

fn parse_list<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(|item| parse(item).map_err(|expected| format!("{item:?}: {expected}"))).collect()
}
