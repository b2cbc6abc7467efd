//! Parsers for the values of flags that are names. Pure.

use std::str::FromStr;

use akrobateo_core::dns1123;

/// The value of `--allowed-priority-classes`.
#[derive(Clone, Debug)]
pub(super) struct PriorityClassNames(pub(super) Vec<String>);

impl FromStr for PriorityClassNames {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_list(text, parse_priority_class).map(Self)
    }
}

/// Parses a comma-separated list of names.
pub fn parse_list<T>(list: &str, parse_name: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(|name| parse_name(name).map_err(|expected| format!("{name:?}: {expected}"))).collect()
}

/// Parses the name of a namespace.
pub fn parse_namespace(text: &str) -> Result<String, String> {
    let expected = "expected the name of a namespace: 1 to 63 lower-case letters, digits and hyphens, without a \
                    hyphen at either end, for example kube-system";
    if dns1123::is_label(text) { Ok(text.to_owned()) } else { Err(expected.to_owned()) }
}

/// Parses `--watch-namespace`. An empty value means all namespaces.
pub(super) fn parse_namespace_or_empty(text: &str) -> Result<String, String> {
    if text.is_empty() { Ok(String::new()) } else { parse_namespace(text) }
}

/// Parses `--priority-class`. An empty value means no priority class.
pub(super) fn parse_priority_class(text: &str) -> Result<String, String> {
    let is_valid = text.is_empty() || dns1123::is_subdomain(text);
    let expected = "expected the name of a PriorityClass, for example akrobateo-proxy";
    if is_valid { Ok(text.to_owned()) } else { Err(expected.to_owned()) }
}
