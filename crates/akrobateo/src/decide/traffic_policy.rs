//! externalTrafficPolicy Local: whether kube-proxy can answer, which alone keeps the client's address. Pure.

use super::pod::ProxyRole;
use crate::node_info::NodeInfo;
use crate::spec::{IpMode, LoadBalancerSpec};

/// How the proxies of a wish work, and what its author should know about that.
///
/// kube-proxy answers on a published address only with ipMode VIP, and only if packets arrive with that address: not
/// where something in front of the node rewrites it.
pub(super) fn path(wish: &LoadBalancerSpec, nodes: &[NodeInfo]) -> (ProxyRole, Option<String>) {
    if !wish.local {
        return (ProxyRole::Forward, None);
    }
    let lost = |why: &str| {
        let note = format!(
            "externalTrafficPolicy is Local, but backends see a proxy's address and not the client's: {why}"
        );
        (ProxyRole::Forward, Some(note))
    };
    // Then the backends are told the client's address by the proxies.
    if wish.proxy.proxy_protocol.is_some() {
        return (ProxyRole::Forward, None);
    }
    if wish.ip_mode == IpMode::Proxy {
        return lost("with ipMode Proxy the proxies answer");
    }
    let chosen = |node: &&NodeInfo| wish.nodes.includes(node);
    match nodes.iter().filter(chosen).find(|node| !node.owns(&node.published(&wish.address_types))) {
        Some(node) => {
            lost(&format!("node {} is published with an address that is not its InternalIP", node.name))
        }
        None => (ProxyRole::ReservePorts, None),
    }
}
