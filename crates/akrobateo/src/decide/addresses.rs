//! The addresses in a Service's status: the addresses of the nodes that can answer. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use akrobateo_core::Family;
use akrobateo_services::address_type::AddressType;
use akrobateo_services::node_info::NodeInfo;
use akrobateo_services::published::is_published;
use akrobateo_services::spec::{IpMode, LoadBalancerSpec};
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};
use k8s_openapi::jiff::Timestamp;

use super::node_readiness::NodeReadiness;
use super::note::join_families;

/// The inputs that determine the addresses of a Service, except the Service itself.
pub(super) struct AddressInputs<'a, 'nodes> {
    pub(super) nodes: &'nodes [NodeInfo],
    /// Returns the readiness of a node. A node that is changing stays published for a short time.
    ///
    /// During a rollout, a node has no proxy for one or two seconds, and for longer if the proxy has many ports. If the
    /// status were empty during this time, ExternalDNS would delete the DNS records.
    pub(super) readiness: &'a dyn Fn(&NodeInfo) -> NodeReadiness,
    /// Returns true if a node may be published.
    pub(super) may_be_published: &'a dyn Fn(&NodeInfo) -> bool,
    /// The nodes that are published although they are not ready.
    pub(super) unclaimed_nodes: &'a BTreeSet<String>,
    /// True if Kubernetes may start the replacement of a proxy on another node.
    pub(super) proxies_can_move: bool,
    pub(super) now: Timestamp,
}

/// The nodes to publish.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct PublishableNodes<'a> {
    pub(super) nodes: Vec<&'a NodeInfo>,
    /// The time of the next check. The nodes to publish may change at this time without an event.
    pub(super) recheck_at: Option<Timestamp>,
}

/// Returns the ready nodes, the published nodes that are changing, and the unclaimed nodes.
pub(super) fn select_nodes_to_publish<'nodes>(
    service: &Service,
    inputs: &AddressInputs<'_, 'nodes>,
) -> PublishableNodes<'nodes> {
    // If all nodes are unreachable, the control plane has probably lost its network. Kubernetes then reports the pods
    // as not ready, but the nodes still forward. The operator therefore keeps the published addresses. The check
    // ignores nodes with the exclude label. The nodes of the control plane often have this label, and need no network
    // to reach the control plane.
    let mut nodes_without_exclude_label =
        inputs.nodes.iter().filter(|node| !node.has_exclude_label()).peekable();
    if nodes_without_exclude_label.peek().is_some()
        && nodes_without_exclude_label.all(NodeInfo::is_unreachable)
    {
        let nodes = inputs.nodes.iter().filter(|node| is_published(service, node)).collect();
        return PublishableNodes { nodes, recheck_at: None };
    }
    let mut ready_nodes = PublishableNodes::default();
    let mut changing_nodes = PublishableNodes::default();
    for node in inputs.nodes {
        if node.exclusion_reason.is_some() || !(inputs.may_be_published)(node) {
            continue;
        }
        let readiness = (inputs.readiness)(node);
        if readiness == NodeReadiness::Ready || inputs.unclaimed_nodes.contains(&node.name) {
            ready_nodes.nodes.push(node);
        } else if let NodeReadiness::Changing { grace_period_end } = readiness
            && grace_period_end > inputs.now
            && is_published(service, node)
        {
            changing_nodes.nodes.push(node);
            changing_nodes.recheck_at = changing_nodes.recheck_at.into_iter().chain([grace_period_end]).min();
        }
    }
    // If proxies can move, the next proxy may run on another node. A changing node then stays published only if no
    // other node is published, because the status must not become empty.
    if !inputs.proxies_can_move || ready_nodes.nodes.is_empty() {
        ready_nodes.nodes.append(&mut changing_nodes.nodes);
        ready_nodes.recheck_at = changing_nodes.recheck_at;
    }
    ready_nodes
}

/// Returns the nodes to publish while no node can answer, because the first node with an endpoint is not ready yet.
/// Only published nodes that are ready stay published. These nodes have no endpoint any more, but an empty status would
/// remove the DNS records of the Service.
///
/// `may_stay_published` returns true if a node may be published without an endpoint.
pub(super) fn select_nodes_until_first_ready_node<'nodes>(
    service: &Service,
    inputs: &AddressInputs<'_, 'nodes>,
    may_stay_published: &dyn Fn(&NodeInfo) -> bool,
) -> PublishableNodes<'nodes> {
    let included_nodes = inputs.nodes.iter().filter(|node| node.exclusion_reason.is_none());
    let starting_nodes = included_nodes.clone().filter(|node| (inputs.may_be_published)(node));
    let grace_period_ends = starting_nodes.filter_map(|node| match (inputs.readiness)(node) {
        NodeReadiness::Changing { grace_period_end } => Some(grace_period_end),
        NodeReadiness::NotReady | NodeReadiness::Ready => None,
    });
    let Some(recheck_at) = grace_period_ends.filter(|end| *end > inputs.now).max() else {
        return PublishableNodes::default();
    };
    let nodes = included_nodes.filter(|node| {
        is_published(service, node)
            && may_stay_published(node)
            && (inputs.readiness)(node) == NodeReadiness::Ready
    });
    PublishableNodes { nodes: nodes.collect(), recheck_at: Some(recheck_at) }
}

/// Returns the addresses of a node with the address types and families that the Service publishes.
pub(super) fn addresses_to_publish(spec: &LoadBalancerSpec, node: &NodeInfo) -> Vec<IpAddr> {
    let mut addresses = node.addresses_to_publish(&spec.address_types);
    addresses.retain(|address| spec.published_families().any(|family| family == Family::from_ip(*address)));
    addresses
}

/// Returns the description of the address that a node lacks, for example `no IPv4 address of type InternalIP`.
pub(super) fn describe_missing_address(spec: &LoadBalancerSpec) -> String {
    let families = join_families(&spec.published_families().collect::<Vec<_>>(), " or ");
    let types: Vec<_> = spec.address_types.iter().copied().map(AddressType::as_str).collect();
    format!("no {families} address of type {}", types.join(" or "))
}

/// Returns the addresses for the status, without duplicates. The families are in the order of the Service. The
/// addresses of a family are in numerical order.
///
/// `ip_mode` returns the ipMode of a node's address. If several nodes have the same address and one of them has ipMode
/// Proxy, the result is ipMode Proxy.
pub(super) fn build_ingress(
    spec: &LoadBalancerSpec,
    nodes: &[&NodeInfo],
    ip_mode: &dyn Fn(&NodeInfo, IpAddr) -> IpMode,
) -> Vec<LoadBalancerIngress> {
    let mut ip_modes: BTreeMap<IpAddr, IpMode> = BTreeMap::new();
    for node in nodes {
        for address in addresses_to_publish(spec, node) {
            let node_mode = ip_mode(node, address);
            let address_mode = ip_modes.entry(address).or_insert(node_mode);
            if node_mode == IpMode::Proxy {
                *address_mode = IpMode::Proxy;
            }
        }
    }
    let addresses_of_family =
        |family| ip_modes.iter().filter(move |(address, _)| Family::from_ip(**address) == family);
    spec.published_families()
        .flat_map(addresses_of_family)
        .map(|(address, mode)| LoadBalancerIngress {
            ip: Some(address.to_string()),
            ip_mode: Some(mode.as_str().to_owned()),
            ..LoadBalancerIngress::default()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use akrobateo_services::node_info::UNREACHABLE_TAINT;
    use k8s_openapi::api::core::v1::{Node, Pod};

    use super::*;
    use crate::decide::fixtures::{at, defaults, node, pod, service};
    use crate::decide::node_readiness::proxy_readiness;
    use crate::decide::pod_status::nodes_with_ready_pod;
    use crate::decide::rollout_limits::replacement_time;
    use crate::decide::{PodChangeTimes, ServiceState};

    /// Returns the addresses to publish at the time `now_seconds`. The pods of all nodes changed at 100 s.
    fn published_ips(service: &Service, pods: Vec<Pod>, nodes: &[Node], now_seconds: i64) -> Vec<String> {
        let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
        let nodes: Vec<_> = nodes.iter().map(NodeInfo::from_node).collect();
        let last_change_times = nodes.iter().map(|node| (node.name.clone(), at(100))).collect();
        let pod_change_times = PodChangeTimes { last_change_times, ..PodChangeTimes::default() };
        let state = ServiceState { pods, pod_change_times, ..ServiceState::default() };
        let ready_nodes = nodes_with_ready_pod(&state.pods);
        let unclaimed_nodes = BTreeSet::new();
        let inputs = AddressInputs {
            nodes: &nodes,
            readiness: &|node| proxy_readiness(&state, &ready_nodes, node, true, replacement_time(1)),
            may_be_published: &|_| true,
            unclaimed_nodes: &unclaimed_nodes,
            proxies_can_move: false,
            now: at(now_seconds),
        };
        let publishable_nodes = select_nodes_to_publish(service, &inputs);
        let spec = LoadBalancerSpec::from_service(service, &defaults()).unwrap();
        let ingress = build_ingress(&spec, &publishable_nodes.nodes, &|_, _| spec.ip_mode);
        ingress.into_iter().filter_map(|ingress| ingress.ip).collect()
    }

    #[test]
    fn nodes_with_a_ready_proxy_are_published_in_numerical_order() {
        let service = service("web").tcp(80).build();
        let nodes = vec![
            node("n1").internal_ip("10.0.0.100").build(),
            node("n2").internal_ip("10.0.0.20").build(),
            node("n3").internal_ip("10.0.0.3").build(),
            node("n4").internal_ip("10.0.0.4").build(),
        ];
        let pods = vec![
            pod("a").on("n1").ready().build(),
            pod("b").on("n2").ready().build(),
            pod("c").on("n3").build(),
            pod("d").on("n4").ready().terminating(0).build(),
        ];
        assert_eq!(published_ips(&service, pods, &nodes, 0), ["10.0.0.20", "10.0.0.100"]);
    }

    #[test]
    fn addresses_are_in_the_order_of_the_service_families() {
        let nodes = || [node("n1").internal_ip("10.0.0.1").internal_ip("fd00::1").build()];
        let pods = || vec![pod("a").on("n1").ready().build()];
        let dual_stack_service = |families: &[&str]| service("web").tcp(80).families(families).build();
        assert_eq!(
            published_ips(&dual_stack_service(&["IPv6", "IPv4"]), pods(), &nodes(), 0),
            ["fd00::1", "10.0.0.1"]
        );
        assert_eq!(published_ips(&dual_stack_service(&["IPv4"]), pods(), &nodes(), 0), ["10.0.0.1"]);
    }

    #[test]
    fn address_of_several_nodes_has_ip_mode_proxy_if_one_node_has_ip_mode_proxy() {
        let service = service("web").tcp(80).build();
        let spec = LoadBalancerSpec::from_service(&service, &defaults()).unwrap();
        let nodes = [
            node("n1").external_ip("203.0.113.1").build(),
            node("n2").external_ip("203.0.113.1").build(),
            node("n3").external_ip("203.0.113.3").build(),
        ]
        .map(|node| NodeInfo::from_node(&node));
        for unclaimed_node in ["n1", "n2"] {
            let nodes: Vec<_> = nodes.iter().collect();
            let ip_mode =
                |node: &NodeInfo, _| if node.name == unclaimed_node { IpMode::Proxy } else { IpMode::Vip };
            let ingress = build_ingress(&spec, &nodes, &ip_mode);
            let ip_modes: Vec<_> = ingress.into_iter().filter_map(|ingress| ingress.ip_mode).collect();
            assert_eq!(ip_modes, ["Proxy", "VIP"]);
        }
    }

    #[test]
    fn status_omits_duplicate_addresses_and_lost_nodes() {
        let service = service("web").tcp(80).build();
        let nodes = vec![
            node("n1").external_ip("203.0.113.1").build(),
            node("n2").external_ip("203.0.113.1").build(),
            node("n3").external_ip("203.0.113.3").with_ready_unknown().build(),
        ];
        let pods = ["n1", "n2", "n3", "gone"].map(|node| pod(node).on(node).ready().build()).into();
        assert_eq!(published_ips(&service, pods, &nodes, 0), ["203.0.113.1"]);
    }

    #[test]
    fn unreachable_node_stays_published_only_if_all_nodes_are_unreachable() {
        let service = service("web").tcp(80).published("10.0.0.1", "VIP", "akrobateo").build();
        let unreachable_node = |name, ip| node(name).internal_ip(ip).with_ready_unknown();
        let pods = || vec![pod("a").on("n1").build(), pod("b").on("n2").ready().build()];
        let one_node_unreachable =
            [unreachable_node("n1", "10.0.0.1").build(), node("n2").internal_ip("10.0.0.2").build()];
        assert_eq!(published_ips(&service, pods(), &one_node_unreachable, 1000), ["10.0.0.2"]);
        let all_nodes_unreachable = [
            unreachable_node("n1", "10.0.0.1").build(),
            unreachable_node("n2", "10.0.0.2").taint(UNREACHABLE_TAINT).build(),
        ];
        assert_eq!(published_ips(&service, pods(), &all_nodes_unreachable, 1000), ["10.0.0.1"]);
    }

    #[test]
    fn address_stays_published_while_its_proxy_is_replaced() {
        let service = service("web").tcp(80).published("10.0.0.1", "VIP", "akrobateo").build();
        let nodes = || [node("n1").internal_ip("10.0.0.1").build()];
        let terminating_pod = || pod("old").on("n1").ready().terminating(100).build();
        let starting_pod = || pod("new").on("n1").created_at(100).build();
        for pods in
            [vec![terminating_pod()], vec![starting_pod()], vec![terminating_pod(), starting_pod()], vec![]]
        {
            assert_eq!(published_ips(&service, pods.clone(), &nodes(), 130), ["10.0.0.1"]);
            assert!(published_ips(&service, pods, &nodes(), 170).is_empty());
        }
    }

    #[test]
    fn only_a_published_node_has_a_grace_period() {
        let nodes = || [node("n1").internal_ip("10.0.0.1").build()];
        let published_service = service("web").tcp(80).published("10.0.0.1", "VIP", "akrobateo").build();
        assert!(
            published_ips(&published_service, vec![pod("failed").on("n1").build()], &nodes(), 170).is_empty()
        );
        let unpublished_service = service("web").tcp(80).build();
        assert!(
            published_ips(
                &unpublished_service,
                vec![pod("young").on("n1").created_at(100).build()],
                &nodes(),
                130
            )
            .is_empty()
        );
    }

    #[test]
    fn check_for_unreachable_nodes_ignores_the_exclude_label() {
        const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
        let service = service("web").tcp(80).published("10.0.0.1", "VIP", "akrobateo").build();
        let worker = || node("n1").internal_ip("10.0.0.1").with_ready_unknown();
        let pods = || vec![pod("a").on("n1").build()];
        // kubeadm sets the label on the nodes of the control plane.
        let control_plane = || node("n2").internal_ip("10.0.0.2").label(EXCLUDE_LABEL, "");
        for control_plane in [control_plane(), control_plane().with_ready_unknown()] {
            let nodes = [worker().build(), control_plane.build()];
            assert_eq!(published_ips(&service, pods(), &nodes, 1000), ["10.0.0.1"]);
        }
        // If all nodes have the label, no node is published.
        let labelled_nodes =
            [node("n1").internal_ip("10.0.0.1").label(EXCLUDE_LABEL, "").build(), control_plane().build()];
        assert!(published_ips(&service, pods(), &labelled_nodes, 1000).is_empty());
    }
}
