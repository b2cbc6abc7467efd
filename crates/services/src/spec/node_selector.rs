//! Parses label selectors in kubectl's syntax, equality-based and set-based
//! (<https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors>). Pure.

use std::collections::BTreeMap;
use std::fmt;

use akrobateo_core::dns1123::{MAX_LABEL_LENGTH, is_subdomain};
use k8s_openapi::api::core::v1::NodeSelectorRequirement;

/// One requirement of a label selector, about one label of a node. A node must match all requirements of the selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelRequirement {
    key: String,
    operator: SelectorOperator,
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SelectorOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl fmt::Display for LabelRequirement {
    /// Writes the requirement in kubectl's syntax.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, operator, values } = self;
        match (operator, values.as_slice()) {
            (SelectorOperator::In, [value]) => write!(f, "{key}={value}"),
            (SelectorOperator::NotIn, [value]) => write!(f, "{key}!={value}"),
            (SelectorOperator::In, values) => write!(f, "{key} in ({})", values.join(",")),
            (SelectorOperator::NotIn, values) => write!(f, "{key} notin ({})", values.join(",")),
            (SelectorOperator::Exists, _) => write!(f, "{key}"),
            (SelectorOperator::DoesNotExist, _) => write!(f, "!{key}"),
        }
    }
}

/// The allowed values, for error messages.
pub(super) const ALLOWED_VALUES: &str =
    "a label selector in kubectl's syntax, for example pool=edge,zone in (a,b),tier!=test,!spot";

/// The error for a text that is not a label selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseSelectorError {
    #[error("the parentheses do not match")]
    UnmatchedParentheses,
    #[error("{0:?} is not a requirement")]
    InvalidRequirement(String),
    #[error("{0:?} is not a label key")]
    InvalidKey(String),
    #[error("{0:?} is not a label value")]
    InvalidValue(String),
}

impl LabelRequirement {
    /// Returns true if a node with these labels meets the requirement. As in Kubernetes, a node without the label meets
    /// a requirement with `notin` or `!=`.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            SelectorOperator::In => value.is_some_and(|value| self.values.contains(value)),
            SelectorOperator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            SelectorOperator::Exists => value.is_some(),
            SelectorOperator::DoesNotExist => value.is_none(),
        }
    }

    /// Converts the requirement into a requirement of a node affinity.
    #[must_use]
    pub fn to_node_selector_requirement(&self) -> NodeSelectorRequirement {
        let operator = match self.operator {
            SelectorOperator::In => "In",
            SelectorOperator::NotIn => "NotIn",
            SelectorOperator::Exists => "Exists",
            SelectorOperator::DoesNotExist => "DoesNotExist",
        };
        NodeSelectorRequirement {
            key: self.key.clone(),
            operator: operator.to_owned(),
            values: (!self.values.is_empty()).then(|| self.values.clone()),
        }
    }
}

/// Parses a selector. The result of an empty text is an empty list, which matches all nodes.
pub fn parse(text: &str) -> Result<Vec<LabelRequirement>, ParseSelectorError> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let parts = split_at_commas(text).ok_or(ParseSelectorError::UnmatchedParentheses)?;
    parts.into_iter().map(|part| parse_requirement(part.trim())).collect()
}

/// Splits a selector at the commas outside parentheses. Returns `None` if the parentheses do not match.
fn split_at_commas(text: &str) -> Option<Vec<&str>> {
    let (mut parts, mut start, mut is_in_parentheses) = (Vec::new(), 0, false);
    for (index, character) in text.char_indices() {
        match character {
            '(' if !is_in_parentheses => is_in_parentheses = true,
            ')' if is_in_parentheses => is_in_parentheses = false,
            '(' | ')' => return None,
            ',' if !is_in_parentheses => {
                parts.push(text.get(start..index)?);
                start = index + 1;
            }
            _ => (),
        }
    }
    parts.push(text.get(start..)?);
    (!is_in_parentheses).then_some(parts)
}

fn parse_requirement(text: &str) -> Result<LabelRequirement, ParseSelectorError> {
    if let Some((key, value)) = text.split_once("!=") {
        return validate_requirement(key, SelectorOperator::NotIn, vec![value]);
    }
    if let Some((key, value)) = text.split_once('=') {
        return validate_requirement(
            key,
            SelectorOperator::In,
            vec![value.strip_prefix('=').unwrap_or(value)],
        );
    }
    if let Some((key_and_operator, values)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) {
        let words: Vec<_> = key_and_operator.split_whitespace().collect();
        let values = values.split(',').collect();
        return match words[..] {
            [key, "in"] => validate_requirement(key, SelectorOperator::In, values),
            [key, "notin"] => validate_requirement(key, SelectorOperator::NotIn, values),
            _ => Err(ParseSelectorError::InvalidRequirement(text.to_owned())),
        };
    }
    match text.strip_prefix('!') {
        Some(key) => validate_requirement(key, SelectorOperator::DoesNotExist, Vec::new()),
        None => validate_requirement(text, SelectorOperator::Exists, Vec::new()),
    }
}

fn validate_requirement(
    key: &str,
    operator: SelectorOperator,
    values: Vec<&str>,
) -> Result<LabelRequirement, ParseSelectorError> {
    let key = key.trim();
    if !is_label_key(key) {
        return Err(ParseSelectorError::InvalidKey(key.to_owned()));
    }
    let values: Vec<_> = values.into_iter().map(|value| value.trim().to_owned()).collect();
    match values.iter().find(|value| !is_label_value(value)) {
        Some(value) => Err(ParseSelectorError::InvalidValue(value.clone())),
        None => Ok(LabelRequirement { key: key.to_owned(), operator, values }),
    }
}

/// Returns true if the text is a label key: a name, optionally after a DNS subdomain and a slash
/// (<https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/>).
pub(super) fn is_label_key(text: &str) -> bool {
    match text.rsplit_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_label_name(name),
        None => is_label_name(text),
    }
}

pub(super) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_label_name(text)
}

fn is_label_name(text: &str) -> bool {
    let is_alphanumeric = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= MAX_LABEL_LENGTH
        && is_alphanumeric(bytes.first())
        && is_alphanumeric(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        parse(selector).unwrap().iter().all(|requirement| requirement.matches(&labels))
    }

    #[test]
    fn parse_accepts_every_selector_form_of_kubectl() {
        let edge_labels = [("pool", "edge"), ("zone", "a")];
        for matching_selector in [
            "",
            "pool=edge",
            "pool == edge",
            "pool!=core",
            "none!=x",
            "pool",
            "!spot",
            "zone in (a, b)",
            "zone notin (c)",
            "none notin (a)",
            "pool=edge,zone in (a,b),!spot",
            " pool = edge , zone ",
        ] {
            assert!(matches(matching_selector, &edge_labels), "{matching_selector:?}");
        }
        for other_selector in
            ["pool=core", "pool!=edge", "spot", "!pool", "zone in (b)", "zone notin (a,b)", "pool=edge,spot"]
        {
            assert!(!matches(other_selector, &edge_labels), "{other_selector:?}");
        }
    }

    #[test]
    fn parse_rejects_texts_that_are_not_selectors() {
        for invalid_text in [
            ",",
            "a,",
            "a=b=c",
            "in (a)",
            "zone in a",
            "zone in (a",
            "zone within (a)",
            "zone in in (a)",
            "a b",
            "-a",
            "a=b c",
            "!",
            "=a",
            "a=(b)",
            "Example.com/x=y",
            "/x",
            "a/b/c",
            "pool>3",
        ] {
            assert!(parse(invalid_text).is_err(), "{invalid_text:?}");
        }
    }

    #[test]
    fn node_affinity_has_the_same_requirements_as_the_selector() {
        let requirements = parse("zone in (a,b),!spot").unwrap();
        let converted_requirements: Vec<_> =
            requirements.iter().map(LabelRequirement::to_node_selector_requirement).collect();
        assert_eq!(converted_requirements[0].operator, "In");
        assert_eq!(converted_requirements[0].values, Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(
            (converted_requirements[1].operator.as_str(), &converted_requirements[1].values),
            ("DoesNotExist", &None)
        );
    }
}
