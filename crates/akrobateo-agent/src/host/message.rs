//! The messages of interfaces and addresses (`linux/rtnetlink.h`). Pure.
//!
//! The parsers ignore all attributes that they do not need. With this rule, the agent finds the uplink even if an
//! interface has attributes that the parsers do not know.

use std::net::IpAddr;

use links::MacAddress;
use netfilter::netlink::{Attr, Message, Messages, message};

use super::interface::Interface;

// The types of netlink messages.
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
// The lengths of the structs `ifinfomsg` and `ifaddrmsg`.
const IFINFOMSG_LENGTH: usize = 16;
const IFADDRMSG_LENGTH: usize = 8;

// The attributes of an interface (`linux/if_link.h`). `IFLA_ADDRESS` is the MAC address.
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_EXT_MASK: u16 = 29;
/// Bit of `IFLA_EXT_MASK`: the kernel omits the statistics of the interfaces.
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
/// The type of an Ethernet interface (`linux/if_arp.h`).
const ARPHRD_ETHER: u16 = 1;
/// The flag of an interface that is up (linux/if.h).
const IFF_UP: u32 = 1;

// The attributes of an address (`linux/if_addr.h`).
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
// The flags of an address: the states of duplicate address detection.
const IFA_F_OPTIMISTIC: u8 = 0x04;
const IFA_F_DADFAILED: u8 = 0x08;
const IFA_F_TENTATIVE: u8 = 0x40;

/// Returns the request for all interfaces.
pub(super) fn build_interface_request() -> Messages {
    Messages::single(RTM_GETLINK, message::NLM_F_DUMP, &[0; IFINFOMSG_LENGTH], |attrs| {
        attrs.push_bytes(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
    })
}

/// Returns the request for the addresses of all interfaces.
pub(super) fn build_address_request() -> Messages {
    Messages::single(RTM_GETADDR, message::NLM_F_DUMP, &[0; IFADDRMSG_LENGTH], |_| ())
}

/// Parses an interface without its addresses. The kernel sends the addresses in other messages.
pub(super) fn parse_link(answer: &Message<'_>) -> Option<Interface> {
    if answer.kind != RTM_NEWLINK {
        return None;
    }
    let link_layer = u16::from_ne_bytes(*answer.payload.get(2..)?.first_chunk()?);
    let flags = u32::from_ne_bytes(*answer.payload.get(8..)?.first_chunk()?);
    let attrs = answer.attrs(IFINFOMSG_LENGTH);
    let mac = Attr::find(attrs, IFLA_ADDRESS).filter(|_| link_layer == ARPHRD_ETHER);
    Some(Interface {
        index: u32::from_ne_bytes(*answer.payload.get(4..)?.first_chunk()?),
        name: Attr::find_text(attrs, IFLA_IFNAME)?.to_owned(),
        is_up: flags & IFF_UP != 0,
        mac: mac.and_then(|bytes| bytes.try_into().ok()).map(MacAddress),
        mtu: u32::from_ne_bytes(Attr::find(attrs, IFLA_MTU)?.try_into().ok()?),
        addresses: Vec::new(),
    })
}

/// Parses an address, and returns it with the index of its interface.
///
/// Returns `None` for an address that the kernel does not accept packets for: duplicate address detection has found a
/// duplicate, or is still running.
pub(super) fn parse_address(answer: &Message<'_>) -> Option<(u32, IpAddr)> {
    if answer.kind != RTM_NEWADDR {
        return None;
    }
    let flags = *answer.payload.get(2)?;
    if flags & IFA_F_DADFAILED != 0 || flags & (IFA_F_TENTATIVE | IFA_F_OPTIMISTIC) == IFA_F_TENTATIVE {
        return None;
    }
    let index = u32::from_ne_bytes(*answer.payload.get(4..)?.first_chunk()?);
    let attrs = answer.attrs(IFADDRMSG_LENGTH);
    // On a point-to-point interface, `IFA_ADDRESS` is the address of the other end.
    let bytes = Attr::find(attrs, IFA_LOCAL).or_else(|| Attr::find(attrs, IFA_ADDRESS))?;
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
        let messages = Messages::single(RTM_NEWADDR, 0, &[10, 64, flags, 0, 7, 0, 0, 0], |attrs| {
            attrs.push_bytes(IFA_ADDRESS, &[0x20; 16]);
        });
        parse_address(&Message::parse_all(messages.bytes()).next().unwrap())
    }

    #[test]
    fn tentative_and_duplicate_addresses_are_ignored() {
        let index = u32::from_ne_bytes([7, 0, 0, 0]);
        let usable_address = Some((index, IpAddr::from([0x20; 16])));
        for (flags, expected) in [
            (0x80, usable_address),
            (IFA_F_TENTATIVE, None),
            (IFA_F_TENTATIVE | IFA_F_DADFAILED, None),
            (IFA_F_TENTATIVE | IFA_F_OPTIMISTIC, usable_address),
        ] {
            assert_eq!(parse_address_with_flags(flags), expected, "{flags:#x}");
        }
    }

    proptest! {
        #[test]
        fn parsers_do_not_panic_on_arbitrary_bytes(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            for kind in [RTM_NEWLINK, RTM_NEWADDR] {
                let answer = Message { kind, flags: 0, seq: 1, port_id: 1, payload: &payload };
                let _ = (parse_link(&answer), parse_address(&answer));
            }
        }
    }
}
