//! Reads from managedFields whether the operator applied a workload, and which fields other field managers added
//! (<https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management>). Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, ObjectMeta};
use serde_json::{Map, Value, json};

/// The field to which `kubectl rollout restart` adds its annotation. Such a restart must not be undone.
const ANNOTATIONS_FIELD: &str = "f:annotations";

/// The operation in the managedFields entries that server-side apply writes.
const APPLY_OPERATION: &str = "Apply";

/// Returns the entries that the operator needs, so that caches can drop the others: a short form of its own entry, and
/// those of [`foreign_fields`].
pub(crate) fn relevant_managed_fields(
    instance: &str,
    entries: Vec<ManagedFieldsEntry>,
) -> Vec<ManagedFieldsEntry> {
    let own = entries.iter().find(|entry| is_own_spec(instance, entry)).cloned();
    let own = own.map(|own| ManagedFieldsEntry { fields_v1: Some(FieldsV1(json!({ "f:spec": {} }))), ..own });
    own.into_iter().chain(foreign_fields(instance, entries)).collect()
}

/// Returns true if the operator `instance` applied the spec of the object.
pub(crate) fn is_applied_by(instance: &str, metadata: &ObjectMeta) -> bool {
    metadata.managed_fields.iter().flatten().any(|entry| is_own_spec(instance, entry))
}

fn is_own_spec(instance: &str, entry: &ManagedFieldsEntry) -> bool {
    is_own(instance, entry) && entry.subresource.is_none() && spec_fields(entry).is_some()
}

fn is_own(instance: &str, entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(instance) && entry.operation.as_deref() == Some(APPLY_OPERATION)
}

/// Returns each entry in which another field manager owns a spec field that the operator `instance` does not own.
pub(crate) fn foreign_fields(instance: &str, entries: Vec<ManagedFieldsEntry>) -> Vec<ManagedFieldsEntry> {
    let (ours, others): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| is_own(instance, entry));
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
    use super::*;

    const INSTANCE: &str = "akrobateo";

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
        entry(INSTANCE, "Apply", None, &json!({ "f:template": template, "f:replicas": {} }))
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
            let edit_entry = entry("kubectl-edit", "Update", None, &added_field);
            let entries = vec![our_entry(), edit_entry.clone()];
            assert_eq!(foreign_fields(INSTANCE, entries), [edit_entry], "{added_field}");
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
            assert_eq!(foreign_fields(INSTANCE, vec![our_entry(), entry]), []);
        }
    }

    #[test]
    fn only_an_apply_of_the_spec_by_the_instance_counts_as_applied() {
        let is_applied = |entry| {
            let entries = relevant_managed_fields(INSTANCE, vec![entry]);
            is_applied_by(INSTANCE, &ObjectMeta { managed_fields: Some(entries), ..ObjectMeta::default() })
        };
        let spec = json!({ "f:replicas": {} });
        assert!(is_applied(entry(INSTANCE, "Apply", None, &spec)));
        for other in [
            entry(INSTANCE, "Update", None, &spec),
            entry("other", "Apply", None, &spec),
            entry(INSTANCE, "Apply", Some("status"), &spec),
            entry(INSTANCE, "Apply", None, &Value::Null),
        ] {
            assert!(!is_applied(other.clone()), "{other:?}");
        }
    }

    #[test]
    fn relevant_entries_keep_foreign_fields_foreign() {
        let owned = entry("other", "Update", None, &json!({ "f:replicas": {} }));
        let added = entry("other", "Update", None, &json!({ "f:paused": {} }));
        let relevant = relevant_managed_fields(INSTANCE, vec![our_entry(), owned, added.clone()]);
        assert_eq!(foreign_fields(INSTANCE, relevant), [added]);
    }
}
