//! Reads two facts from the managedFields of a workload: whether the operator applied the workload, and which fields
//! other field managers added (<https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management>).
//! Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, ObjectMeta};
use serde_json::{Map, Value, json};

/// The field to which `kubectl rollout restart` adds its annotation. The operator must not undo such a restart.
const ANNOTATIONS_FIELD: &str = "f:annotations";

/// The operation in the managedFields entries that server-side apply writes.
const APPLY_OPERATION: &str = "Apply";

/// Returns the entries that the operator needs, so that the cache can drop the other entries. The operator needs
/// its own entry in a short form, and the entries of [`added_fields`].
pub(crate) fn relevant_managed_fields(
    operator_instance: &str,
    entries: Vec<ManagedFieldsEntry>,
) -> Vec<ManagedFieldsEntry> {
    let own_entry = entries.iter().find(|entry| is_spec_applied_by(operator_instance, entry)).cloned();
    let short_fields = Some(FieldsV1(json!({ "f:spec": {} })));
    let own_entry = own_entry.map(|entry| ManagedFieldsEntry { fields_v1: short_fields, ..entry });
    own_entry.into_iter().chain(added_fields(operator_instance, entries)).collect()
}

/// Returns true if the operator with the name `operator_instance` applied the spec of the object.
pub(crate) fn is_applied_by(operator_instance: &str, metadata: &ObjectMeta) -> bool {
    metadata.managed_fields.iter().flatten().any(|entry| is_spec_applied_by(operator_instance, entry))
}

fn is_spec_applied_by(operator_instance: &str, entry: &ManagedFieldsEntry) -> bool {
    is_entry_applied_by(operator_instance, entry)
        && entry.subresource.is_none()
        && spec_fields(entry).is_some()
}

fn is_entry_applied_by(operator_instance: &str, entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(operator_instance) && entry.operation.as_deref() == Some(APPLY_OPERATION)
}

/// Returns the spec fields that other field managers own and the operator with the name `operator_instance` does not
/// own. Returns one entry for each field manager.
pub(crate) fn added_fields(
    operator_instance: &str,
    entries: Vec<ManagedFieldsEntry>,
) -> Vec<ManagedFieldsEntry> {
    let (own_entries, other_entries): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|entry| is_entry_applied_by(operator_instance, entry));
    let empty_fields = Map::new();
    let own_spec_fields = own_entries.iter().find_map(spec_fields).unwrap_or(&empty_fields);
    // Writes to subresources are ignored. For example, kubectl scale only changes a field that the operator also sets.
    let other_entries = other_entries.into_iter().filter(|entry| entry.subresource.is_none());
    let added_entries = other_entries.filter_map(|entry| {
        let fields = subtract_fields(spec_fields(&entry)?, own_spec_fields);
        let fields_v1 = Some(FieldsV1(json!({ "f:spec": fields })));
        (!fields.is_empty()).then_some(ManagedFieldsEntry { fields_v1, ..entry })
    });
    added_entries.collect()
}

fn spec_fields(entry: &ManagedFieldsEntry) -> Option<&Map<String, Value>> {
    entry.fields_v1.as_ref()?.0.get("f:spec")?.as_object()
}

/// Returns the fields that the other field manager owns and the operator does not own.
fn subtract_fields(other_fields: &Map<String, Value>, own_fields: &Map<String, Value>) -> Map<String, Value> {
    let fields = other_fields.iter().filter(|(field, _)| *field != "." && *field != ANNOTATIONS_FIELD);
    let remaining_fields = fields.filter_map(|(field, value)| {
        let value = match (value.as_object(), own_fields.get(field).and_then(Value::as_object)) {
            // An empty object means that the operator owns the whole field.
            (Some(_), Some(own_children)) if own_children.is_empty() => return None,
            (Some(children), Some(own_children)) => Value::Object(subtract_fields(children, own_children)),
            _ => return Some((field.clone(), value.clone())),
        };
        value.as_object().is_some_and(|fields| !fields.is_empty()).then(|| (field.clone(), value))
    });
    remaining_fields.collect()
}

/// Returns the paths of the fields in an entry, for example `spec.template.spec.hostPID`.
pub(crate) fn field_paths(entry: &ManagedFieldsEntry) -> Vec<String> {
    let fields = entry.fields_v1.as_ref().and_then(|fields| fields.0.as_object());
    fields.map(|fields| collect_field_paths("", fields)).unwrap_or_default()
}

fn collect_field_paths(parent: &str, fields: &Map<String, Value>) -> Vec<String> {
    let fields = fields.iter().filter(|(field, _)| *field != ".");
    let paths = fields.flat_map(|(field, value)| {
        let path = match field.split_once(':') {
            Some(("f", name)) if parent.is_empty() => name.to_owned(),
            Some(("f", name)) => format!("{parent}.{name}"),
            Some((_, item)) => format!("{parent}[{}]", item.replace(['{', '}', '"'], "").replace(':', "=")),
            None => parent.to_owned(),
        };
        let children =
            value.as_object().map(|children| collect_field_paths(&path, children)).unwrap_or_default();
        if children.is_empty() { vec![path] } else { children }
    });
    paths.collect()
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

    /// Removes the fields of the metadata from the entry, as the function [`added_fields`] does.
    fn without_metadata_fields(entry: ManagedFieldsEntry) -> ManagedFieldsEntry {
        let spec = entry.fields_v1.as_ref().map(|fields| fields.0["f:spec"].clone());
        ManagedFieldsEntry { fields_v1: Some(FieldsV1(json!({ "f:spec": spec }))), ..entry }
    }

    fn own_entry() -> ManagedFieldsEntry {
        let template = json!({
            "f:metadata": { "f:labels": { "f:app": {} } },
            "f:spec": { "f:containers": { "k:{\"name\":\"forward\"}": { ".": {}, "f:image": {} } }, "f:tolerations": {} },
        });
        entry(INSTANCE, "Apply", None, &json!({ "f:template": template, "f:replicas": {} }))
    }

    #[test]
    fn added_fields_include_fields_list_items_and_labels() {
        for added_field in [
            json!({ "f:template": { "f:spec": { "f:hostNetwork": {} } } }),
            json!({ "f:template": { "f:spec": { "f:nodeSelector": { "f:disk": {} } } } }),
            json!({ "f:template": { "f:spec": { "f:containers": { "k:{\"name\":\"x\"}": { "f:image": {} } } } } }),
            json!({ "f:template": { "f:metadata": { "f:labels": { "f:team": {} } } } }),
            json!({ "f:updateStrategy": { "f:type": {} } }),
        ] {
            let edit_entry = entry("kubectl-edit", "Update", None, &added_field);
            let entries = vec![own_entry(), edit_entry.clone()];
            assert_eq!(
                added_fields(INSTANCE, entries),
                [without_metadata_fields(edit_entry)],
                "{added_field}"
            );
        }
    }

    #[test]
    fn rollout_restarts_and_writes_to_subresources_do_not_add_fields() {
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
            assert_eq!(added_fields(INSTANCE, vec![own_entry(), entry]), []);
        }
    }

    #[test]
    fn is_applied_by_requires_an_apply_of_the_spec_by_the_operator_instance() {
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
    fn relevant_entries_contain_all_added_fields() {
        let owned_entry = entry("other", "Update", None, &json!({ "f:replicas": {} }));
        let added_entry = entry("other", "Update", None, &json!({ "f:paused": {} }));
        let relevant_entries =
            relevant_managed_fields(INSTANCE, vec![own_entry(), owned_entry, added_entry.clone()]);
        assert_eq!(added_fields(INSTANCE, relevant_entries), [without_metadata_fields(added_entry)]);
    }

    #[test]
    fn field_paths_contain_only_the_added_fields() {
        let container =
            json!({ ".": {}, "f:image": {}, "f:env": { "k:{\"name\":\"X\"}": { ".": {}, "f:value": {} } } });
        let spec = json!({ "f:containers": { "k:{\"name\":\"forward\"}": container }, "f:hostPID": {} });
        let edit_entry =
            entry("other", "Update", None, &json!({ "f:template": { "f:spec": spec }, "f:replicas": {} }));
        let relevant_entries = relevant_managed_fields(INSTANCE, vec![own_entry(), edit_entry]);
        let paths: Vec<_> = added_fields(INSTANCE, relevant_entries).iter().flat_map(field_paths).collect();
        let expected =
            ["spec.template.spec.containers[name=forward].env[name=X].value", "spec.template.spec.hostPID"];
        assert_eq!(paths, expected);
    }
}
