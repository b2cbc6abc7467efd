//! The addresses of a Service's status: of the nodes whose proxies are ready. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Pod, Service};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::address_type::AddressType;
use crate::node_info::NodeInfo;
use crate::spec::IpMode;

/// How long a node's address stays while the proxy there is being replaced: an empty status makes ExternalDNS delete
/// records, and a rollout takes a node's proxy away for a second or two.
pub(super) const ROLLOUT_GRACE: SignedDuration = SignedDuration::from_secs(60);

/// What the addresses of a Service depend on, besides the Service.
pub(super) struct AddressInputs<'a> {
    pub(super) pods: &'a [Arc<Pod>],
    pub(super) nodes: &'a [NodeInfo],
    /// Published nodes without any proxy pod, and since when.
    pub(super) missing: &'a BTreeMap<String, Timestamp>,
    /// Whether a node may be published.
    pub(super) may_answer: &'a dyn Fn(&NodeInfo) -> bool,
    /// Whether a node without a ready proxy is to have one.
    pub(super) will_return: &'a dyn Fn(&NodeInfo) -> bool,
    /// Whether proxies may be replaced on other nodes than those they were on.
    pub(super) may_move: bool,
    pub(super) now: Timestamp,
}

/// The nodes to publish, and when to look again although nothing has happened.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct PublishableNodes<'a> {
    pub(super) nodes: Vec<&'a NodeInfo>,
    pub(super) until: Option<Timestamp>,
}

/// The addresses in the Service's status.
pub(crate) fn published(service: &Service) -> &[LoadBalancerIngress] {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    status.and_then(|status| status.ingress.as_deref()).unwrap_or_default()
}

/// Whether the Service's status has an address of this node.
pub(crate) fn is_published(service: &Service, node: &NodeInfo) -> bool {
    let mut addresses = published(service).iter().filter_map(|ingress| ingress.ip.as_ref()?.parse().ok());
    addresses.any(|address| node.may_publish(&address))
}

/// The nodes with a ready proxy, and those that had one and will have one again at once.
pub(super) fn backed<'a>(service: &Service, evidence: &AddressInputs<'a>) -> PublishableNodes<'a> {
    // All at once: the control plane has lost sight of its nodes, as after a failure of its own. They go on forwarding,
    // and pods count as not ready for no other reason.
    if evidence.nodes.iter().all(NodeInfo::is_unreachable) {
        let nodes = evidence.nodes.iter().filter(|node| is_published(service, node)).collect();
        return PublishableNodes { nodes, until: None };
    }
    let mut backed = PublishableNodes::default();
    let mut held = PublishableNodes::default();
    for node in evidence.nodes {
        if node.exclusion.is_some() || !(evidence.may_answer)(node) {
            continue;
        }
        if evidence.pods.iter().any(|pod| runs_on(pod, &node.name) && is_ready(pod)) {
            backed.nodes.push(node);
            continue;
        }
        let may_stay = is_published(service, node) && (evidence.will_return)(node);
        if let Some(until) =
            held_until(evidence, &node.name).filter(|until| may_stay && *until > evidence.now)
        {
            held.nodes.push(node);
            held.until = Some(held.until.map_or(until, |other| other.min(until)));
        }
    }
    // A proxy that moves leaves a node without one; only an empty status is to be avoided then.
    if !evidence.may_move || backed.nodes.is_empty() {
        backed.nodes.append(&mut held.nodes);
        backed.until = held.until;
    }
    backed
}

/// Until when a node without a ready proxy may be believed to get one: it is being replaced, not failing.
fn held_until(evidence: &AddressInputs, node: &str) -> Option<Timestamp> {
    let mut pods = evidence.pods.iter().filter(|pod| runs_on(pod, node)).peekable();
    if pods.peek().is_none() {
        return Some(*evidence.missing.get(node)? + ROLLOUT_GRACE);
    }
    pods.filter_map(|pod| since(pod)).max().map(|since| since + ROLLOUT_GRACE)
}

/// When a pod was made, or told to go.
fn since(pod: &Pod) -> Option<Timestamp> {
    let grace = SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or_default());
    match &pod.metadata.deletion_timestamp {
        Some(end) => Some(end.0 - grace),
        None => pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
    }
}

/// What the status should say: families in the Service's order, sorted within, each address once.
pub(super) fn ingress(
    service: &Service,
    nodes: &[&NodeInfo],
    types: &[AddressType],
    mode: IpMode,
) -> Vec<LoadBalancerIngress> {
    let addresses: BTreeSet<IpAddr> = nodes.iter().flat_map(|node| node.published(types)).collect();
    let families = service.spec.iter().flat_map(|spec| spec.ip_families.iter().flatten());
    families
        .flat_map(|family| addresses.iter().filter(move |address| is_of(address, family)))
        .map(|address| LoadBalancerIngress {
            ip: Some(address.to_string()),
            ip_mode: Some(mode.as_str().to_owned()),
            ..LoadBalancerIngress::default()
        })
        .collect()
}

/// Whether a pod was put on a node.
pub(crate) fn runs_on(pod: &Pod, node: &str) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node)
}

/// Whether a pod is ready, and to stay.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn is_of(address: &IpAddr, family: &str) -> bool {
    match address {
        IpAddr::V4(_) => family == "IPv4",
        IpAddr::V6(_) => family == "IPv6",
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Node;

    use super::*;
    use crate::decide::fixtures::{at, node, pod, service};
    use crate::node_info::UNREACHABLE_TAINT;

    const TYPES: [AddressType; 2] = [AddressType::ExternalIP, AddressType::InternalIP];

    fn ips(service: &Service, pods: Vec<Pod>, nodes: &[Node], now: i64) -> Vec<String> {
        let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
        let nodes: Vec<_> = nodes.iter().map(NodeInfo::of).collect();
        let missing = nodes.iter().map(|node| (node.name.clone(), at(100))).collect();
        let yes = |_: &NodeInfo| true;
        let evidence = AddressInputs {
            pods: &pods,
            nodes: &nodes,
            missing: &missing,
            may_answer: &yes,
            will_return: &yes,
            may_move: false,
            now: at(now),
        };
        let backed = backed(service, &evidence);
        ingress(service, &backed.nodes, &TYPES, IpMode::Vip)
            .into_iter()
            .filter_map(|ingress| ingress.ip)
            .collect()
    }

    #[test]
    fn only_nodes_with_a_ready_proxy_are_published_sorted_by_number() {
        let service = service("web").tcp(80).build();
        let nodes = vec![
            node("n1").internal("10.0.0.100").build(),
            node("n2").internal("10.0.0.20").build(),
            node("n3").internal("10.0.0.3").build(),
            node("n4").internal("10.0.0.4").build(),
        ];
        let pods = vec![
            pod("a").on("n1").ready().build(),
            pod("b").on("n2").ready().build(),
            pod("c").on("n3").build(),
            pod("d").on("n4").ready().terminating(0).build(),
        ];
        assert_eq!(ips(&service, pods, &nodes, 0), ["10.0.0.20", "10.0.0.100"]);
    }

    #[test]
    fn families_come_in_the_services_order() {
        let nodes = || vec![node("n1").internal("10.0.0.1").internal("fd00::1").build()];
        let pods = || vec![pod("a").on("n1").ready().build()];
        let dual = |families: &[&str]| service("web").tcp(80).families(families).build();
        assert_eq!(ips(&dual(&["IPv6", "IPv4"]), pods(), &nodes(), 0), ["fd00::1", "10.0.0.1"]);
        assert_eq!(ips(&dual(&["IPv4"]), pods(), &nodes(), 0), ["10.0.0.1"]);
    }

    #[test]
    fn an_address_shared_by_nodes_is_published_once_and_an_unusable_node_never() {
        let service = service("web").tcp(80).build();
        let nodes = vec![
            node("n1").external("203.0.113.1").build(),
            node("n2").external("203.0.113.1").build(),
            node("n3").external("203.0.113.3").unready().build(),
        ];
        let pods = ["n1", "n2", "n3", "gone"].map(|on| pod(on).on(on).ready().build()).into();
        assert_eq!(ips(&service, pods, &nodes, 0), ["203.0.113.1"]);
    }

    #[test]
    fn a_lost_node_is_left_out_but_when_all_are_lost_what_was_published_stays() {
        let service = service("web").tcp(80).published("10.0.0.1", "VIP", "akrobateo").build();
        let lost = |name, ip| node(name).internal(ip).unready();
        let pods = || vec![pod("a").on("n1").build(), pod("b").on("n2").ready().build()];
        let one = [lost("n1", "10.0.0.1").build(), node("n2").internal("10.0.0.2").build()];
        assert_eq!(ips(&service, pods(), &one, 1000), ["10.0.0.2"]);
        let all = [lost("n1", "10.0.0.1").build(), lost("n2", "10.0.0.2").taint(UNREACHABLE_TAINT).build()];
        assert_eq!(ips(&service, pods(), &all, 1000), ["10.0.0.1"]);
    }

    #[test]
    fn an_address_stays_while_its_proxy_is_replaced_but_not_for_ever() {
        let service = service("web").tcp(80).published("10.0.0.1", "VIP", "akrobateo").build();
        let nodes = || vec![node("n1").internal("10.0.0.1").build()];
        let leaving = || pod("old").on("n1").ready().terminating(100).build();
        let starting = || pod("new").on("n1").created(100).build();
        for replaced in [vec![leaving()], vec![starting()], vec![leaving(), starting()], vec![]] {
            assert_eq!(ips(&service, replaced.clone(), &nodes(), 130), ["10.0.0.1"]);
            assert!(ips(&service, replaced, &nodes(), 170).is_empty());
        }
    }

    #[test]
    fn a_proxy_that_fails_takes_its_address_away_at_once_and_a_new_node_has_to_wait_for_its_proxy() {
        let nodes = || vec![node("n1").internal("10.0.0.1").build()];
        let known = service("web").tcp(80).published("10.0.0.1", "VIP", "akrobateo").build();
        assert!(ips(&known, vec![pod("failed").on("n1").created(0).build()], &nodes(), 130).is_empty());
        let new = service("web").tcp(80).build();
        assert!(ips(&new, vec![pod("young").on("n1").created(100).build()], &nodes(), 130).is_empty());
    }
}
