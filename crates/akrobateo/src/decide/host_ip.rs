//! The hostIPs that limit a hostPort to one address family. Pure.
//!
//! The scheduler compares hostIPs as texts. Only `0.0.0.0` conflicts with every other hostIP (`HostPortInfo` in
//! <https://github.com/kubernetes/kubernetes/blob/v1.36.3/staging/src/k8s.io/kube-scheduler/framework/types.go>). A
//! hostPort without a hostIP counts as `0.0.0.0`.

use std::num::NonZeroU16;

use akrobateo_core::{Family, Frontend};
use k8s_openapi::api::core::v1::ContainerPort;

/// Returns the unspecified address of a family. The IPv4 address has a form that the scheduler does not treat as
/// `0.0.0.0`.
pub(super) const fn unspecified_host_ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "::ffff:0.0.0.0",
        Family::V6 => "::",
    }
}

/// Returns the ports that the hostPort of a container occupies on its node: a port of one family or of both. Returns no
/// ports if the hostPort is limited to one address, because another pod may use the same port at the other addresses.
pub(super) fn occupied_frontends(container_port: &ContainerPort) -> Vec<Frontend> {
    let protocol = container_port.protocol.as_deref().unwrap_or("TCP").parse();
    let number = container_port.host_port.and_then(|number| u16::try_from(number).ok());
    let (Ok(protocol), Some(port)) = (protocol, number.and_then(NonZeroU16::new)) else { return Vec::new() };
    let is_occupied = |family: &Family| match container_port.host_ip.as_deref() {
        None | Some("" | "0.0.0.0") => true,
        Some(address) => address == unspecified_host_ip(*family),
    };
    Family::ALL.into_iter().filter(is_occupied).map(|family| Frontend { family, protocol, port }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_port_that_is_limited_to_one_address_does_not_occupy_the_port() {
        let occupied_families = |host_ip: Option<&str>| {
            let port = ContainerPort {
                host_ip: host_ip.map(str::to_owned),
                host_port: Some(80),
                ..ContainerPort::default()
            };
            occupied_frontends(&port).into_iter().map(|frontend| frontend.family).collect::<Vec<_>>()
        };
        for host_ip in [None, Some(""), Some("0.0.0.0")] {
            assert_eq!(occupied_families(host_ip), Family::ALL);
        }
        assert_eq!(occupied_families(Some(unspecified_host_ip(Family::V4))), [Family::V4]);
        assert_eq!(occupied_families(Some(unspecified_host_ip(Family::V6))), [Family::V6]);
        // A tenant's pod with this hostIP can run on the node of other Services' proxies.
        for address in ["127.0.0.2", "10.0.0.1", "::1", "::ffff:127.0.0.2"] {
            assert!(occupied_families(Some(address)).is_empty(), "{address}");
        }
    }
}
