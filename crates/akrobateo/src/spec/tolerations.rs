//! Tolerations as text: a JSON or YAML list, as in a pod's spec. Pure.

use k8s_openapi::api::core::v1::{Taint, Toleration};
use k8s_openapi::serde::Deserialize;

/// What tolerations may look like, for those who wrote others.
pub(super) const ALLOWED: &str = "a JSON or YAML list of a pod's tolerations, for example \
     [{key: node-role.kubernetes.io/control-plane, operator: Exists, effect: NoSchedule}]";

/// As in a pod, but a misspelt field is an error and not silence.
#[derive(Deserialize)]
#[serde(crate = "k8s_openapi::serde", deny_unknown_fields, rename_all = "camelCase")]
struct Written {
    key: Option<String>,
    operator: Option<String>,
    value: Option<String>,
    effect: Option<String>,
    toleration_seconds: Option<i64>,
}

/// Reads tolerations; `None` if they are none that the API server would take.
pub(crate) fn parse(text: &str) -> Option<Vec<Toleration>> {
    if text.trim().is_empty() {
        return Some(Vec::new());
    }
    let written: Vec<Written> = serde_saphyr::from_str(text).ok()?;
    written.into_iter().map(toleration).collect()
}

/// The rules of the API server's validation of pods.
fn toleration(written: Written) -> Option<Toleration> {
    let Written { key, operator, value, effect, toleration_seconds } = written;
    let exists = operator.as_deref() == Some("Exists");
    let operator_valid = operator.as_deref().is_none_or(|operator| ["Exists", "Equal"].contains(&operator));
    let effect_valid = effect
        .as_deref()
        .is_none_or(|effect| ["", "NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect));
    let key_valid = key.as_deref().is_some_and(|key| !key.is_empty()) || exists;
    let value_valid = !exists || value.as_deref().unwrap_or_default().is_empty();
    let seconds_valid = toleration_seconds.is_none() || effect.as_deref() == Some("NoExecute");
    (operator_valid && effect_valid && key_valid && value_valid && seconds_valid).then_some(Toleration {
        key,
        operator,
        value,
        effect,
        toleration_seconds,
    })
}

/// Whether pods with these tolerations may be put on a node with this taint
/// (<https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/>).
pub(crate) fn tolerate(tolerations: &[Toleration], taint: &Taint) -> bool {
    let matches =
        |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|w| w.is_empty() || w == is);
    tolerations.iter().any(|toleration| {
        let exists = toleration.operator.as_deref() == Some("Exists");
        let same_value =
            toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
        matches(&toleration.effect, &taint.effect)
            && matches(&toleration.key, &taint.key)
            && (exists || same_value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_yaml_are_read() {
        let yaml =
            "- key: dedicated\n  operator: Equal\n  value: lb\n  effect: NoSchedule\n- operator: Exists\n";
        assert_eq!(parse(yaml).unwrap().len(), 2);
        let json = r#"[{"key": "dedicated", "operator": "Exists"}]"#;
        assert_eq!(parse(json).unwrap()[0].operator.as_deref(), Some("Exists"));
        assert_eq!(parse(" "), Some(Vec::new()));
    }

    #[test]
    fn what_the_api_server_would_refuse_is_refused_here() {
        for bad in [
            "key: x",
            "[{key: x, operator: Exist}]",
            "[{key: x, effect: Never}]",
            "[{operator: Equal}]",
            "[{}]",
            "[{key: x, operator: Exists, value: y}]",
            "[{key: x, tolerationSeconds: 5}]",
            "[{keys: x}]",
            "[",
            "5",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_taint_is_tolerated_by_key_value_and_effect() {
        let taint = |key: &str, value: &str, effect: &str| Taint {
            key: key.to_owned(),
            value: Some(value.to_owned()),
            effect: effect.to_owned(),
            time_added: None,
        };
        let lb = parse("[{key: dedicated, value: lb, effect: NoSchedule}]").unwrap();
        assert!(tolerate(&lb, &taint("dedicated", "lb", "NoSchedule")));
        assert!(!tolerate(&lb, &taint("dedicated", "db", "NoSchedule")));
        assert!(!tolerate(&lb, &taint("dedicated", "lb", "NoExecute")));
        assert!(tolerate(&parse("[{operator: Exists}]").unwrap(), &taint("any", "thing", "NoExecute")));
    }
}
