//! The messages of interfaces and addresses (`linux/rtnetlink.h`). Pure.
//!
//! The parsers ignore all attributes that they do not need. So the agent finds the uplink even if an interface has
//! attributes that the parsers do not know.

use std::net::IpAddr;

use links::MacAddress;
use netfilter::netlink::{Attr, Message, Messages, message};

use super::interface::Interface;

/// `RTM_NEWLINK`, `RTM_GETLINK`, `RTM_NEWADDR` and `RTM_GETADDR`.
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
/// The length of struct `ifinfomsg` and of struct `ifaddrmsg`.
const LINK_HEADER_LEN: usize = 16;
const ADDRESS_HEADER_LEN: usize = 8;

/// `IFLA_ADDRESS`, `IFLA_IFNAME`, `IFLA_MTU` and `IFLA_EXT_MASK` (`linux/if_link.h`).
const LINK_MAC: u16 = 1;
const LINK_NAME: u16 = 3;
const LINK_MTU: u16 = 4;
const LINK_DETAILS: u16 = 29;
/// `RTEXT_FILTER_SKIP_STATS`: the kernel omits the statistics of the interfaces.
const OMIT_STATISTICS: u32 = 1 << 3;
/// `ARPHRD_ETHER` (`linux/if_arp.h`).
const ETHERNET: u16 = 1;
/// `IFF_UP` (linux/if.h).
const FLAG_UP: u32 = 1;

/// `IFA_ADDRESS` and `IFA_LOCAL` (`linux/if_addr.h`).
const ADDRESS: u16 = 1;
const LOCAL_ADDRESS: u16 = 2;
/// `IFA_F_OPTIMISTIC`, `IFA_F_DADFAILED` and `IFA_F_TENTATIVE`: the states of duplicate address detection.
const FLAG_OPTIMISTIC: u8 = 0x04;
const FLAG_DUPLICATE: u8 = 0x08;
const FLAG_TENTATIVE: u8 = 0x40;

/// Returns the request for all interfaces.
pub(super) fn list_links() -> Messages {
    Messages::single(GET_LINK, message::DUMP, &[0; LINK_HEADER_LEN], |attrs| {
        attrs.push_bytes(LINK_DETAILS, &OMIT_STATISTICS.to_ne_bytes());
    })
}

/// Returns the request for the addresses of all interfaces.
pub(super) fn list_addresses() -> Messages {
    Messages::single(GET_ADDRESS, message::DUMP, &[0; ADDRESS_HEADER_LEN], |_| ())
}

/// Parses an interface without its addresses. The kernel sends the addresses in other messages.
pub(super) fn parse_link(answer: &Message<'_>) -> Option<Interface> {
    if answer.kind != NEW_LINK {
        return None;
    }
    let link_layer = u16::from_ne_bytes(*answer.payload.get(2..)?.first_chunk()?);
    let flags = u32::from_ne_bytes(*answer.payload.get(8..)?.first_chunk()?);
    let attrs = answer.attrs(LINK_HEADER_LEN);
    let mac = Attr::find(attrs, LINK_MAC).filter(|_| link_layer == ETHERNET);
    Some(Interface {
        index: u32::from_ne_bytes(*answer.payload.get(4..)?.first_chunk()?),
        name: Attr::find_text(attrs, LINK_NAME)?.to_owned(),
        is_up: flags & FLAG_UP != 0,
        mac: mac.and_then(|bytes| bytes.try_into().ok()).map(MacAddress),
        mtu: u32::from_ne_bytes(Attr::find(attrs, LINK_MTU)?.try_into().ok()?),
        addresses: Vec::new(),
    })
}

/// Parses an address, and returns it with the index of its interface.
///
/// Returns `None` for an address that the kernel does not accept packets for: duplicate address detection has found a
/// duplicate, or is still running.
pub(super) fn parse_address(answer: &Message<'_>) -> Option<(u32, IpAddr)> {
    if answer.kind != NEW_ADDRESS {
        return None;
    }
    let flags = *answer.payload.get(2)?;
    if flags & FLAG_DUPLICATE != 0 || flags & (FLAG_TENTATIVE | FLAG_OPTIMISTIC) == FLAG_TENTATIVE {
        return None;
    }
    let index = u32::from_ne_bytes(*answer.payload.get(4..)?.first_chunk()?);
    let attrs = answer.attrs(ADDRESS_HEADER_LEN);
    // On a point-to-point interface, `ADDRESS` is the address of the other end.
    let bytes = Attr::find(attrs, LOCAL_ADDRESS).or_else(|| Attr::find(attrs, ADDRESS))?;
    let address = match bytes.len() {
        4 => IpAddr::from(*bytes.first_chunk::<4>()?),
        16 => IpAddr::from(*bytes.first_chunk::<16>()?),
        _ => return None,
    };
    Some((index, address))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse_address_with_flags(flags: u8) -> Option<(u32, IpAddr)> {
        let messages = Messages::single(NEW_ADDRESS, 0, &[10, 64, flags, 0, 7, 0, 0, 0], |attrs| {
            attrs.push_bytes(ADDRESS, &[0x20; 16]);
        });
        parse_address(&Message::parse_all(messages.bytes()).next().unwrap())
    }

    #[test]
    fn tentative_and_duplicate_addresses_are_ignored() {
        let index = u32::from_ne_bytes([7, 0, 0, 0]);
        let usable_address = Some((index, IpAddr::from([0x20; 16])));
        for (flags, expected) in [
            (0x80, usable_address),
            (FLAG_TENTATIVE, None),
            (FLAG_TENTATIVE | FLAG_DUPLICATE, None),
            (FLAG_TENTATIVE | FLAG_OPTIMISTIC, usable_address),
        ] {
            assert_eq!(parse_address_with_flags(flags), expected, "{flags:#x}");
        }
    }

    proptest! {
        #[test]
        fn parsers_do_not_panic_on_arbitrary_bytes(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            for kind in [NEW_LINK, NEW_ADDRESS] {
                let answer = Message { kind, flags: 0, seq: 1, port_id: 1, payload: &payload };
                let _ = (parse_link(&answer), parse_address(&answer));
            }
        }
    }
}
