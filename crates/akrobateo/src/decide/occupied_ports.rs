//! The ports and nodes that the workload of a Service holds. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use akrobateo_core::Frontend;
use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec};

use super::host_ip::occupied_frontends;
use super::pod_status::runs_on;
use super::workload::Workload;
use crate::allocation::OccupiedPorts;
use crate::node_info::NodeInfo;
use crate::spec::tolerates;

/// Returns what a Service's workloads hold: also on nodes where their pod is being replaced.
pub(crate) fn occupied_ports(workloads: &[Workload], pods: &[Arc<Pod>], nodes: &[NodeInfo]) -> OccupiedPorts {
    let specs: Vec<_> = workloads.iter().filter_map(Workload::pod_spec).collect();
    let containers = specs.iter().flat_map(|spec| &spec.containers);
    let frontends =
        containers.flat_map(|container| container.ports.iter().flatten()).flat_map(occupied_frontends);
    let is_held = |node: &&NodeInfo| {
        specs.iter().any(|spec| selects(spec, node)) || pods.iter().any(|pod| is_active_on(pod, &node.name))
    };
    let held_nodes = nodes.iter().filter(is_held).map(|node| node.name.clone());
    OccupiedPorts { frontends: frontends.collect(), nodes: held_nodes.collect() }
}

/// Returns the ports of its node that a pod holds.
pub(crate) fn pod_frontends(pod: &Pod) -> BTreeSet<Frontend> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers.flat_map(|container| container.ports.iter().flatten()).flat_map(occupied_frontends).collect()
}

/// Returns true if a pod on the node has not ended.
fn is_active_on(pod: &Pod, node: &str) -> bool {
    runs_on(pod, node) && !has_ended(pod)
}

/// Returns true if the containers of a pod have ended for good.
pub(super) fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Returns true if new pods of this spec may run on the node.
pub(super) fn selects(spec: &PodSpec, node: &NodeInfo) -> bool {
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    node.is_linux
        && is_selected_by_affinity(spec, node)
        && node.taints.iter().all(|taint| tolerates(tolerations, taint))
}

/// Returns true if the affinity in this spec selects the node.
pub(super) fn is_selected_by_affinity(spec: &PodSpec, node: &NodeInfo) -> bool {
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let selector =
        affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    selector.is_none_or(|selector| selector.node_selector_terms.iter().any(|term| matches_term(term, node)))
}

fn matches_term(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    let label = |requirement: &NodeSelectorRequirement| node.labels.get(&requirement.key).map(String::as_str);
    let mut expressions = term.match_expressions.iter().flatten();
    let mut fields = term.match_fields.iter().flatten();
    expressions.all(|requirement| meets(requirement, label(requirement)))
        && fields.all(|requirement| meets(requirement, Some(&node.name)))
}

/// Returns true if a value meets a requirement of the kinds that the operator writes.
fn meets(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let mut values = requirement.values.iter().flatten();
    let is_listed = value.is_some_and(|value| values.any(|listed| listed == value));
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

    const NAMES: [&str; 3] = ["n1", "n2", "n3"];

    fn held_nodes(annotations: &[(&str, &str)], owned: Option<&[&str]>, pods: Vec<Pod>) -> Vec<String> {
        let nodes: Vec<_> = NAMES.map(|name| node(name).label("name", name).build()).into();
        let tainted = node("n4").taint("dedicated").label("name", "n4").build();
        let nodes: Vec<_> = nodes.iter().chain([&tainted]).map(NodeInfo::from_node).collect();
        let owned = owned.map(|names| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>());
        let workload = daemonset(annotations, owned.as_ref());
        let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
        occupied_ports(&[workload], &pods, &nodes).nodes.into_iter().collect()
    }

    #[test]
    fn a_workload_holds_the_nodes_that_it_selects_also_without_a_pod() {
        let selector = [("akrobateo.io/node-selector", "name in (n1,n2)")];
        assert_eq!(held_nodes(&[], None, Vec::new()), ["n1", "n2", "n3"]);
        assert_eq!(held_nodes(&selector, None, Vec::new()), ["n1", "n2"]);
        assert_eq!(held_nodes(&selector, Some(&["n2"]), Vec::new()), ["n2"]);
        assert_eq!(held_nodes(&[], Some(&["n2", "n3"]), Vec::new()), ["n2", "n3"]);
        let tolerations = [("akrobateo.io/tolerations", "[{key: dedicated, operator: Exists}]")];
        assert_eq!(held_nodes(&tolerations, None, Vec::new()), ["n1", "n2", "n3", "n4"]);
    }

    #[test]
    fn a_workload_holds_the_nodes_of_its_pods_until_they_end() {
        let owned: Option<&[&str]> = Some(&["n1"]);
        assert_eq!(held_nodes(&[], owned, vec![pod("a").on("n4").build()]), ["n1", "n4"]);
        let mut ended = pod("a").on("n4").ready().build();
        ended.status.as_mut().unwrap().phase = Some("Failed".to_owned());
        assert_eq!(held_nodes(&[], owned, vec![ended]), ["n1"]);
    }
}
