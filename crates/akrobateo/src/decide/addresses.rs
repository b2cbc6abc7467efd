//! The addresses of a Service's status: of the nodes whose proxies are ready. Pure.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use contract::annotations;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Node, Pod, Service};
use kube::ResourceExt;

use super::{NodeFacts, Refusal};

/// Whether kube-proxy may answer in the proxies' stead (`VIP`), or must let them (`Proxy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IpMode {
    Vip,
    Proxy,
}

impl IpMode {
    const ALL: [Self; 2] = [Self::Vip, Self::Proxy];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Vip => "VIP",
            Self::Proxy => "Proxy",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text)
    }

    /// What the Service's author asks for; VIP, the shorter path, if nothing.
    pub(super) fn of(service: &Service) -> Result<Self, Refusal> {
        let Some(value) = service.annotations().get(annotations::IP_MODE) else { return Ok(Self::Vip) };
        Self::parse(value).ok_or_else(|| Refusal::InvalidAnnotation {
            name: annotations::IP_MODE,
            value: value.clone(),
            allowed: "VIP, Proxy",
        })
    }

    /// What the status says now, for a Service whose wish cannot be read.
    pub(super) fn published(service: &Service) -> Self {
        let mode = published(service).first().and_then(|ingress| ingress.ip_mode.as_deref());
        mode.and_then(Self::parse).unwrap_or(Self::Vip)
    }
}

/// The addresses in the Service's status.
pub(super) fn published(service: &Service) -> &[LoadBalancerIngress] {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    status.and_then(|status| status.ingress.as_deref()).unwrap_or_default()
}

/// The addresses that the status should have: families in the Service's order, sorted within, each once.
pub(super) fn of(
    service: &Service,
    pods: &[Arc<Pod>],
    nodes: &[Arc<Node>],
    mode: IpMode,
) -> Vec<LoadBalancerIngress> {
    let nodes: HashMap<String, NodeFacts> =
        nodes.iter().map(|node| (node.name_any(), NodeFacts::of(node))).collect();
    let addresses: BTreeSet<IpAddr> = pods
        .iter()
        .filter(|pod| is_ready(pod))
        .filter_map(|pod| nodes.get(pod.spec.as_ref()?.node_name.as_deref()?))
        .filter(|node| node.usable)
        .flat_map(|node| node.addresses.iter().copied())
        .collect();
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

fn is_ready(pod: &Pod) -> bool {
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
    use super::*;
    use crate::decide::fixtures::{node, pod, service};

    fn ips(service: &Service, pods: Vec<Pod>, nodes: Vec<Node>) -> Vec<String> {
        let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
        let nodes: Vec<_> = nodes.into_iter().map(Arc::new).collect();
        of(service, &pods, &nodes, IpMode::Vip).into_iter().filter_map(|ingress| ingress.ip).collect()
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
            pod("d").on("n4").ready().terminating().build(),
        ];
        assert_eq!(ips(&service, pods, nodes), ["10.0.0.20", "10.0.0.100"]);
    }

    #[test]
    fn families_come_in_the_services_order() {
        let nodes = || vec![node("n1").internal("10.0.0.1").internal("fd00::1").build()];
        let pods = || vec![pod("a").on("n1").ready().build()];
        let dual = |families: &[&str]| service("web").tcp(80).families(families).build();
        assert_eq!(ips(&dual(&["IPv6", "IPv4"]), pods(), nodes()), ["fd00::1", "10.0.0.1"]);
        assert_eq!(ips(&dual(&["IPv4"]), pods(), nodes()), ["10.0.0.1"]);
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
        assert_eq!(ips(&service, pods, nodes), ["203.0.113.1"]);
    }

    #[test]
    fn the_ip_mode_is_the_annotations_and_a_bad_one_is_refused_with_what_is_allowed() {
        let with = |value| service("web").annotation(annotations::IP_MODE, value).build();
        assert_eq!(IpMode::of(&service("web").build()), Ok(IpMode::Vip));
        assert_eq!(IpMode::of(&with("Proxy")), Ok(IpMode::Proxy));
        let refusal = IpMode::of(&with("proxy")).unwrap_err().to_string();
        assert_eq!(refusal, "annotation akrobateo.io/ip-mode is \"proxy\"; allowed: VIP, Proxy");
    }
}
