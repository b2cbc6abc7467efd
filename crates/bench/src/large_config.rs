//! The configuration of a node with many Services, for the measurements of the agent's table. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;

use akrobateo_agent::config::{Endpoint, NodeConfig, Service};
use akrobateo_agent::probe::PeerPath;
use akrobateo_core::Protocol;

use crate::agent;
use crate::layout::NODES;
use crate::network::addr;

/// The number of Services.
pub(crate) const SERVICE_COUNT: u16 = 1000;
/// The number of endpoints of each Service, in each family.
pub(crate) const ENDPOINTS_PER_SERVICE: u16 = 10;

/// Returns the configuration of the first node. Each endpoint has its own address, and the endpoints are spread over
/// both nodes.
pub(crate) fn large_config() -> NodeConfig {
    let services: Vec<_> = (0..SERVICE_COUNT).filter_map(|number| service(number, 0)).collect();
    agent::config(NODES[0], Some(PeerPath::Direct), &services)
}

/// Replaces the first endpoint of a Service in each family. `change` selects the address of the new endpoint.
pub(crate) fn change_endpoint(config: &mut NodeConfig, number: u16, change: u16) {
    let changed_service = service(number, change);
    if let (Some(service), Some(changed_service)) =
        (config.services.get_mut(usize::from(number)), changed_service)
    {
        *service = changed_service;
    }
}

/// Adds a Service that does not exist yet.
pub(crate) fn add_service(config: &mut NodeConfig) {
    let number = u16::try_from(config.services.len()).unwrap_or(u16::MAX);
    config.services.extend(service(number, 0));
}

/// Returns a Service with one TCP port. If `change` is not 0, the first endpoint in each family has an address that
/// depends on `change`.
fn service(number: u16, change: u16) -> Option<Service> {
    let port = NonZeroU16::new(addr::FIRST_SERVICE_PORT.checked_add(number)?)?;
    let endpoints: Vec<_> = (0..ENDPOINTS_PER_SERVICE)
        .flat_map(|endpoint_index| {
            let address_change = if endpoint_index == 0 { change } else { 0 };
            [
                ipv4_address(number, endpoint_index, address_change),
                ipv6_address(number, endpoint_index, address_change),
            ]
            .map(|ip| endpoint(ip, endpoint_index))
        })
        .collect();
    Some(agent::service(port, &[Protocol::Tcp], &endpoints))
}

fn endpoint(ip: IpAddr, endpoint_index: u16) -> Endpoint {
    agent::endpoint(SocketAddr::new(ip, addr::BACKEND_PORT), NODES[usize::from(endpoint_index) % NODES.len()])
}

/// Returns an address in the range of pods. The addresses of changed endpoints follow the addresses of all other
/// endpoints.
fn ipv4_address(service: u16, endpoint_index: u16, change: u16) -> IpAddr {
    let number = if change == 0 {
        endpoint_number(service, endpoint_index)
    } else {
        endpoint_number(2 * SERVICE_COUNT, 0) + u32::from(change)
    };
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 244, 1, 0)) + number).into()
}

fn ipv6_address(service: u16, endpoint_index: u16, change: u16) -> IpAddr {
    Ipv6Addr::new(0xfd44, 0, 0, 0, 0, service, endpoint_index, change).into()
}

fn endpoint_number(service: u16, endpoint_index: u16) -> u32 {
    u32::from(service) * u32::from(ENDPOINTS_PER_SERVICE) + u32::from(endpoint_index)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn addresses(config: &NodeConfig) -> BTreeSet<SocketAddr> {
        let ports = config.services.iter().flat_map(|service| &service.ports);
        ports.flat_map(|port| &port.endpoints).map(|endpoint| endpoint.address).collect()
    }

    #[test]
    fn each_endpoint_has_its_own_address() {
        assert_eq!(addresses(&large_config()).len(), 20_000);
    }

    #[test]
    fn change_replaces_one_endpoint_in_each_family() {
        let (before, mut config) = (large_config(), large_config());
        change_endpoint(&mut config, 7, 1);
        assert_eq!(addresses(&config).difference(&addresses(&before)).count(), 2);
        assert_eq!(addresses(&config).len(), 20_000);
        add_service(&mut config);
        assert_eq!(addresses(&config).len(), 20_020);
    }
}
