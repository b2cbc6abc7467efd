//! The messages of routes. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use akrobateo_core::family::Family;
use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteType,
};

use super::family::address_family;
use crate::objects::{Route, RouteDevice};

/// The priority that the kernel gives to IPv6 routes without a priority.
const DEFAULT_IPV6_PRIORITY: u32 = 1024;

/// Returns the request for all routes of a family with this protocol number.
pub(crate) fn list_routes(family: Family, protocol: u8) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = address_family(family);
    message.header.protocol = RouteProtocol::from(protocol);
    RouteNetlinkMessage::GetRoute(message)
}

pub(super) fn set(tunnel_index: u32, route: &Route, protocol: RouteProtocol) -> RouteNetlinkMessage {
    let index = match route.device {
        RouteDevice::Tunnel => tunnel_index,
        RouteDevice::Other(index) => index,
    };
    let mut message = RouteMessage::default();
    message.header.address_family = address_family(Family::from_ip(route.gateway));
    message.header.destination_prefix_length = route.destination.prefix_len();
    message.header.protocol = protocol;
    message.header.kind = RouteType::Unicast;
    // With this flag, the gateway may be outside of the device's networks.
    message.header.flags = RouteFlags::Onlink;
    message.attributes = vec![
        RouteAttribute::Table(route.table),
        RouteAttribute::Destination(route.destination.network().into()),
        RouteAttribute::Gateway(route.gateway.into()),
        RouteAttribute::Oif(index),
    ];
    RouteNetlinkMessage::NewRoute(message)
}

/// Returns the route in a message; `None` if [`Route`] cannot describe the route. `tunnel_index` is the interface index
/// of the owner's device; 0 if the owner has no device.
pub(crate) fn decode_route(message: &RouteMessage, tunnel_index: u32) -> Option<Route> {
    let header = &message.header;
    if header.kind != RouteType::Unicast || header.tos != 0 || header.source_prefix_length != 0 {
        return None;
    }
    let (mut table, mut destination, mut gateway, mut device) = (u32::from(header.table), None, None, None);
    let mut priority = 0;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Destination(address) => destination = Some(ip_address(address)?),
            RouteAttribute::Gateway(address) => gateway = Some(ip_address(address)?),
            RouteAttribute::Oif(number) => device = Some(*number),
            RouteAttribute::Priority(number) => priority = *number,
            // The kernel adds these attributes to each route.
            RouteAttribute::CacheInfo(_) | RouteAttribute::Preference(_) => {}
            _ => return None,
        }
    }
    let gateway = gateway?;
    let (default_priority, unspecified) = match Family::from_ip(gateway) {
        Family::V4 => (0, IpAddr::from(Ipv4Addr::UNSPECIFIED)),
        Family::V6 => (DEFAULT_IPV6_PRIORITY, IpAddr::from(Ipv6Addr::UNSPECIFIED)),
    };
    let destination =
        IpNet::new(destination.unwrap_or(unspecified), header.destination_prefix_length).ok()?;
    let device = match device? {
        index if index == tunnel_index => RouteDevice::Tunnel,
        index => RouteDevice::Other(index),
    };
    (priority == default_priority).then_some(Route { table, destination, gateway, device })
}

fn ip_address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
