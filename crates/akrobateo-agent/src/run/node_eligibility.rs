//! Decides if a DaemonSet runs a pod on a node, with the rules of the DaemonSet controller. Pure.

use akrobateo_services::spec::tolerates;
use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint,
};
use kube::ResourceExt;

/// The effect of a taint that evicts running pods.
const NO_EXECUTE_EFFECT: &str = "NoExecute";
/// The taints with the effect `NoExecute` that the pods of each DaemonSet tolerate
/// (<https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/#taints-and-tolerations>).
const ALWAYS_TOLERATED_TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// Returns true if the DaemonSet with this pod spec may keep its pod on the node.
///
/// The controller deletes a pod if the node selector or the required node affinity does not match the node. The
/// controller also deletes a pod if the node has a taint with the effect `NoExecute` that the pod does not tolerate. A
/// taint with another effect does not matter, because the pod already runs.
pub(super) fn allows_pod(pod_spec: &PodSpec, node: &Node) -> bool {
    let mut selector = pod_spec.node_selector.iter().flatten();
    selector.all(|(key, value)| node.labels().get(key) == Some(value))
        && required_node_affinity(pod_spec).is_none_or(|affinity| matches_selector(affinity, node))
        && tolerates_evicting_taints(pod_spec, node)
}

fn required_node_affinity(pod_spec: &PodSpec) -> Option<&NodeSelector> {
    let affinity = pod_spec.affinity.as_ref()?.node_affinity.as_ref()?;
    affinity.required_during_scheduling_ignored_during_execution.as_ref()
}

/// Returns true if one of the terms matches the node.
fn matches_selector(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| matches_term(term, node))
}

/// Returns true if the node meets all requirements of the term. As in Kubernetes, a term without requirements never
/// matches.
fn matches_term(term: &NodeSelectorTerm, node: &Node) -> bool {
    let mut expressions = term.match_expressions.iter().flatten().peekable();
    let mut fields = term.match_fields.iter().flatten().peekable();
    if expressions.peek().is_none() && fields.peek().is_none() {
        return false;
    }
    let label = |key: &str| node.labels().get(key).map(String::as_str);
    // `metadata.name` is the only field that Kubernetes supports.
    let field = |key: &str| node.metadata.name.as_deref().filter(|_| key == "metadata.name");
    expressions.all(|requirement| meets_requirement(requirement, label(&requirement.key)))
        && fields.all(|requirement| meets_requirement(requirement, field(&requirement.key)))
}

/// Returns true if the value meets the requirement. `value` is `None` if the node does not have the label.
fn meets_requirement(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = || requirement.values.iter().flatten();
    let compare = |is_met: fn(i64, i64) -> bool| {
        let bound = values().next().and_then(|bound| bound.parse().ok());
        let number = value.and_then(|value| value.parse().ok());
        number.zip(bound).is_some_and(|(number, bound)| is_met(number, bound))
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|value| values().any(|allowed| allowed == value)),
        "NotIn" => value.is_none_or(|value| values().all(|excluded| excluded != value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(|number, bound| number > bound),
        "Lt" => compare(|number, bound| number < bound),
        // A later version of Kubernetes may have more operators. If the agent does not know the operator, its rules
        // must remain.
        _ => true,
    }
}

fn tolerates_evicting_taints(pod_spec: &PodSpec, node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let mut evicting_taints = taints.filter(|taint| taint.effect == NO_EXECUTE_EFFECT);
    let tolerations = pod_spec.tolerations.as_deref().unwrap_or_default();
    let is_always_tolerated = |taint: &Taint| ALWAYS_TOLERATED_TAINTS.contains(&taint.key.as_str());
    evicting_taints.all(|taint| is_always_tolerated(taint) || tolerates(tolerations, taint))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn is_allowed(pod_spec: &Value) -> bool {
        let mut pod_spec = pod_spec.clone();
        pod_spec["containers"] = json!([]);
        let node = json!({
            "metadata": { "name": "n1", "labels": { "zone": "a", "cpus": "8", "os": "linux" } },
            "spec": { "taints": [
                { "key": "node.kubernetes.io/not-ready", "effect": "NoExecute" },
                { "key": "dedicated", "value": "db", "effect": "NoSchedule" },
            ] },
        });
        allows_pod(&serde_json::from_value(pod_spec).unwrap(), &serde_json::from_value(node).unwrap())
    }

    fn affinity(terms: &Value) -> Value {
        let key = "requiredDuringSchedulingIgnoredDuringExecution";
        json!({ "affinity": { "nodeAffinity": { key: { "nodeSelectorTerms": terms } } } })
    }

    #[test]
    fn node_selector_must_match_all_labels() {
        assert!(is_allowed(&json!({})));
        assert!(is_allowed(&json!({ "nodeSelector": { "zone": "a", "os": "linux" } })));
        assert!(!is_allowed(&json!({ "nodeSelector": { "zone": "a", "os": "windows" } })));
    }

    #[test]
    fn required_node_affinity_has_the_operators_of_kubernetes() {
        for (key, operator, values, expected) in [
            ("zone", "In", &["a", "b"][..], true),
            ("zone", "In", &["b"], false),
            ("absent", "In", &["b"], false),
            ("zone", "NotIn", &["a"], false),
            ("absent", "NotIn", &["a"], true),
            ("zone", "Exists", &[], true),
            ("absent", "Exists", &[], false),
            ("zone", "DoesNotExist", &[], false),
            ("absent", "DoesNotExist", &[], true),
            ("cpus", "Gt", &["7"], true),
            ("cpus", "Gt", &["8"], false),
            ("cpus", "Lt", &["9"], true),
            ("zone", "Lt", &["9"], false),
            ("zone", "Unknown", &[], true),
        ] {
            let requirement = json!({ "key": key, "operator": operator, "values": values });
            let terms = json!([{ "matchExpressions": [requirement] }]);
            assert_eq!(is_allowed(&affinity(&terms)), expected, "{key} {operator} {values:?}");
        }
    }

    #[test]
    fn one_term_of_the_node_affinity_must_match_completely() {
        let zone = |value: &str| json!({ "key": "zone", "operator": "In", "values": [value] });
        let name = |value: &str| json!({ "key": "metadata.name", "operator": "In", "values": [value] });
        let terms = |terms: &[Value]| is_allowed(&affinity(&json!(terms)));
        assert!(terms(&[json!({ "matchFields": [name("n1")] })]));
        assert!(!terms(&[json!({ "matchFields": [name("n2")] })]));
        assert!(!terms(&[json!({ "matchExpressions": [zone("a"), zone("b")] })]));
        assert!(!terms(&[json!({ "matchExpressions": [zone("a")], "matchFields": [name("n2")] })]));
        assert!(terms(&[
            json!({ "matchExpressions": [zone("b")] }),
            json!({ "matchExpressions": [zone("a")] })
        ]));
        assert!(!terms(&[json!({})]), "a term without requirements matches no node");
    }

    #[test]
    fn only_an_untolerated_taint_with_the_effect_no_execute_evicts_the_pod() {
        let is_allowed_with_tolerations = |tolerations: Value| {
            let node = json!({ "metadata": { "name": "n1" }, "spec": { "taints": [
                { "key": "maintenance", "value": "yes", "effect": "NoExecute" },
            ] } });
            let pod_spec = json!({ "containers": [], "tolerations": tolerations });
            allows_pod(&serde_json::from_value(pod_spec).unwrap(), &serde_json::from_value(node).unwrap())
        };
        assert!(!is_allowed_with_tolerations(json!([])));
        assert!(!is_allowed_with_tolerations(json!([{ "key": "maintenance", "value": "no" }])));
        assert!(is_allowed_with_tolerations(json!([{ "key": "maintenance", "value": "yes" }])));
        assert!(is_allowed_with_tolerations(json!([{ "operator": "Exists" }])));
    }
}
