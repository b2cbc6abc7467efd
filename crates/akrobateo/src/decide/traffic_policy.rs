//! The effect of ipMode and of the traffic policies. These settings decide which program forwards the packets that
//! arrive at a node: kube-proxy or the proxy. The settings also decide which endpoints receive the packets. Pure.

use std::net::IpAddr;

use akrobateo_core::{DataPath, Family, annotations};
use akrobateo_services::node_info::NodeInfo;
use akrobateo_services::published::{is_published, published_addresses};
use akrobateo_services::spec::{IpMode, LoadBalancerSpec};
use k8s_openapi::api::core::v1::Service;

use super::addresses::addresses_to_publish;
use super::current_condition::current_condition;
use super::note::Note;
use super::pod::ProxyRole;
use super::pod_status::has_forwarding_pod;
use super::service_state::ServiceState;
use crate::reason::Reason;

/// The part of the condition's message about the publication of all nodes. The next decision searches the message for
/// this part.
const ALL_NODES_PUBLISHED_TEXT: &str = "all ready nodes are published until an endpoint is ready";

/// Returns the role of a Service's proxies.
///
/// kube-proxy forwards packets to a published address if the ipMode is VIP and the packets arrive with this destination
/// address. Behind 1:1 NAT, packets arrive with another destination address. If kube-proxy forwards, the proxies only
/// reserve the ports, because portmap would redirect packets to loopback addresses too. With externalTrafficPolicy
/// Local, only kube-proxy keeps the client's address. With this policy the majority of the nodes decides the role, so
/// that one node cannot change the data path of all nodes.
pub(super) fn choose_proxy_role(spec: &LoadBalancerSpec, nodes: &[NodeInfo]) -> ProxyRole {
    if spec.ip_mode == IpMode::Proxy {
        return ProxyRole::Forward;
    }
    let selected_nodes: Vec<_> = nodes.iter().filter(|node| spec.nodes.matches(node)).collect();
    let nodes_with_other_address =
        selected_nodes.iter().filter(|node| !publishes_only_internal_ips(spec, node)).count();
    let kube_proxy_forwards = if spec.is_external_traffic_policy_local {
        nodes_with_other_address * 2 <= selected_nodes.len()
    } else {
        nodes_with_other_address == 0
    };
    if kube_proxy_forwards { ProxyRole::ReservePorts } else { ProxyRole::Forward }
}

/// Returns true if the node publishes only its own internal addresses.
fn publishes_only_internal_ips(spec: &LoadBalancerSpec, node: &NodeInfo) -> bool {
    node.has_internal_ips(&addresses_to_publish(spec, node))
}

/// Returns true if the node's proxy must forward the packets, because kube-proxy does not forward them.
fn proxy_forwards(spec: &LoadBalancerSpec, node: &NodeInfo) -> bool {
    spec.ip_mode == IpMode::Proxy || !publishes_only_internal_ips(spec, node)
}

/// Returns true if a published address must keep ipMode VIP for now: the Service's ipMode has changed to Proxy, but the
/// node has no proxy that forwards yet. If kube-proxy stopped forwarding, the address would be unreachable until the
/// rollout reaches the node.
pub(super) fn must_keep_vip(
    state: &ServiceState,
    service: &Service,
    spec: &LoadBalancerSpec,
    node: &NodeInfo,
    address: IpAddr,
) -> bool {
    if spec.ip_mode != IpMode::Proxy || state.is_vip_dangerous {
        return false;
    }
    is_published_as_vip(service, address)
        // If a family has no source range, kube-proxy allows all clients of the family.
        && spec.has_source_range(Family::from_ip(address))
        && !has_forwarding_pod(&state.pods, &node.name)
}

/// Returns true if the Service's status has this address with ipMode VIP.
pub(super) fn is_published_as_vip(service: &Service, address: IpAddr) -> bool {
    let text = address.to_string();
    published_addresses(service).iter().any(|ingress| {
        ingress.ip.as_ref() == Some(&text) && ingress.ip_mode.as_deref() == Some(IpMode::Vip.as_str())
    })
}

/// Returns true if a program forwards the packets to the node's published addresses. Returns false if the packets need
/// a proxy that forwards, but the proxies only reserve the ports.
pub(super) fn has_forwarding_program(spec: &LoadBalancerSpec, role: ProxyRole, node: &NodeInfo) -> bool {
    role == ProxyRole::Forward || !proxy_forwards(spec, node)
}

/// Returns the name of the traffic policy that restricts the node to its own endpoints; `None` if no policy restricts
/// the node.
///
/// A proxy connects to the cluster IP, so internalTrafficPolicy Local limits the proxy to the endpoints of its node.
/// The node agents connect to the endpoints, so this policy does not limit the node agents.
pub(crate) fn local_traffic_policy(spec: &LoadBalancerSpec, node: &NodeInfo) -> Option<&'static str> {
    if spec.is_external_traffic_policy_local {
        Some("externalTrafficPolicy")
    } else if spec.is_internal_traffic_policy_local && !spec.is_shared() && proxy_forwards(spec, node) {
        Some("internalTrafficPolicy")
    } else {
        None
    }
}

/// The rule for the published nodes of a Service that needs endpoints on its nodes and has no ready endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MissingEndpointsPolicy {
    /// The published nodes stay published.
    KeepPublished,
    /// All nodes are published, because the status is empty and some programs wait for an address before they start
    /// backends.
    PublishAll,
}

impl MissingEndpointsPolicy {
    /// Returns the policy for this Service; `None` if the Service has a ready endpoint or needs no endpoint on its
    /// nodes.
    pub(super) fn find(state: &ServiceState, spec: &LoadBalancerSpec) -> Option<Self> {
        let mut nodes = state.nodes.iter().filter(|node| spec.nodes.matches_running_pod(node));
        let needs_endpoint = nodes.any(|node| local_traffic_policy(spec, node).is_some());
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
        let policy = if spec.is_external_traffic_policy_local {
            "externalTrafficPolicy"
        } else {
            "internalTrafficPolicy"
        };
        let effect = match self {
            Self::KeepPublished => "the published addresses stay",
            Self::PublishAll => ALL_NODES_PUBLISHED_TEXT,
        };
        format!(
            "{policy} is Local, and the Service has no ready endpoint, so the nodes cannot forward; {effect}; \
            check the Service's selector and the readiness of its pods"
        )
    }
}

/// Returns true if the Service is published on all nodes because it has not had an endpoint yet.
pub(crate) fn publishes_all_nodes(service: &Service) -> bool {
    // Later parts of the message may quote text of the Service's author.
    let is_in_summary = |message: &str| {
        message.split(". ").next().is_some_and(|summary| summary.contains(ALL_NODES_PUBLISHED_TEXT))
    };
    is_published_without_endpoint(service)
        && current_condition(service).is_some_and(|condition| is_in_summary(&condition.message))
}

/// Returns true if the condition reports that the Service is published without an endpoint.
pub(crate) fn is_published_without_endpoint(service: &Service) -> bool {
    current_condition(service).is_some_and(|condition| {
        condition.status == "True" && condition.reason == Reason::NoEndpoints.as_str()
    })
}

/// Returns true if the traffic policies allow the publication of the node with its current endpoints.
pub(super) fn endpoints_allow_publication(
    state: &ServiceState,
    spec: &LoadBalancerSpec,
    missing_endpoints_policy: Option<MissingEndpointsPolicy>,
    node: &NodeInfo,
) -> bool {
    local_traffic_policy(spec, node).is_none()
        || match missing_endpoints_policy {
            None => state.nodes_with_ready_endpoint.contains(&node.name),
            Some(MissingEndpointsPolicy::PublishAll) => true,
            Some(MissingEndpointsPolicy::KeepPublished) => {
                state.service.as_deref().is_some_and(|service| is_published(service, node))
            }
        }
}

/// Returns a note if internalTrafficPolicy limits the published nodes to nodes with an endpoint.
pub(super) fn internal_policy_note(spec: &LoadBalancerSpec, nodes: &[NodeInfo]) -> Option<Note> {
    let mut selected_nodes = nodes.iter().filter(|node| spec.nodes.matches(node));
    selected_nodes.any(|node| local_traffic_policy(spec, node) == Some("internalTrafficPolicy")).then(|| {
        Note::without_warning(
            "internalTrafficPolicy is Local, so a proxy reaches only the endpoints of its node; only nodes with a ready \
             endpoint are published",
        )
    })
}

/// Returns true if the annotation of a Service may select ipMode VIP.
pub(super) fn may_use_vip(state: &ServiceState, spec: &LoadBalancerSpec) -> bool {
    spec.proxy_args.data_path == DataPath::Kernel && !state.is_vip_dangerous
}

/// Returns a warning if externalTrafficPolicy is Local, but backends do not see the client's address.
pub(super) fn client_address_note(
    state: &ServiceState,
    spec: &LoadBalancerSpec,
    role: ProxyRole,
) -> Option<Note> {
    // With the PROXY protocol backends receive the client's address from the proxies.
    if !spec.is_external_traffic_policy_local
        || spec.proxy_args.proxy_protocol.is_some()
        || role == ProxyRole::ReservePorts
    {
        return None;
    }
    let cause_and_fix = if spec.ip_mode == IpMode::Proxy {
        let suggested_fix = if may_use_vip(state, spec) {
            format!("set the annotation {} to VIP", annotations::IP_MODE)
        } else {
            // The operator then rejects the value VIP, so the message does not suggest VIP.
            format!("for TCP ports, use the PROXY protocol ({})", annotations::PROXY_PROTOCOL)
        };
        format!("with ipMode Proxy, the proxies forward instead of kube-proxy; {suggested_fix}")
    } else {
        let mut selected_nodes = state.nodes.iter().filter(|node| spec.nodes.matches(node));
        let node = selected_nodes.find(|node| !publishes_only_internal_ips(spec, node))?;
        format!(
            "most nodes, for example {}, are published with an address that is not their InternalIP; publish InternalIPs \
             ({}), or use the PROXY protocol ({})",
            node.name,
            annotations::ADDRESS_TYPES,
            annotations::PROXY_PROTOCOL
        )
    };
    let text = format!(
        "externalTrafficPolicy is Local, but backends see a proxy's address instead of the client's address: \
         {cause_and_fix}"
    );
    Some(Note { text, warning_reason: Some(Reason::ClientAddressNotKept) })
}
