//! The messages of addresses. Pure.

use std::net::IpAddr;

use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::family::family_of_address;
use crate::difference::host_prefix_len;

/// Returns the request for the addresses of a device.
pub(crate) fn list_addresses(device_index: u32) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.index = device_index;
    RouteNetlinkMessage::GetAddress(message)
}

pub(super) fn add(device_index: u32, address: IpAddr) -> RouteNetlinkMessage {
    RouteNetlinkMessage::NewAddress(encode(device_index, address, host_prefix_len(address)))
}

pub(super) fn delete(device_index: u32, address: IpAddr, prefix_len: u8) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelAddress(encode(device_index, address, prefix_len))
}

fn encode(device_index: u32, address: IpAddr, prefix_len: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family_of_address(address);
    message.header.prefix_len = prefix_len;
    message.header.scope = AddressScope::Link;
    message.header.index = device_index;
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    message
}

/// Returns the address and its prefix length, if the address belongs to the device.
pub(crate) fn decode_address(message: &AddressMessage, device_index: u32) -> Option<(IpAddr, u8)> {
    if message.header.index != device_index {
        return None;
    }
    // An IPv6 address has only the attribute `Address`. For IPv4, `Local` is the device's own address.
    let is_ipv4 = message.header.family == AddressFamily::Inet;
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        AddressAttribute::Address(address) if !is_ipv4 => Some(*address),
        _ => None,
    })?;
    Some((address, message.header.prefix_len))
}
