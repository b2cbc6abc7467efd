//! Finds fields that other field managers added to a workload
//! (<https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management>). Pure.

use akrobateo_core::FIELD_MANAGER;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde_json::{Map, Value};

/// The field to which `kubectl rollout restart` adds its annotation. Such a restart must not be undone.
const ANNOTATIONS_FIELD: &str = "f:annotations";

/// The operation in the managedFields entries that server-side apply writes.
const APPLY_OPERATION: &str = "Apply";

/// Returns the entries with a foreign field. A foreign field is a field of the spec that another field manager owns and
/// the operator does not own.
///
/// The operator needs only these entries, so the cache drops all others.
pub(crate) fn foreign_fields(entries: Vec<ManagedFieldsEntry>) -> Vec<ManagedFieldsEntry> {
    let (ours, others): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.operation.as_deref() == Some(APPLY_OPERATION)
    });
    let our_spec_fields = ours.iter().find_map(spec_fields);
    let adds_spec_field = |entry: &ManagedFieldsEntry| {
        // A write to a subresource, for example by kubectl scale, adds no field: it changes a field that the operator
        // also sets.
        entry.subresource.is_none()
            && spec_fields(entry).is_some_and(|their_spec| {
                our_spec_fields.is_none_or(|our_spec_fields| has_other_field(their_spec, our_spec_fields))
            })
    };
    others.into_iter().filter(adds_spec_field).collect()
}

fn spec_fields(entry: &ManagedFieldsEntry) -> Option<&Map<String, Value>> {
    entry.fields_v1.as_ref()?.0.get("f:spec")?.as_object()
}

/// Returns true if `theirs` has a field that `ours` does not have.
fn has_other_field(theirs: &Map<String, Value>, ours: &Map<String, Value>) -> bool {
    let fields = theirs.iter().filter(|(field, _)| *field != "." && *field != ANNOTATIONS_FIELD);
    fields.into_iter().any(|(field, value)| {
        match (value.as_object(), ours.get(field).and_then(Value::as_object)) {
            // An empty object means that the operator owns the whole field.
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

    fn our_entry() -> ManagedFieldsEntry {
        let template = json!({
            "f:metadata": { "f:labels": { "f:app": {} } },
            "f:spec": { "f:containers": { "k:{\"name\":\"forward\"}": { ".": {}, "f:image": {} } }, "f:tolerations": {} },
        });
        entry(FIELD_MANAGER, "Apply", None, &json!({ "f:template": template, "f:replicas": {} }))
    }

    #[test]
    fn an_added_field_or_list_item_or_label_is_foreign() {
        for added_field in [
            json!({ "f:template": { "f:spec": { "f:hostNetwork": {} } } }),
            json!({ "f:template": { "f:spec": { "f:nodeSelector": { "f:disk": {} } } } }),
            json!({ "f:template": { "f:spec": { "f:containers": { "k:{\"name\":\"x\"}": { "f:image": {} } } } } }),
            json!({ "f:template": { "f:metadata": { "f:labels": { "f:team": {} } } } }),
            json!({ "f:updateStrategy": { "f:type": {} } }),
        ] {
            let entry_of_kubectl_edit = entry("kubectl-edit", "Update", None, &added_field);
            assert_eq!(
                foreign_fields(vec![our_entry(), entry_of_kubectl_edit.clone()]),
                [entry_of_kubectl_edit],
                "{added_field}"
            );
        }
    }

    #[test]
    fn fields_of_rollout_restarts_subresource_writes_and_the_operator_are_not_foreign() {
        let owned_fields = json!({ "f:template": { "f:spec": { "f:tolerations": {} } }, "f:replicas": {} });
        let restart_annotation =
            json!({ "f:template": { "f:metadata": { "f:annotations": { ".": {}, "f:kubectl": {} } } } });
        let status = json!({ "f:anything": {} });
        for entry in [
            entry("other-manager", "Update", None, &owned_fields),
            entry("kubectl-rollout", "Update", None, &restart_annotation),
            entry("kube-controller-manager", "Update", Some("status"), &status),
            entry("kubectl", "Update", Some("scale"), &status),
        ] {
            assert_eq!(foreign_fields(vec![our_entry(), entry]), []);
        }
    }
}
