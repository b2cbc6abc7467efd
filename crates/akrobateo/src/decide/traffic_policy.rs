//! The effect of ipMode and the traffic policies: the program that answers on a node, and the endpoints that it may use. Pure.

use std::net::IpAddr;

use akrobateo_core::{Family, annotations};
use k8s_openapi::api::core::v1::Service;

use super::addresses::{addresses_of, is_published, published_addresses};
use super::current_condition::current_condition;
use super::note::Note;
use super::pod::ProxyRole;
use super::pod_status::has_forwarding_pod;
use super::service_state::ServiceState;
use crate::node_info::NodeInfo;
use crate::reason::Reason;
use crate::spec::{IpMode, LoadBalancerSpec};

/// The part of the condition's message that tells that all nodes are published. The next decision recognizes it.
const ALL_NODES: &str = "all nodes that could serve it are published until there is one";

/// Returns the role of a Service's proxies.
///
/// kube-proxy answers on a published address if the ipMode is VIP and packets arrive with that address. Behind 1:1 NAT
/// they arrive with another address. Where kube-proxy answers, the proxies only reserve the ports: portmap would also take
/// packets to loopback addresses. With externalTrafficPolicy Local only kube-proxy keeps the client's address, so the
/// majority of the nodes decides: one node must not change the data path of all.
pub(super) fn proxy_role(spec: &LoadBalancerSpec, nodes: &[NodeInfo]) -> ProxyRole {
    let selected: Vec<_> = nodes.iter().filter(|node| spec.nodes.matches(node)).collect();
    let others = selected.iter().filter(|node| !has_own_addresses(spec, node)).count();
    let kube_proxy_answers = match (spec.ip_mode, spec.is_traffic_policy_local) {
        (IpMode::Proxy, _) => false,
        (IpMode::Vip, false) => others == 0,
        (IpMode::Vip, true) => others * 2 <= selected.len(),
    };
    if kube_proxy_answers { ProxyRole::ReservePorts } else { ProxyRole::Forward }
}

/// Returns true if the node is published with its internal addresses only.
fn has_own_addresses(spec: &LoadBalancerSpec, node: &NodeInfo) -> bool {
    node.has_internal_ips(&addresses_of(spec, node))
}

/// Returns true if the proxy of the node answers, not kube-proxy.
fn proxy_answers(spec: &LoadBalancerSpec, node: &NodeInfo) -> bool {
    spec.ip_mode == IpMode::Proxy || !has_own_addresses(spec, node)
}

/// Returns true if kube-proxy has to go on answering on a published address although the ipMode is Proxy now: the pod on
/// the node still only reserves the ports, or is being replaced. Otherwise nothing would answer there until the rollout
/// reaches the node.
pub(super) fn keeps_vip(
    state: &ServiceState,
    service: &Service,
    spec: &LoadBalancerSpec,
    node: &NodeInfo,
    address: IpAddr,
) -> bool {
    let text = address.to_string();
    let is_published_as_vip = published_addresses(service).iter().any(|ingress| {
        ingress.ip.as_ref() == Some(&text) && ingress.ip_mode.as_deref() == Some(IpMode::Vip.as_str())
    });
    spec.ip_mode == IpMode::Proxy
        && is_published_as_vip
        && !state.is_vip_dangerous
        // kube-proxy takes a family without a range for open.
        && spec.has_source_range(Family::from_ip(address))
        && !has_forwarding_pod(&state.pods, &node.name)
}

/// Returns true if no program answers on the node's published addresses, because the proxies only reserve the ports.
pub(super) fn is_left_out(spec: &LoadBalancerSpec, role: ProxyRole, node: &NodeInfo) -> bool {
    role == ProxyRole::ReservePorts && proxy_answers(spec, node)
}

/// Returns the traffic policy by which the node answers only with an endpoint of its own; `None` if there is none.
///
/// A proxy connects to the cluster IP, so internalTrafficPolicy Local limits it to the endpoints of its node.
pub(crate) fn local_policy(spec: &LoadBalancerSpec, node: &NodeInfo) -> Option<&'static str> {
    if spec.is_traffic_policy_local {
        Some("externalTrafficPolicy")
    } else if spec.is_internal_traffic_policy_local && proxy_answers(spec, node) {
        Some("internalTrafficPolicy")
    } else {
        None
    }
}

/// The nodes to publish of a Service that needs endpoints on its nodes and has none in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WithoutEndpoints {
    /// Addresses are published, and stay.
    KeepPublished,
    /// No address was published, so all nodes are: others may wait for an address before they start backends.
    PublishAll,
}

impl WithoutEndpoints {
    /// Returns the nodes to publish; `None` if the Service has an endpoint or needs none on its nodes.
    pub(super) fn find(state: &ServiceState, spec: &LoadBalancerSpec) -> Option<Self> {
        let needs_endpoint = state.nodes.iter().any(|node| local_policy(spec, node).is_some());
        let service = state
            .service
            .as_deref()
            .filter(|_| needs_endpoint && state.nodes_with_ready_endpoint.is_empty())?;
        let is_published = state.nodes.iter().any(|node| is_published(service, node));
        Some(if is_published && !publishes_all_nodes(service) {
            Self::KeepPublished
        } else {
            Self::PublishAll
        })
    }

    /// Returns the message for the condition.
    pub(super) fn message(self, spec: &LoadBalancerSpec) -> String {
        let policy =
            if spec.is_traffic_policy_local { "externalTrafficPolicy" } else { "internalTrafficPolicy" };
        let effect = match self {
            Self::KeepPublished => "the published addresses stay",
            Self::PublishAll => ALL_NODES,
        };
        format!(
            "{policy} is Local and no node has a ready endpoint, so no node can answer; {effect}; check the Service's \
             selector and the readiness of its pods"
        )
    }
}

/// Returns true if the Service is published on all nodes because it has not had an endpoint yet.
pub(crate) fn publishes_all_nodes(service: &Service) -> bool {
    current_condition(service).is_some_and(|condition| condition.message.contains(ALL_NODES))
}

/// Returns true if the node may answer by its endpoints.
pub(super) fn may_be_published(
    state: &ServiceState,
    spec: &LoadBalancerSpec,
    without_endpoints: Option<WithoutEndpoints>,
    node: &NodeInfo,
) -> bool {
    local_policy(spec, node).is_none()
        || match without_endpoints {
            None => state.nodes_with_ready_endpoint.contains(&node.name),
            Some(WithoutEndpoints::PublishAll) => true,
            Some(WithoutEndpoints::KeepPublished) => {
                state.service.as_deref().is_some_and(|service| is_published(service, node))
            }
        }
}

/// Returns a note that only nodes with an endpoint are published although the external policy is Cluster.
pub(super) fn internal_policy_note(spec: &LoadBalancerSpec, nodes: &[NodeInfo]) -> Option<Note> {
    let mut selected = nodes.iter().filter(|node| spec.nodes.matches(node));
    selected.any(|node| local_policy(spec, node) == Some("internalTrafficPolicy")).then(|| {
        Note::without_warning(
            "internalTrafficPolicy is Local, and where the proxies answer they reach the endpoints of their node only, so \
             only nodes with a ready endpoint are published",
        )
    })
}

/// Returns a warning if externalTrafficPolicy is Local, but backends do not see the client's address.
pub(super) fn client_address_note(
    spec: &LoadBalancerSpec,
    nodes: &[NodeInfo],
    role: ProxyRole,
) -> Option<Note> {
    // With the PROXY protocol backends receive the client's address from the proxies.
    if !spec.is_traffic_policy_local
        || spec.proxy_args.proxy_protocol.is_some()
        || role == ProxyRole::ReservePorts
    {
        return None;
    }
    let cause_and_fix = if spec.ip_mode == IpMode::Proxy {
        format!(
            "with ipMode Proxy, the proxies answer instead of kube-proxy; set the annotation {} to VIP",
            annotations::IP_MODE
        )
    } else {
        let mut selected = nodes.iter().filter(|node| spec.nodes.matches(node));
        let node = selected.find(|node| !has_own_addresses(spec, node))?;
        format!(
            "most nodes, such as {}, are published with an address that is not their InternalIP; publish InternalIPs \
             ({}), or use the PROXY protocol ({})",
            node.name,
            annotations::ADDRESS_TYPES,
            annotations::PROXY_PROTOCOL
        )
    };
    let text = format!(
        "externalTrafficPolicy is Local, but backends see the address of a proxy instead of the client's: \
         {cause_and_fix}"
    );
    Some(Note { text, warning: Some(Reason::ClientAddressNotKept) })
}
