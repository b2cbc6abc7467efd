//! Whether an object in the cluster already is what would be applied. Pure.

use serde_json::Value;

/// Whether `existing` has everything that `desired` says, and in its lists nothing else: what the API server
/// fills in by default is no difference, what somebody changed by hand is.
pub(super) fn matches_desired(existing: &Value, desired: &Value) -> bool {
    match (existing, desired) {
        (Value::Object(existing), Value::Object(desired)) => desired.iter().all(|(key, desired)| {
            existing.get(key).is_some_and(|existing| matches_desired(existing, desired))
        }),
        (Value::Array(existing), Value::Array(desired)) => {
            existing.len() == desired.len()
                && (in_order(existing, desired) || in_any_order(existing, desired))
        }
        (existing, desired) => existing == desired,
    }
}

fn in_order(existing: &[Value], desired: &[Value]) -> bool {
    existing.iter().zip(desired).all(|(existing, desired)| matches_desired(existing, desired))
}

/// Server-side apply merges lists of objects by key, and does not promise an order.
fn in_any_order(existing: &[Value], desired: &[Value]) -> bool {
    desired.iter().all(|desired| {
        desired.is_object() && existing.iter().any(|existing| matches_desired(existing, desired))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_filled_in_by_the_server_are_no_difference() {
        assert!(matches_desired(&json!({"a": 1, "b": {"c": 2, "d": 3}}), &json!({"b": {"c": 2}})));
    }

    #[test]
    fn a_changed_a_missing_and_an_added_item_are_differences() {
        let desired = json!({"args": ["x", "y"]});
        for existing in
            [json!({"args": ["x", "z"]}), json!({"args": ["x"]}), json!({}), json!({"args": ["x", "y", "z"]})]
        {
            assert!(!matches_desired(&existing, &desired), "{existing}");
        }
    }

    #[test]
    fn the_order_of_objects_does_not_matter_that_of_arguments_does() {
        assert!(matches_desired(&json!([{"p": 1, "x": 0}, {"p": 2}]), &json!([{"p": 2}, {"p": 1}])));
        assert!(!matches_desired(&json!(["a", "b"]), &json!(["b", "a"])));
    }
}
