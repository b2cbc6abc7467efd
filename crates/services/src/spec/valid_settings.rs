//! Reads the valid settings of a rejected Service. Pure.

use std::borrow::Cow;

use akrobateo_core::HostPort;
use k8s_openapi::api::core::v1::{Service, ServicePort};

use super::defaults::ServiceDefaults;
use super::error::SpecError;
use super::load_balancer_spec::LoadBalancerSpec;

/// Removes the invalid annotations and the reserved ports from the Service. Returns the remaining Service and its spec.
///
/// The programs that forward a rejected Service keep the last valid settings of the Service. After a restart, the
/// remaining settings show which ports the Service may have. Returns `None` if the spec of the Service is not
/// supported, or if all ports were removed.
#[must_use]
pub fn valid_settings<'a>(
    service: &'a Service,
    defaults: &ServiceDefaults,
) -> Option<(Cow<'a, Service>, LoadBalancerSpec)> {
    let mut service = Cow::Borrowed(service);
    loop {
        // Each iteration removes an annotation or a port, so the loop ends.
        match LoadBalancerSpec::from_service(&service, defaults) {
            Ok(spec) => return Some((service, spec)),
            Err(SpecError::InvalidAnnotation { name, .. }) => {
                service.to_mut().metadata.annotations.as_mut()?.remove(name)?;
            }
            Err(SpecError::PortReserved(reserved_port)) => remove_port(service.to_mut(), reserved_port)?,
            Err(SpecError::UnsupportedSpec(_)) => return None,
        }
    }
}

/// Removes a port of the Service. Returns `None` if the Service does not have the port.
fn remove_port(service: &mut Service, removed_port: HostPort) -> Option<()> {
    let ports = service.spec.as_mut()?.ports.as_mut()?;
    let is_removed = |port: &ServicePort| {
        port.protocol.as_deref().unwrap_or("TCP") == removed_port.protocol.api_name()
            && port.port == i32::from(removed_port.port)
    };
    let previous_count = ports.len();
    ports.retain(|port| !is_removed(port));
    (ports.len() < previous_count).then_some(())
}

#[cfg(test)]
mod tests {
    use akrobateo_core::annotations::{CLIENT_ADDRESS, IP_MODE, NODE_SELECTOR};
    use kube::ResourceExt;

    use super::*;
    use crate::fixtures::{defaults, service};
    use crate::spec::ClientAddress;

    fn valid_ports(service: &Service, reserved_ports: &str) -> Option<Vec<String>> {
        let defaults = ServiceDefaults { reserved_ports: reserved_ports.parse().unwrap(), ..defaults() };
        let (_, spec) = valid_settings(service, &defaults)?;
        Some(spec.host_ports().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn valid_annotations_of_a_rejected_service_remain() {
        let service = service("web")
            .tcp(80)
            .annotation(IP_MODE, "typo")
            .annotation(NODE_SELECTOR, "in in")
            .annotation(CLIENT_ADDRESS, "masquerade");
        let service = service.build();
        let (service, spec) = valid_settings(&service, &defaults()).unwrap();
        assert_eq!(spec.client_address, ClientAddress::Masquerade);
        assert_eq!(service.annotations().len(), 1);
    }

    #[test]
    fn reserved_ports_are_omitted() {
        let service = service("web").tcp(80).udp(80).tcp(443).build();
        assert_eq!(valid_ports(&service, "80").unwrap(), ["443/TCP", "80/UDP"]);
        assert_eq!(valid_ports(&service, "80,443").unwrap(), ["80/UDP"]);
        assert_eq!(valid_ports(&service, "80,443,udp/80"), None);
    }
}
