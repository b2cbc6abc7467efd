//! Patches that change an environment variable of a workload's container. Pure.

use kube::api::Patch;
use serde_json::{Value, json};

/// Returns a patch that sets a variable of a container. `None` removes the variable.
pub(crate) fn build_env_patch(container: &str, name: &str, value: Option<&str>) -> Patch<Value> {
    let variable = match value {
        Some(value) => json!({ "name": name, "value": value }),
        None => json!({ "name": name, "$patch": "delete" }),
    };
    let container = json!({ "name": container, "env": [variable] });
    Patch::Strategic(json!({ "spec": { "template": { "spec": { "containers": [container] } } } }))
}
