//! The encoding of the objects in rtnetlink's messages. Pure.

mod address;
mod device;
mod family;
mod neighbour;
mod notification;
mod route;
mod rule;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteProtocol;

use crate::difference::Change;

pub(crate) use address::{decode_address, list_addresses};
pub(crate) use device::{decode_device, get_device};
pub(crate) use neighbour::{
    decode_forwarding_entry, decode_neighbour, list_forwarding_entries, list_neighbours,
};
pub(crate) use notification::is_relevant;
pub(crate) use route::{decode_route, list_routes};
pub(crate) use rule::{decode_rule, has_protocol, list_rules};

/// Returns the message of a change, and the flags of the message.
///
/// `device_index` is the interface index of the device, or 0 if the change does not need an index.
pub(crate) fn encode(
    change: &Change,
    device_name: &str,
    device_index: u32,
    protocol: u8,
) -> (RouteNetlinkMessage, u16) {
    let protocol = RouteProtocol::from(protocol);
    let create = NLM_F_ACK | NLM_F_CREATE;
    let replace = create | NLM_F_REPLACE;
    match change {
        Change::DeleteDevice => (device::delete(device_name), NLM_F_ACK),
        Change::CreateDevice(device) => (device::create(device_name, device), create),
        Change::ConfigureDevice(device) => (device::configure(device_index, device), NLM_F_ACK),
        Change::DisableLinkLocalAddress => (device::disable_link_local_address(device_index), NLM_F_ACK),
        Change::SetDeviceUp => (device::set_up(device_index), NLM_F_ACK),
        Change::AddAddress(ip) => (address::add(device_index, *ip), create),
        Change::DeleteAddress(ip, prefix_len) => (address::delete(device_index, *ip, *prefix_len), NLM_F_ACK),
        Change::SetNeighbour(ip, mac) => (neighbour::set_neighbour(device_index, *ip, *mac), replace),
        Change::DeleteNeighbour(ip) => (neighbour::delete_neighbour(device_index, *ip), NLM_F_ACK),
        Change::SetForwardingEntry(mac, node) => {
            (neighbour::set_forwarding_entry(device_index, *mac, *node), replace)
        }
        Change::DeleteForwardingEntry(mac) => {
            (neighbour::delete_forwarding_entry(device_index, *mac), NLM_F_ACK)
        }
        Change::SetRoute(route) => (route::set(device_index, route, protocol), replace),
        Change::DeleteRoute(message) => (RouteNetlinkMessage::DelRoute((**message).clone()), NLM_F_ACK),
        // NLM_F_EXCL is not set, because another program may have an equal rule.
        Change::AddRule(rule) => (rule::add(rule, protocol), create),
        Change::DeleteRule(message) => (RouteNetlinkMessage::DelRule((**message).clone()), NLM_F_ACK),
    }
}
