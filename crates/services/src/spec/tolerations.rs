//! Parses tolerations from a JSON or YAML list, as in a pod's spec, and compares tolerations. Pure.

use k8s_openapi::api::core::v1::{Taint, Toleration};
use k8s_openapi::serde::Deserialize;

use super::node_selector::{is_label_key, is_label_value};

/// The allowed values, for error messages.
pub(super) const ALLOWED_VALUES: &str = "a JSON or YAML list of tolerations as in a pod's spec, for example \
     [{key: node-role.kubernetes.io/control-plane, operator: Exists, effect: NoSchedule}]";

/// The error for a text that is not a list of tolerations.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseTolerationsError {
    /// The message of the YAML parser, with line and column.
    #[error("{0}")]
    InvalidSyntax(String),
    /// A toleration that the API server would reject.
    #[error("toleration {position}: {problem}")]
    InvalidToleration {
        /// The position in the list, from 1.
        position: usize,
        problem: &'static str,
    },
}

/// A toleration with the fields of a pod's toleration, before validation. An unknown field is an error, because it is
/// usually a spelling mistake.
#[derive(Deserialize)]
#[serde(crate = "k8s_openapi::serde", deny_unknown_fields, rename_all = "camelCase")]
struct UncheckedToleration {
    key: Option<String>,
    operator: Option<String>,
    value: Option<String>,
    effect: Option<String>,
    toleration_seconds: Option<i64>,
}

/// Parses tolerations. The result of an empty text is an empty list.
pub fn parse(text: &str) -> Result<Vec<Toleration>, ParseTolerationsError> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    // The error message must have one line, so the parser must not add a snippet of the text.
    let options = serde_saphyr::options! { with_snippet: false };
    let tolerations: Vec<UncheckedToleration> = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| ParseTolerationsError::InvalidSyntax(error.to_string()))?;
    let validate = |(index, toleration)| {
        validate(toleration)
            .map_err(|problem| ParseTolerationsError::InvalidToleration { position: index + 1, problem })
    };
    tolerations.into_iter().enumerate().map(validate).collect()
}

/// Validates a toleration with the API server's rules for pods.
fn validate(toleration: UncheckedToleration) -> Result<Toleration, &'static str> {
    let UncheckedToleration { key, operator, value, effect, toleration_seconds } = toleration;
    let has_exists_operator = operator.as_deref() == Some("Exists");
    if operator.as_deref().is_some_and(|operator| !["Exists", "Equal"].contains(&operator)) {
        return Err("operator is neither Exists nor Equal");
    }
    let known_effects = ["", "NoSchedule", "PreferNoSchedule", "NoExecute"];
    if effect.as_deref().is_some_and(|effect| !known_effects.contains(&effect)) {
        return Err("effect is not NoSchedule, PreferNoSchedule or NoExecute");
    }
    let key_text = key.as_deref().unwrap_or_default();
    if key_text.is_empty() && !has_exists_operator {
        return Err("key must be set unless operator is Exists");
    }
    if !key_text.is_empty() && !is_label_key(key_text) {
        return Err("key is not the key of a label");
    }
    if !has_exists_operator && !is_label_value(value.as_deref().unwrap_or_default()) {
        return Err("value is not the value of a label");
    }
    if has_exists_operator && !value.as_deref().unwrap_or_default().is_empty() {
        return Err("value must be empty if operator is Exists");
    }
    if toleration_seconds.is_some() && effect.as_deref() != Some("NoExecute") {
        return Err("tolerationSeconds needs effect NoExecute");
    }
    Ok(Toleration { key, operator, value, effect, toleration_seconds })
}

/// Returns the position, from 1, of the first toleration that no bound covers.
pub(super) fn find_position_of_uncovered_toleration(
    tolerations: &[Toleration],
    bounds: &[Toleration],
) -> Option<usize> {
    let is_covered =
        |toleration: &Toleration| bounds.iter().any(|bound| tolerates_at_least(bound, toleration));
    tolerations.iter().position(|toleration| !is_covered(toleration)).map(|index| index + 1)
}

/// Returns true if `bound` tolerates each taint that `toleration` tolerates, for the same time or longer.
fn tolerates_at_least(bound: &Toleration, toleration: &Toleration) -> bool {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let is_key_or_effect_covered =
        |bound: &Option<String>, field: &Option<String>| text(bound).is_empty() || text(bound) == text(field);
    let has_exists_operator = |toleration: &Toleration| toleration.operator.as_deref() == Some("Exists");
    let is_value_covered = has_exists_operator(bound)
        || (!has_exists_operator(toleration) && text(&bound.value) == text(&toleration.value));
    let is_duration_covered = match (bound.toleration_seconds, toleration.toleration_seconds) {
        (None, _) => true,
        (Some(bound), Some(seconds)) => seconds <= bound,
        (Some(_), None) => false,
    };
    is_key_or_effect_covered(&bound.key, &toleration.key)
        && is_key_or_effect_covered(&bound.effect, &toleration.effect)
        && is_value_covered
        && is_duration_covered
}

/// Formats tolerations as a YAML list in one line.
pub(super) fn describe(tolerations: &[Toleration]) -> String {
    if tolerations.is_empty() {
        return "none".to_owned();
    }
    let describe = |toleration: &Toleration| {
        let Toleration { key, operator, value, effect, toleration_seconds } = toleration;
        let fields = [("key", key), ("operator", operator), ("value", value), ("effect", effect)];
        let fields =
            fields.into_iter().filter_map(|(name, value)| Some(format!("{name}: {}", value.as_ref()?)));
        let seconds = toleration_seconds.map(|seconds| format!("tolerationSeconds: {seconds}"));
        format!("{{{}}}", fields.chain(seconds).collect::<Vec<_>>().join(", "))
    };
    format!("[{}]", tolerations.iter().map(describe).collect::<Vec<_>>().join(", "))
}

/// Returns true if pods with these tolerations may run on a node with this taint
/// (<https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/>).
#[must_use]
pub fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    let matches_text = |pattern: &Option<String>, text: &str| {
        pattern.as_deref().is_none_or(|pattern| pattern.is_empty() || pattern == text)
    };
    tolerations.iter().any(|toleration| {
        let has_exists_operator = toleration.operator.as_deref() == Some("Exists");
        let has_same_value =
            toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
        matches_text(&toleration.effect, &taint.effect)
            && matches_text(&toleration.key, &taint.key)
            && (has_exists_operator || has_same_value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_accepts_json_and_yaml() {
        let yaml =
            "- key: dedicated\n  operator: Equal\n  value: lb\n  effect: NoSchedule\n- operator: Exists\n";
        assert_eq!(parse(yaml).unwrap().len(), 2);
        let json = r#"[{"key": "dedicated", "operator": "Exists"}]"#;
        assert_eq!(parse(json).unwrap()[0].operator.as_deref(), Some("Exists"));
        assert_eq!(parse(" "), Ok(Vec::new()));
    }

    #[test]
    fn error_mentions_the_field_that_the_api_server_would_reject() {
        for (text, field) in [
            ("[{key: x, operator: Exist}]", "operator"),
            ("[{key: x, effect: Never}]", "effect"),
            ("[{operator: Equal}]", "key"),
            ("[{}]", "key"),
            ("[{key: x, operator: Exists, value: y}]", "value"),
            ("[{key: x, tolerationSeconds: 5}]", "tolerationSeconds"),
            ("[{key: a b, operator: Exists}]", "key"),
            ("[{key: a/b/c, operator: Exists}]", "key"),
            ("[{key: Example.com/x, operator: Exists}]", "key"),
            ("[{key: x, value: a b}]", "value"),
            ("[{key: x, value: -a}]", "value"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("toleration 1: {field} ")), "{text}: {error}");
        }
    }

    #[test]
    fn syntax_error_has_one_line() {
        for (text, expected) in
            [("key: x", "line 1"), ("[{keys: x}]", "`keys`"), ("[", "line 1"), ("5", "line 1")]
        {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{text}: {error}");
        }
    }

    #[test]
    fn bound_covers_equal_and_narrower_tolerations() {
        for (bound, toleration, is_covered) in [
            ("[{key: a, operator: Exists}]", "[{key: a, value: x, effect: NoSchedule}]", true),
            ("[{key: a, operator: Exists}]", "[{key: a, operator: Exists}]", true),
            ("[{operator: Exists}]", "[{key: b, operator: Exists}]", true),
            ("[{key: a, operator: Exists}]", "[{operator: Exists}]", false),
            ("[{key: a, operator: Exists}]", "[{key: b, operator: Exists}]", false),
            ("[{key: a, value: x}]", "[{key: a, operator: Exists}]", false),
            ("[{key: a, value: x}]", "[{key: a, value: y}]", false),
            ("[{key: a, operator: Exists, effect: NoSchedule}]", "[{key: a, operator: Exists}]", false),
            (
                "[{key: a, operator: Exists, effect: NoExecute, tolerationSeconds: 30}]",
                "[{key: a, operator: Exists, effect: NoExecute}]",
                false,
            ),
            (
                "[{key: a, operator: Exists, effect: NoExecute, tolerationSeconds: 30}]",
                "[{key: a, operator: Exists, effect: NoExecute, tolerationSeconds: 5}]",
                true,
            ),
        ] {
            let (bounds, tolerations) = (parse(bound).unwrap(), parse(toleration).unwrap());
            assert_eq!(
                find_position_of_uncovered_toleration(&tolerations, &bounds).is_none(),
                is_covered,
                "{bound} {toleration}"
            );
        }
    }

    #[test]
    fn describe_formats_tolerations_as_a_list() {
        let text = "[{key: a, operator: Exists, effect: NoSchedule}, {key: b, value: x}]";
        assert_eq!(describe(&parse(text).unwrap()), text);
        assert_eq!(describe(&[]), "none");
    }

    #[test]
    fn tolerates_compares_key_value_and_effect_of_the_taint() {
        let taint = |key: &str, value: &str, effect: &str| Taint {
            key: key.to_owned(),
            value: Some(value.to_owned()),
            effect: effect.to_owned(),
            time_added: None,
        };
        let dedicated_toleration = parse("[{key: dedicated, value: lb, effect: NoSchedule}]").unwrap();
        assert!(tolerates(&dedicated_toleration, &taint("dedicated", "lb", "NoSchedule")));
        assert!(!tolerates(&dedicated_toleration, &taint("dedicated", "db", "NoSchedule")));
        assert!(!tolerates(&dedicated_toleration, &taint("dedicated", "lb", "NoExecute")));
        assert!(tolerates(&parse("[{operator: Exists}]").unwrap(), &taint("any", "thing", "NoExecute")));
    }
}
