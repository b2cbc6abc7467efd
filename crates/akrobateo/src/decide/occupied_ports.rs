//! The ports that the proxies of a Service occupy, and the nodes of these ports. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use akrobateo_core::Frontend;
use akrobateo_services::allocation::OccupiedPorts;
use akrobateo_services::node_info::NodeInfo;
use akrobateo_services::spec::tolerates;
use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec};

use super::host_ip::occupied_frontends;
use super::pod_status::{required_node_terms, runs_on};
use super::workload::Workload;

/// Returns the ports and the nodes that a Service's workloads occupy. A node of a
/// workload is occupied even while the node's pod is being replaced.
pub(crate) fn occupied_ports(workloads: &[Workload], pods: &[Arc<Pod>], nodes: &[NodeInfo]) -> OccupiedPorts {
    let specs: Vec<_> = workloads.iter().filter_map(Workload::pod_spec).collect();
    let frontends = specs.iter().copied().flat_map(spec_frontends);
    let is_occupied = |node: &&NodeInfo| {
        specs.iter().any(|spec| selects_node(spec, node))
            || pods.iter().any(|pod| is_active_on(pod, &node.name))
    };
    let occupied_nodes = nodes.iter().filter(is_occupied).map(|node| node.name.clone());
    OccupiedPorts { frontends: frontends.collect(), nodes: occupied_nodes.collect(), is_assumed: false }
}

/// Returns the ports that a pod occupies on its node.
pub(crate) fn pod_frontends(pod: &Pod) -> BTreeSet<Frontend> {
    pod.spec.iter().flat_map(spec_frontends).collect()
}

fn spec_frontends(spec: &PodSpec) -> impl Iterator<Item = Frontend> {
    let ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
    ports.flat_map(occupied_frontends)
}

/// Returns true if the pod is on the node and has not ended.
fn is_active_on(pod: &Pod, node: &str) -> bool {
    runs_on(pod, node) && !has_ended(pod)
}

/// Returns true if all containers of a pod have ended and will not start again.
pub(super) fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Returns true if new pods with this spec may run on the node.
pub(super) fn selects_node(spec: &PodSpec, node: &NodeInfo) -> bool {
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    node.is_linux
        && is_selected_by_affinity(spec, node)
        && node.taints.iter().all(|taint| tolerates(tolerations, taint))
}

/// Returns true if the affinity in this spec selects the node.
pub(super) fn is_selected_by_affinity(spec: &PodSpec, node: &NodeInfo) -> bool {
    required_node_terms(spec).is_none_or(|terms| terms.iter().any(|term| matches_term(term, node)))
}

fn matches_term(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    let label_value =
        |requirement: &NodeSelectorRequirement| node.labels.get(&requirement.key).map(String::as_str);
    let mut expressions = term.match_expressions.iter().flatten();
    let mut fields = term.match_fields.iter().flatten();
    // The names are compared first, because a list of nodes has one term for each node, and most terms name another
    // node.
    fields.all(|requirement| meets_requirement(requirement, Some(&node.name)))
        && expressions.all(|requirement| meets_requirement(requirement, label_value(requirement)))
}

/// Returns true if a label or field with this value meets the requirement. Returns false if the requirement has an
/// operator that Akrobateo does not use, for example `Gt`.
fn meets_requirement(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let mut values = requirement.values.iter().flatten();
    let is_listed = value.is_some_and(|value| values.any(|listed_value| listed_value == value));
    match requirement.operator.as_str() {
        "In" => is_listed,
        "NotIn" => !is_listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixtures::{node, pod};
    use crate::decide::workload_fixtures::daemonset;

    const NODE_NAMES: [&str; 3] = ["n1", "n2", "n3"];

    fn occupied_nodes(
        annotations: &[(&str, &str)],
        owned_nodes: Option<&[&str]>,
        pods: Vec<Pod>,
    ) -> Vec<String> {
        let nodes: Vec<_> = NODE_NAMES.map(|name| node(name).label("name", name).build()).into();
        let tainted_node = node("n4").taint("dedicated").label("name", "n4").build();
        let nodes: Vec<_> = nodes.iter().chain([&tainted_node]).map(NodeInfo::from_node).collect();
        let owned_nodes =
            owned_nodes.map(|names| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>());
        let workload = daemonset(annotations, owned_nodes.as_ref());
        let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
        occupied_ports(&[workload], &pods, &nodes).nodes.into_iter().collect()
    }

    #[test]
    fn workload_occupies_its_selected_nodes_before_it_has_pods() {
        let selector = [("akrobateo.io/node-selector", "name in (n1,n2)")];
        assert_eq!(occupied_nodes(&[], None, Vec::new()), ["n1", "n2", "n3"]);
        assert_eq!(occupied_nodes(&selector, None, Vec::new()), ["n1", "n2"]);
        assert_eq!(occupied_nodes(&selector, Some(&["n2"]), Vec::new()), ["n2"]);
        assert_eq!(occupied_nodes(&[], Some(&["n2", "n3"]), Vec::new()), ["n2", "n3"]);
        let tolerations = [("akrobateo.io/tolerations", "[{key: dedicated, operator: Exists}]")];
        assert_eq!(occupied_nodes(&tolerations, None, Vec::new()), ["n1", "n2", "n3", "n4"]);
    }

    #[test]
    fn workload_occupies_the_nodes_of_its_pods_until_the_pods_end() {
        let owned_nodes: Option<&[&str]> = Some(&["n1"]);
        assert_eq!(occupied_nodes(&[], owned_nodes, vec![pod("a").on("n4").build()]), ["n1", "n4"]);
        let mut ended_pod = pod("a").on("n4").ready().build();
        ended_pod.status.as_mut().unwrap().phase = Some("Failed".to_owned());
        assert_eq!(occupied_nodes(&[], owned_nodes, vec![ended_pod]), ["n1"]);
    }
}
