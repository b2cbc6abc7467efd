//! Fields that somebody else has added to a workload: server-side apply leaves what it does not own, so these are found
//! by their owners (<https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management>). Pure.

use akrobateo_core::FIELD_MANAGER;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde_json::{Map, Value};

/// Where `kubectl rollout restart` leaves its mark, which is nobody's business but its user's.
const TEMPLATE_ANNOTATIONS: &str = "f:annotations";

/// The operation of what was written by server-side apply.
const SERVER_SIDE_APPLY: &str = "Apply";

/// The entries of those who own a part of the spec that we do not: all that needs to be remembered of the entries.
pub(crate) fn foreign_fields(entries: Vec<ManagedFieldsEntry>) -> Vec<ManagedFieldsEntry> {
    let (ours, others): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER)
            && entry.operation.as_deref() == Some(SERVER_SIDE_APPLY)
    });
    let ours = ours.iter().find_map(spec);
    let adds = |entry: &ManagedFieldsEntry| {
        // What was written by way of a subresource, as by kubectl scale, is a value that we set too.
        entry.subresource.is_none()
            && spec(entry).is_some_and(|theirs| ours.is_none_or(|ours| adds_fields(theirs, ours)))
    };
    others.into_iter().filter(adds).collect()
}

fn spec(entry: &ManagedFieldsEntry) -> Option<&Map<String, Value>> {
    entry.fields_v1.as_ref()?.0.get("f:spec")?.as_object()
}

fn adds_fields(theirs: &Map<String, Value>, ours: &Map<String, Value>) -> bool {
    theirs.iter().filter(|(field, _)| *field != "." && *field != TEMPLATE_ANNOTATIONS).any(
        |(field, theirs)| {
            match (theirs.as_object(), ours.get(field).and_then(Value::as_object)) {
                // A template's metadata, in which we have labels only, may hold nothing but annotations.
                (Some(theirs), Some(ours)) => !ours.is_empty() && adds_fields(theirs, ours),
                _ => true,
            }
        },
    )
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
    fn a_field_a_list_item_and_a_label_that_we_do_not_have_are_additions() {
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
    fn what_we_have_too_a_restart_and_a_controllers_status_are_none() {
        let same = json!({ "f:template": { "f:spec": { "f:tolerations": {} } }, "f:replicas": {} });
        let restart =
            json!({ "f:template": { "f:metadata": { "f:annotations": { ".": {}, "f:kubectl": {} } } } });
        let other = json!({ "f:anything": {} });
        for harmless in [
            entry("somebody", "Update", None, &same),
            entry("kubectl-rollout", "Update", None, &restart),
            entry("kube-controller-manager", "Update", Some("status"), &other),
            entry("kubectl", "Update", Some("scale"), &other),
        ] {
            assert_eq!(foreign_fields(vec![ours(), harmless]), []);
        }
    }
}
