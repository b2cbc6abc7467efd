//! The notifications that may concern the objects of an owner. Pure.

use netlink_packet_core::{NetlinkMessage, NetlinkPayload, NlasIterator};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::route::RouteProtocol;

use super::rule::has_protocol;
use crate::objects::Owner;

/// `RTM_NEWNETCONF` and `RTM_DELNETCONF`: a setting such as `rp_filter` has changed, or the device was deleted.
const NETCONF_MESSAGE_TYPES: [u16; 2] = [80, 81];
/// Attribute: the index of the interface.
const NETCONFA_IFINDEX: u16 = 1;
/// The length of struct `nlmsghdr`, plus the length of struct `netconfmsg` with its padding.
const HEADERS_LENGTH: usize = 16 + 4;

/// Returns true if the notification may concern an object of the owner, or the interface `uplink`.
///
/// `device_index` is the last known interface index of the owner's device.
pub(crate) fn is_relevant(bytes: &[u8], owner: &Owner, device_index: Option<u32>, uplink: &str) -> bool {
    let kind = bytes.get(4..).and_then(|bytes| bytes.first_chunk()).map(|kind| u16::from_ne_bytes(*kind));
    // The crate `netlink-packet-route` does not know these messages.
    if kind.is_some_and(|kind| NETCONF_MESSAGE_TYPES.contains(&kind)) {
        return device_index.is_some() && changed_device_index(bytes) == device_index;
    }
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).map(|message| message.payload) {
        Ok(NetlinkPayload::InnerMessage(message)) => {
            is_relevant_message(&message, owner, device_index, uplink)
        }
        Ok(_) => false,
        // The notification has an unknown form, so it may concern any object.
        Err(_) => true,
    }
}

/// Returns the interface index of the device whose setting has changed. A change for all devices has no index.
fn changed_device_index(bytes: &[u8]) -> Option<u32> {
    NlasIterator::new(bytes.get(HEADERS_LENGTH..)?)
        .filter_map(Result::ok)
        .find(|attribute| attribute.kind() == NETCONFA_IFINDEX)
        .and_then(|attribute| attribute.value().try_into().ok().map(u32::from_ne_bytes))
}

fn is_relevant_message(
    message: &RouteNetlinkMessage,
    owner: &Owner,
    device_index: Option<u32>,
    uplink: &str,
) -> bool {
    match message {
        RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
            // Each change of the uplink is relevant, because the kernel deletes the routes of an interface that goes
            // down, and does not report these deletions.
            let has_name = link.attributes.iter().any(|attribute| {
                matches!(attribute, LinkAttribute::IfName(name) if *name == owner.device || name == uplink)
            });
            has_name || Some(link.header.index) == device_index
        }
        RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
            Some(address.header.index) == device_index
        }
        RouteNetlinkMessage::NewNeighbour(entry) | RouteNetlinkMessage::DelNeighbour(entry) => {
            Some(entry.header.ifindex) == device_index
        }
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
            route.header.protocol == RouteProtocol::from(owner.protocol)
        }
        RouteNetlinkMessage::NewRule(rule) | RouteNetlinkMessage::DelRule(rule) => {
            has_protocol(rule, owner.protocol)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_are_examined_without_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 16..100u16,
        ) {
            let owner = Owner { device: "akr0".to_owned(), protocol: 107 };
            let length = u32::try_from(bytes.len() + 16).unwrap();
            let header = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10]].concat();
            is_relevant(&[header, bytes].concat(), &owner, Some(1), "eth0");
        }
    }
}
