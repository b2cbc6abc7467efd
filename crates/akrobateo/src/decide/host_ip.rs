//! The hostIPs that limit a hostPort to one address family. Pure.
//!
//! The scheduler compares hostIPs as texts, and only `0.0.0.0` conflicts with every other one (`HostPortInfo` in
//! <https://github.com/kubernetes/kubernetes/blob/v1.36.3/staging/src/k8s.io/kube-scheduler/framework/types.go>). A
//! hostPort without a hostIP counts as `0.0.0.0`.

use std::num::NonZeroU16;

use akrobateo_core::{Family, Frontend};
use k8s_openapi::api::core::v1::ContainerPort;

/// Returns the unspecified address of a family. That of IPv4 is in a form other than `0.0.0.0`.
pub(super) const fn host_ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "::ffff:0.0.0.0",
        Family::V6 => "::",
    }
}

/// Returns the ports of the node that the hostPort of a container holds.
pub(super) fn occupied_frontends(container_port: &ContainerPort) -> Vec<Frontend> {
    let protocol = container_port.protocol.as_deref().unwrap_or("TCP").parse();
    let number = container_port.host_port.and_then(|number| u16::try_from(number).ok());
    let (Ok(protocol), Some(port)) = (protocol, number.and_then(NonZeroU16::new)) else { return Vec::new() };
    let host_ip_family =
        Family::ALL.into_iter().find(|family| container_port.host_ip.as_deref() == Some(host_ip(*family)));
    let families = Family::ALL.into_iter().filter(|family| host_ip_family.is_none_or(|only| only == *family));
    families.map(|family| Frontend { family, protocol, port }).collect()
}
