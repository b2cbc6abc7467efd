//! Finds fields that other field managers added to a workload
//! (<https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management>). Pure.

use akrobateo_core::FIELD_MANAGER;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde_json::{Map, Value};

/// The field to which `kubectl rollout restart` adds its annotation. Such a restart must not be undone.
const TEMPLATE_ANNOTATIONS: &str = "f:annotations";

/// The operation of fields that were written by server-side apply.
const APPLY_OPERATION: &str = "Apply";

/// Returns the entries of other field managers that own a field of the spec that we do not own.
///
/// Only these entries matter, so caches can drop all others.
pub(crate) fn foreign_fields(entries: Vec<ManagedFieldsEntry>) -> Vec<ManagedFieldsEntry> {
    let (ours, others): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.operation.as_deref() == Some(APPLY_OPERATION)
    });
    let our_spec = ours.iter().find_map(spec_fields);
    let adds_to_spec = |entry: &ManagedFieldsEntry| {
        // A write to a subresource, such as kubectl scale, changes a field that we also set.
        entry.subresource.is_none()
            && spec_fields(entry).is_some_and(|their_spec| {
                our_spec.is_none_or(|our_spec| has_other_field(their_spec, our_spec))
            })
    };
    others.into_iter().filter(adds_to_spec).collect()
}

fn spec_fields(entry: &ManagedFieldsEntry) -> Option<&Map<String, Value>> {
    entry.fields_v1.as_ref()?.0.get("f:spec")?.as_object()
}

/// Returns true if `theirs` has a field that `ours` does not have.
fn has_other_field(theirs: &Map<String, Value>, ours: &Map<String, Value>) -> bool {
    let fields = theirs.iter().filter(|(field, _)| *field != "." && *field != TEMPLATE_ANNOTATIONS);
    fields.into_iter().any(|(field, value)| {
        match (value.as_object(), ours.get(field).and_then(Value::as_object)) {
            // An empty object is a field that we own as a whole.
            (Some(theirs), Some(ours)) => !ours.is_empty() && has_other_field(theirs, ours),
            _ => true,
        }
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldsV1;
    use serde_json::json;

    use super::*;

    fn entry(manager: &str, operation: &str, subresource: Option<&str>, spec: &Value) -> ManagedFieldsEntry {
        ManagedFieldsEntry {
            manager: Some(manager.to_owned()),
            operation: Some(operation.to_owned()),
            subresource: subresource.map(str::to_owned),
            fields_v1: Some(FieldsV1(json!({ "f:metadata": { "f:annotations": {} }, "f:spec": spec }))),
            ..ManagedFieldsEntry::default()
        }
    }

    fn ours() -> ManagedFieldsEntry {
        let template = json!({
            "f:metadata": { "f:labels": { "f:app": {} } },
            "f:spec": { "f:containers": { "k:{\"name\":\"forward\"}": { ".": {}, "f:image": {} } }, "f:tolerations": {} },
        });
        entry(FIELD_MANAGER, "Apply", None, &json!({ "f:template": template, "f:replicas": {} }))
    }

    #[test]
    fn added_fields_list_items_and_labels_are_foreign() {
        for added in [
            json!({ "f:template": { "f:spec": { "f:hostNetwork": {} } } }),
            json!({ "f:template": { "f:spec": { "f:nodeSelector": { "f:disk": {} } } } }),
            json!({ "f:template": { "f:spec": { "f:containers": { "k:{\"name\":\"x\"}": { "f:image": {} } } } } }),
            json!({ "f:template": { "f:metadata": { "f:labels": { "f:team": {} } } } }),
            json!({ "f:updateStrategy": { "f:type": {} } }),
        ] {
            let edit = entry("kubectl-edit", "Update", None, &added);
            assert_eq!(foreign_fields(vec![ours(), edit.clone()]), [edit], "{added}");
        }
    }

    #[test]
    fn our_own_fields_a_rollout_restart_and_subresources_are_not_foreign() {
        let owned = json!({ "f:template": { "f:spec": { "f:tolerations": {} } }, "f:replicas": {} });
        let restart =
            json!({ "f:template": { "f:metadata": { "f:annotations": { ".": {}, "f:kubectl": {} } } } });
        let status = json!({ "f:anything": {} });
        for entry in [
            entry("other-manager", "Update", None, &owned),
            entry("kubectl-rollout", "Update", None, &restart),
            entry("kube-controller-manager", "Update", Some("status"), &status),
            entry("kubectl", "Update", Some("scale"), &status),
        ] {
            assert_eq!(foreign_fields(vec![ours(), entry]), []);
        }
    }
}
