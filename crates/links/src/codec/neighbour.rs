//! The messages of neighbours and of forwarding entries, which the kernel also calls neighbours. Pure.

use std::net::IpAddr;

use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::family::family_of_address;
use crate::mac::MacAddress;

/// `NUD_PERMANENT | NUD_NOARP`, the state of forwarding entries that do not expire.
const PERMANENT_ENTRY: u16 = 0x80 | 0x40;

/// Returns the request for the neighbours of a device.
pub(crate) fn list_neighbours(device_index: u32) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.attributes = vec![NeighbourAttribute::IfIndex(device_index)];
    RouteNetlinkMessage::GetNeighbour(message)
}

/// Returns the request for the forwarding entries of a device.
pub(crate) fn list_forwarding_entries(device_index: u32) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = device_index;
    RouteNetlinkMessage::GetNeighbour(message)
}

pub(super) fn set_neighbour(device_index: u32, address: IpAddr, mac: MacAddress) -> RouteNetlinkMessage {
    let mut message = neighbour_message(device_index, address);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    RouteNetlinkMessage::NewNeighbour(message)
}

pub(super) fn delete_neighbour(device_index: u32, address: IpAddr) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelNeighbour(neighbour_message(device_index, address))
}

pub(super) fn set_forwarding_entry(device_index: u32, mac: MacAddress, node: IpAddr) -> RouteNetlinkMessage {
    let mut message = forwarding_entry_message(device_index, mac);
    message.attributes.push(NeighbourAttribute::Destination(node.into()));
    RouteNetlinkMessage::NewNeighbour(message)
}

pub(super) fn delete_forwarding_entry(device_index: u32, mac: MacAddress) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelNeighbour(forwarding_entry_message(device_index, mac))
}

fn neighbour_message(device_index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family_of_address(address);
    message.header.ifindex = device_index;
    message.attributes = vec![NeighbourAttribute::Destination(address.into())];
    message
}

fn forwarding_entry_message(device_index: u32, mac: MacAddress) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = device_index;
    message.header.state = NeighbourState::Other(PERMANENT_ENTRY);
    message.header.flags = NeighbourFlags::Own;
    message.attributes = vec![NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())];
    message
}

/// Returns the address and the MAC address of a permanent neighbour of the device. The kernel itself manages neighbours
/// that are not permanent.
pub(crate) fn decode_neighbour(
    message: &NeighbourMessage,
    device_index: u32,
) -> Option<(IpAddr, MacAddress)> {
    let header = &message.header;
    let is_proxy = header.flags.contains(NeighbourFlags::Proxy);
    if header.ifindex != device_index || header.state != NeighbourState::Permanent || is_proxy {
        return None;
    }
    Some((find_destination(message)?, find_mac(message)?))
}

/// Returns the MAC address and the node's address of a forwarding entry of the device.
///
/// The node's address is `None` if the entry can expire, or if the entry has settings other than the address of a node.
pub(crate) fn decode_forwarding_entry(
    message: &NeighbourMessage,
    device_index: u32,
) -> Option<(MacAddress, Option<IpAddr>)> {
    let header = &message.header;
    if header.ifindex != device_index || header.family != AddressFamily::Bridge {
        return None;
    }
    let has_other_settings = message.attributes.iter().any(|attribute| {
        use NeighbourAttribute::{Port, SourceVni, Vni};
        matches!(attribute, Port(_) | Vni(_) | SourceVni(_))
    });
    let is_permanent = u16::from(header.state) & PERMANENT_ENTRY == PERMANENT_ENTRY;
    let node = if is_permanent && !has_other_settings { find_forwarding_destination(message) } else { None };
    Some((find_mac(message)?, node))
}

fn find_destination(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some((*address).into()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some((*address).into()),
        _ => None,
    })
}

/// Returns the destination of a forwarding entry. The message does not contain the family of the destination.
fn find_forwarding_destination(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => match bytes.len() {
            4 => <[u8; 4]>::try_from(&bytes[..]).ok().map(IpAddr::from),
            _ => <[u8; 16]>::try_from(&bytes[..]).ok().map(IpAddr::from),
        },
        _ => None,
    })
}

fn find_mac(message: &NeighbourMessage) -> Option<MacAddress> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes[..].try_into().ok().map(MacAddress),
        _ => None,
    })
}
