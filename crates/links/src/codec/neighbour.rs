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
pub(crate) fn list_neighbours(index: u32) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.attributes = vec![NeighbourAttribute::IfIndex(index)];
    RouteNetlinkMessage::GetNeighbour(message)
}

/// Returns the request for the forwarding entries of a device.
pub(crate) fn list_forwarding_entries(index: u32) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    RouteNetlinkMessage::GetNeighbour(message)
}

pub(super) fn set_neighbour(index: u32, address: IpAddr, mac: MacAddress) -> RouteNetlinkMessage {
    let mut message = neighbour(index, address);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    RouteNetlinkMessage::NewNeighbour(message)
}

pub(super) fn delete_neighbour(index: u32, address: IpAddr) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelNeighbour(neighbour(index, address))
}

pub(super) fn set_forwarding_entry(index: u32, mac: MacAddress, node: IpAddr) -> RouteNetlinkMessage {
    let mut message = forwarding_entry(index, mac);
    message.attributes.push(NeighbourAttribute::Destination(node.into()));
    RouteNetlinkMessage::NewNeighbour(message)
}

pub(super) fn delete_forwarding_entry(index: u32, mac: MacAddress) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelNeighbour(forwarding_entry(index, mac))
}

fn neighbour(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family_of_address(address);
    message.header.ifindex = index;
    message.attributes = vec![NeighbourAttribute::Destination(address.into())];
    message
}

fn forwarding_entry(index: u32, mac: MacAddress) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Other(PERMANENT_ENTRY);
    message.header.flags = NeighbourFlags::Own;
    message.attributes = vec![NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())];
    message
}

/// Returns the address and the MAC address of a permanent neighbour of the device. The kernel itself manages neighbours
/// that are not permanent.
pub(crate) fn decode_neighbour(message: &NeighbourMessage, index: u32) -> Option<(IpAddr, MacAddress)> {
    let header = &message.header;
    let is_proxy = header.flags.contains(NeighbourFlags::Proxy);
    if header.ifindex != index || header.state != NeighbourState::Permanent || is_proxy {
        return None;
    }
    Some((destination(message)?, mac(message)?))
}

/// Returns the MAC address and the node's address of a forwarding entry of the device.
///
/// The node's address is `None` if the entry expires, or if its destination is not only the address of a node.
pub(crate) fn decode_forwarding_entry(
    message: &NeighbourMessage,
    index: u32,
) -> Option<(MacAddress, Option<IpAddr>)> {
    let header = &message.header;
    if header.ifindex != index || header.family != AddressFamily::Bridge {
        return None;
    }
    let has_other_settings = message.attributes.iter().any(|attribute| {
        use NeighbourAttribute::{Port, SourceVni, Vni};
        matches!(attribute, Port(_) | Vni(_) | SourceVni(_))
    });
    let is_permanent = u16::from(header.state) & PERMANENT_ENTRY == PERMANENT_ENTRY;
    let node = if is_permanent && !has_other_settings { forwarding_destination(message) } else { None };
    Some((mac(message)?, node))
}

fn destination(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some((*address).into()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some((*address).into()),
        _ => None,
    })
}

/// Returns the destination of a forwarding entry. The message does not contain the family of the destination.
fn forwarding_destination(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => match bytes.len() {
            4 => <[u8; 4]>::try_from(&bytes[..]).ok().map(IpAddr::from),
            _ => <[u8; 16]>::try_from(&bytes[..]).ok().map(IpAddr::from),
        },
        _ => None,
    })
}

fn mac(message: &NeighbourMessage) -> Option<MacAddress> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes[..].try_into().ok().map(MacAddress),
        _ => None,
    })
}
