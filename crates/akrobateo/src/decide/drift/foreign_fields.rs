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

/// Returns the spec fields that other field managers own and the operator `instance` does not own, in one entry for each
/// manager.
pub(crate) fn foreign_fields(instance: &str, entries: Vec<ManagedFieldsEntry>) -> Vec<ManagedFieldsEntry> {
    let (ours, others): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| is_own(instance, entry));
    let nothing = Map::new();
    let our_spec_fields = ours.iter().find_map(spec_fields).unwrap_or(&nothing);
    // A write to a subresource, for example by kubectl scale, adds no field: it changes a field that the operator also
    // sets.
    let others = others.into_iter().filter(|entry| entry.subresource.is_none());
    let added = others.filter_map(|entry| {
        let fields = other_fields(spec_fields(&entry)?, our_spec_fields);
        let fields_v1 = Some(FieldsV1(json!({ "f:spec": fields })));
        (!fields.is_empty()).then_some(ManagedFieldsEntry { fields_v1, ..entry })
    });
    added.collect()
}

fn spec_fields(entry: &ManagedFieldsEntry) -> Option<&Map<String, Value>> {
    entry.fields_v1.as_ref()?.0.get("f:spec")?.as_object()
}

/// Returns the fields of `theirs` that `ours` does not have.
fn other_fields(theirs: &Map<String, Value>, ours: &Map<String, Value>) -> Map<String, Value> {
    let fields = theirs.iter().filter(|(field, _)| *field != "." && *field != ANNOTATIONS_FIELD);
    let others = fields.filter_map(|(field, value)| {
        let value = match (value.as_object(), ours.get(field).and_then(Value::as_object)) {
            // An empty object means that the operator owns the whole field.
            (Some(_), Some(ours)) if ours.is_empty() => return None,
            (Some(theirs), Some(ours)) => Value::Object(other_fields(theirs, ours)),
            _ => return Some((field.clone(), value.clone())),
        };
        value.as_object().is_some_and(|fields| !fields.is_empty()).then(|| (field.clone(), value))
    });
    others.collect()
}

/// Returns the paths of the fields in an entry, for example `spec.template.spec.hostPID`.
pub(crate) fn field_paths(entry: &ManagedFieldsEntry) -> Vec<String> {
    let fields = entry.fields_v1.as_ref().and_then(|fields| fields.0.as_object());
    fields.map(|fields| paths("", fields)).unwrap_or_default()
}

fn paths(parent: &str, fields: &Map<String, Value>) -> Vec<String> {
    let fields = fields.iter().filter(|(field, _)| *field != ".");
    let paths = fields.flat_map(|(field, value)| {
        let path = match field.split_once(':') {
            Some(("f", name)) if parent.is_empty() => name.to_owned(),
            Some(("f", name)) => format!("{parent}.{name}"),
            Some((_, item)) => format!("{parent}[{}]", item.replace(['{', '}', '"'], "").replace(':', "=")),
            None => parent.to_owned(),
        };
        let children = value.as_object().map(|children| self::paths(&path, children)).unwrap_or_default();
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

    /// Returns an entry as [`foreign_fields`] does: without its metadata.
    fn spec_only(entry: ManagedFieldsEntry) -> ManagedFieldsEntry {
        let spec = entry.fields_v1.as_ref().map(|fields| fields.0["f:spec"].clone());
        ManagedFieldsEntry { fields_v1: Some(FieldsV1(json!({ "f:spec": spec }))), ..entry }
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
            assert_eq!(foreign_fields(INSTANCE, entries), [spec_only(edit_entry)], "{added_field}");
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
        assert_eq!(foreign_fields(INSTANCE, relevant), [spec_only(added)]);
    }

    #[test]
    fn paths_name_only_the_added_fields() {
        let container =
            json!({ ".": {}, "f:image": {}, "f:env": { "k:{\"name\":\"X\"}": { ".": {}, "f:value": {} } } });
        let spec = json!({ "f:containers": { "k:{\"name\":\"forward\"}": container }, "f:hostPID": {} });
        let edit =
            entry("other", "Update", None, &json!({ "f:template": { "f:spec": spec }, "f:replicas": {} }));
        let relevant = relevant_managed_fields(INSTANCE, vec![our_entry(), edit]);
        let paths: Vec<_> = foreign_fields(INSTANCE, relevant).iter().flat_map(field_paths).collect();
        let expected =
            ["spec.template.spec.containers[name=forward].env[name=X].value", "spec.template.spec.hostPID"];
        assert_eq!(paths, expected);
    }
}
