//! Tolerations as text: a JSON or YAML list, as in a pod's spec. Pure.

use k8s_openapi::api::core::v1::{Taint, Toleration};
use k8s_openapi::serde::Deserialize;

/// The allowed values, for error messages.
pub(super) const ALLOWED_VALUES: &str = "a JSON or YAML list of tolerations as in a pod's spec, for example \
     [{key: node-role.kubernetes.io/control-plane, operator: Exists, effect: NoSchedule}]";

/// The error for a text that is not a list of tolerations.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseTolerationsError {
    /// The message of the YAML parser, with line and column.
    #[error("{0}")]
    InvalidSyntax(String),
    /// A toleration that the API server would reject.
    #[error("toleration {number}: {problem}")]
    InvalidToleration {
        /// The position in the list, from 1.
        number: usize,
        problem: &'static str,
    },
}

/// A toleration as in a pod. Unlike in a pod, an unknown field is an error, because it is usually a spelling mistake.
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
pub(crate) fn parse(text: &str) -> Result<Vec<Toleration>, ParseTolerationsError> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    // The message must fit in one line, so the parser must not add a snippet of the text.
    let options = serde_saphyr::options! { with_snippet: false };
    let tolerations: Vec<UncheckedToleration> = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| ParseTolerationsError::InvalidSyntax(error.to_string()))?;
    let validate = |(index, toleration)| {
        validate(toleration)
            .map_err(|problem| ParseTolerationsError::InvalidToleration { number: index + 1, problem })
    };
    tolerations.into_iter().enumerate().map(validate).collect()
}

/// Applies the rules of the API server's validation of pods.
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
    if key.as_deref().unwrap_or_default().is_empty() && !has_exists_operator {
        return Err("key must be set unless operator is Exists");
    }
    if has_exists_operator && !value.as_deref().unwrap_or_default().is_empty() {
        return Err("value must be empty if operator is Exists");
    }
    if toleration_seconds.is_some() && effect.as_deref() != Some("NoExecute") {
        return Err("tolerationSeconds needs effect NoExecute");
    }
    Ok(Toleration { key, operator, value, effect, toleration_seconds })
}

/// Returns true if pods with these tolerations may run on a node with this taint
/// (<https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/>).
pub(super) fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    let matches = |pattern: &Option<String>, text: &str| {
        pattern.as_deref().is_none_or(|pattern| pattern.is_empty() || pattern == text)
    };
    tolerations.iter().any(|toleration| {
        let has_exists_operator = toleration.operator.as_deref() == Some("Exists");
        let has_same_value =
            toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
        matches(&toleration.effect, &taint.effect)
            && matches(&toleration.key, &taint.key)
            && (has_exists_operator || has_same_value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_yaml_are_accepted() {
        let yaml =
            "- key: dedicated\n  operator: Equal\n  value: lb\n  effect: NoSchedule\n- operator: Exists\n";
        assert_eq!(parse(yaml).unwrap().len(), 2);
        let json = r#"[{"key": "dedicated", "operator": "Exists"}]"#;
        assert_eq!(parse(json).unwrap()[0].operator.as_deref(), Some("Exists"));
        assert_eq!(parse(" "), Ok(Vec::new()));
    }

    #[test]
    fn the_error_names_the_field_that_the_api_server_would_reject() {
        for (text, field) in [
            ("[{key: x, operator: Exist}]", "operator"),
            ("[{key: x, effect: Never}]", "effect"),
            ("[{operator: Equal}]", "key"),
            ("[{}]", "key"),
            ("[{key: x, operator: Exists, value: y}]", "value"),
            ("[{key: x, tolerationSeconds: 5}]", "tolerationSeconds"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("toleration 1: {field} ")), "{text}: {error}");
        }
    }

    #[test]
    fn the_error_for_a_text_that_is_not_a_list_of_tolerations_has_one_line() {
        for (text, part) in
            [("key: x", "line 1"), ("[{keys: x}]", "`keys`"), ("[", "line 1"), ("5", "line 1")]
        {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains('\n'), "{text}: {error}");
        }
    }

    #[test]
    fn a_toleration_must_match_the_key_and_value_and_effect_of_the_taint() {
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
