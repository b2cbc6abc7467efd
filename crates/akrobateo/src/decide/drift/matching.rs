//! Compares an object in the cluster with the desired object. Pure.

use serde_json::Value;

/// Returns true if `existing` has all fields of `desired` with the same values, and its lists have the same length.
///
/// `existing` may have more fields, because the API server fills in defaults.
pub(super) fn matches_desired(existing: &Value, desired: &Value) -> bool {
    match (existing, desired) {
        (Value::Object(existing), Value::Object(desired)) => desired.iter().all(|(key, desired)| {
            existing.get(key).is_some_and(|existing| matches_desired(existing, desired))
        }),
        (Value::Array(existing), Value::Array(desired)) => {
            existing.len() == desired.len()
                && (items_match_in_order(existing, desired) || items_match_in_any_order(existing, desired))
        }
        (existing, desired) => existing == desired,
    }
}

fn items_match_in_order(existing: &[Value], desired: &[Value]) -> bool {
    existing.iter().zip(desired).all(|(existing, desired)| matches_desired(existing, desired))
}

/// Compares two lists of objects in any order, because server-side apply merges such lists by key and may change the
/// order.
fn items_match_in_any_order(existing: &[Value], desired: &[Value]) -> bool {
    desired.iter().all(|desired| {
        desired.is_object() && existing.iter().any(|existing| matches_desired(existing, desired))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_of_the_api_server_are_ignored() {
        assert!(matches_desired(&json!({"a": 1, "b": {"c": 2, "d": 3}}), &json!({"b": {"c": 2}})));
    }

    #[test]
    fn lists_with_different_items_do_not_match() {
        let desired = json!({"args": ["x", "y"]});
        for existing in
            [json!({"args": ["x", "z"]}), json!({"args": ["x"]}), json!({}), json!({"args": ["x", "y", "z"]})]
        {
            assert!(!matches_desired(&existing, &desired), "{existing}");
        }
    }

    #[test]
    fn order_matters_for_arguments_but_not_for_objects() {
        assert!(matches_desired(&json!([{"p": 1, "x": 0}, {"p": 2}]), &json!([{"p": 2}, {"p": 1}])));
        assert!(!matches_desired(&json!(["a", "b"]), &json!(["b", "a"])));
    }
}
