//! Label selectors in kubectl's syntax, equality and set-based, as the scheduler understands them. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::NodeSelectorRequirement;

/// What a node's label must be. All requirements of a selector must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

/// What a selector may look like, for those who wrote another.
pub(super) const ALLOWED: &str =
    "a label selector as kubectl takes it, for example pool=edge,zone in (a,b),tier!=test,!spot";

impl Requirement {
    /// Whether a node with these labels meets it. As everywhere in Kubernetes, an absent label is in no set.
    pub(crate) fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }

    /// The same for the scheduler.
    pub(crate) fn to_node_selector(&self) -> NodeSelectorRequirement {
        let operator = match self.operator {
            Operator::In => "In",
            Operator::NotIn => "NotIn",
            Operator::Exists => "Exists",
            Operator::DoesNotExist => "DoesNotExist",
        };
        NodeSelectorRequirement {
            key: self.key.clone(),
            operator: operator.to_owned(),
            values: (!self.values.is_empty()).then(|| self.values.clone()),
        }
    }
}

/// Reads a selector; `None` if it is none.
pub(crate) fn parse(text: &str) -> Option<Vec<Requirement>> {
    if text.trim().is_empty() {
        return Some(Vec::new());
    }
    split(text)?.into_iter().map(|part| requirement(part.trim())).collect()
}

/// Splits at the commas that are not within parentheses.
fn split(text: &str) -> Option<Vec<&str>> {
    let (mut parts, mut start, mut inside) = (Vec::new(), 0, false);
    for (at, character) in text.char_indices() {
        match character {
            '(' if !inside => inside = true,
            ')' if inside => inside = false,
            '(' | ')' => return None,
            ',' if !inside => {
                parts.push(text.get(start..at)?);
                start = at + 1;
            }
            _ => (),
        }
    }
    parts.push(text.get(start..)?);
    (!inside).then_some(parts)
}

fn requirement(text: &str) -> Option<Requirement> {
    let made = |key: &str, operator, values: Vec<&str>| {
        let key = key.trim();
        let values: Vec<_> = values.into_iter().map(str::trim).collect();
        let valid = is_key(key) && values.iter().all(|value| is_value(value));
        valid.then(|| Requirement {
            key: key.to_owned(),
            operator,
            values: values.into_iter().map(str::to_owned).collect(),
        })
    };
    if let Some((key, value)) = text.split_once("!=") {
        return made(key, Operator::NotIn, vec![value]);
    }
    if let Some((key, value)) = text.split_once('=') {
        return made(key, Operator::In, vec![value.strip_prefix('=').unwrap_or(value)]);
    }
    if let Some((left, set)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) {
        let mut words = left.split_whitespace();
        let (key, operator) = (words.next()?, words.next()?);
        let operator = match (operator, words.next()) {
            ("in", None) => Operator::In,
            ("notin", None) => Operator::NotIn,
            _ => return None,
        };
        return made(key, operator, set.split(',').collect());
    }
    match text.strip_prefix('!') {
        Some(key) => made(key, Operator::DoesNotExist, Vec::new()),
        None => made(text, Operator::Exists, Vec::new()),
    }
}

/// An optional DNS subdomain and a slash, then a name
/// (<https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/>).
fn is_key(text: &str) -> bool {
    let (prefix, name) = text.rsplit_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let prefix_valid = prefix.is_none_or(|prefix| {
        (1..=253).contains(&prefix.len())
            && prefix.split('.').all(|part| {
                is_name(part) && !part.bytes().any(|byte| byte.is_ascii_uppercase() || byte == b'_')
            })
    });
    prefix_valid && is_name(name)
}

fn is_value(text: &str) -> bool {
    text.is_empty() || is_name(text)
}

fn is_name(text: &str) -> bool {
    let alphanumeric = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && alphanumeric(bytes.first())
        && alphanumeric(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        parse(selector).unwrap().iter().all(|requirement| requirement.holds(&labels))
    }

    #[test]
    fn every_form_of_kubectl_is_understood() {
        let edge = [("pool", "edge"), ("zone", "a")];
        for yes in [
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
            assert!(selects(yes, &edge), "{yes:?}");
        }
        for no in
            ["pool=core", "pool!=edge", "spot", "!pool", "zone in (b)", "zone notin (a,b)", "pool=edge,spot"]
        {
            assert!(!selects(no, &edge), "{no:?}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for bad in [
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
            assert!(parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn the_scheduler_is_told_the_same() {
        let requirements = parse("zone in (a,b),!spot").unwrap();
        let told: Vec<_> = requirements.iter().map(Requirement::to_node_selector).collect();
        assert_eq!(told[0].operator, "In");
        assert_eq!(told[0].values, Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!((told[1].operator.as_str(), &told[1].values), ("DoesNotExist", &None));
    }
}
