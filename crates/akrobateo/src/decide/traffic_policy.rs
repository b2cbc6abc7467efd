//! The role of the proxies if externalTrafficPolicy is Local. Backends must then see the client's address.
//! Pure.

use akrobateo_core::annotations;

use super::pod::ProxyRole;
use crate::node_info::NodeInfo;
use crate::spec::{IpMode, LoadBalancerSpec};

/// Returns the role of a Service's proxies.
///
/// With externalTrafficPolicy Local, only kube-proxy keeps the client's address. kube-proxy answers on a published
/// address if the ipMode is VIP and packets arrive with that destination address. Behind 1:1 NAT, packets arrive with
/// another destination address.
pub(super) fn proxy_role(spec: &LoadBalancerSpec, nodes: &[NodeInfo]) -> ProxyRole {
    let kube_proxy_answers = spec.is_traffic_policy_local
        && spec.proxy_args.proxy_protocol.is_none()
        && spec.ip_mode == IpMode::Vip
        && find_node_published_without_internal_ip(spec, nodes).is_none();
    if kube_proxy_answers { ProxyRole::ReservePorts } else { ProxyRole::Forward }
}

/// Returns a warning if externalTrafficPolicy is Local but backends do not see the client's address.
pub(super) fn client_address_warning(spec: &LoadBalancerSpec, nodes: &[NodeInfo]) -> Option<String> {
    // With the PROXY protocol, backends receive the client's address from the proxies.
    if !spec.is_traffic_policy_local || spec.proxy_args.proxy_protocol.is_some() {
        return None;
    }
    let cause_and_fix = if spec.ip_mode == IpMode::Proxy {
        format!(
            "with ipMode Proxy, the proxies answer instead of kube-proxy; set the annotation {} to VIP",
            annotations::IP_MODE
        )
    } else {
        let node = find_node_published_without_internal_ip(spec, nodes)?;
        format!(
            "node {} is published with an address that is not its InternalIP; publish InternalIPs ({}), or use \
             the PROXY protocol ({})",
            node.name,
            annotations::ADDRESS_TYPES,
            annotations::PROXY_PROTOCOL
        )
    };
    Some(format!(
        "externalTrafficPolicy is Local, but backends see the address of a proxy instead of the client's: \
         {cause_and_fix}"
    ))
}

/// Returns the first selected node with a published address that is not an internal address of this node.
fn find_node_published_without_internal_ip<'a>(
    spec: &LoadBalancerSpec,
    nodes: &'a [NodeInfo],
) -> Option<&'a NodeInfo> {
    nodes
        .iter()
        .filter(|node| spec.nodes.matches(node))
        .find(|node| !node.has_internal_ips(&node.addresses_to_publish(&spec.address_types)))
}
