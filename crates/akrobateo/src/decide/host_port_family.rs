//! The address families for which a Service's proxies occupy their ports. Pure.
//!
//! A hostPort without a hostIP occupies the port of both families. Proxies that only reserve ports can be limited to
//! one family with a hostIP. Proxies that forward cannot be limited, because the programs that implement hostPorts
//! differ. portmap accepts both unspecified addresses of [`unspecified_host_ip`](super::host_ip::unspecified_host_ip),
//! and CRI-O accepts only the IPv6 address. Cilium 1.18 does not open ports for an unspecified address.

use std::collections::BTreeSet;

use akrobateo_core::{Family, Frontend};
use akrobateo_services::node_info::NodeInfo;
use akrobateo_services::spec::LoadBalancerSpec;

use super::pod::ProxyRole;
use super::traffic_policy::choose_proxy_role;

/// Returns the only family for which a Service's proxies occupy their ports; `None` if the proxies occupy the ports for
/// both families.
pub(super) fn host_port_family(
    spec: &LoadBalancerSpec,
    role: impl FnOnce() -> ProxyRole,
    nodes: &[NodeInfo],
) -> Option<Family> {
    let families: BTreeSet<_> = spec.frontends().iter().map(|frontend| frontend.family).collect();
    let family = families.first().copied().filter(|_| families.len() == 1)?;
    // Without dual-stack nodes, all Services use the same family, and the pods need no hostIP.
    let is_dual_stack = nodes.iter().any(NodeInfo::has_both_families);
    // The check of the role comes last, because it reads all nodes, and the allocation calls this function for every
    // Service.
    (is_dual_stack && role() == ProxyRole::ReservePorts).then_some(family)
}

/// Returns the ports that a Service needs on its nodes. The node agents need exactly the ports of the Service.
pub(crate) fn needed_frontends(spec: &LoadBalancerSpec, nodes: &[NodeInfo]) -> BTreeSet<Frontend> {
    if spec.is_shared() {
        return spec.frontends();
    }
    match host_port_family(spec, || choose_proxy_role(spec, nodes), nodes) {
        Some(_) => spec.frontends(),
        None => spec.frontends().into_iter().flat_map(to_both_families).collect(),
    }
}

fn to_both_families(frontend: Frontend) -> impl Iterator<Item = Frontend> {
    Family::ALL.into_iter().map(move |family| Frontend { family, ..frontend })
}
