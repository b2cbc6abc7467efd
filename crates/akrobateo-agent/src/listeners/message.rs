//! The messages of socket diagnostics (`linux/inet_diag.h`). Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

use akrobateo_core::{Family, Frontend, Protocol};
use netfilter::netlink::{Attr, Message, Messages, message};

use crate::host::LOOPBACK_INDEX;

/// The type of netlink messages about sockets (`linux/sock_diag.h`).
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// The length of struct `inet_diag_req_v2`.
const REQUEST_LENGTH: usize = 56;
/// The length of struct `inet_diag_msg`.
const ANSWER_LENGTH: usize = 72;
/// Attribute: 1 if an IPv6 socket does not receive IPv4 packets.
const INET_DIAG_SKV6ONLY: u16 = 11;
/// Attribute: all addresses of an SCTP socket, as an array of struct `sockaddr_storage`.
const INET_DIAG_LOCALS: u16 = 12;
/// The length of struct `sockaddr_storage`.
const SOCKET_ADDRESS_LENGTH: usize = 128;
// Address families.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
// The states of sockets. A UDP socket that is not connected has the state `TCP_CLOSE`.
const TCP_CLOSE: u32 = 7;
const TCP_LISTEN: u32 = 10;

/// Returns the request for the listening sockets of a protocol and family.
pub(super) fn build_listener_request(protocol: Protocol, family: Family) -> Messages {
    let state = match protocol {
        Protocol::Udp => TCP_CLOSE,
        Protocol::Tcp | Protocol::Sctp => TCP_LISTEN,
    };
    let mut header = [0; REQUEST_LENGTH];
    header[0] = match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    };
    header[1] = protocol.number();
    header[4..8].copy_from_slice(&(1_u32 << state).to_ne_bytes());
    Messages::single(SOCK_DIAG_BY_FAMILY, message::NLM_F_DUMP, &header, |_| ())
}

/// Returns the frontends and addresses of one listening socket. `message` is the kernel's description of this socket.
///
/// Returns an empty list for a socket that receives packets only from the loopback interface (`SO_BINDTODEVICE`).
/// Returns `None` if the message does not describe a socket with a port.
pub(super) fn parse_listeners(answer: &Message<'_>, protocol: Protocol) -> Option<Vec<(Frontend, IpAddr)>> {
    if answer.kind != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    let payload = answer.payload.get(..ANSWER_LENGTH)?;
    let port = NonZeroU16::new(u16::from_be_bytes([payload[4], payload[5]]))?;
    let interface_index = u32::from_ne_bytes(*payload.get(40..)?.first_chunk()?);
    if interface_index == LOOPBACK_INDEX {
        return Some(Vec::new());
    }
    let attrs = answer.attrs(ANSWER_LENGTH);
    let addresses = match Attr::find(attrs, INET_DIAG_LOCALS) {
        Some(value) => value.chunks_exact(SOCKET_ADDRESS_LENGTH).filter_map(parse_socket_address).collect(),
        None => vec![parse_address(payload[0], &payload[8..])?],
    };
    let is_ipv6_only = Attr::find_u8(attrs, INET_DIAG_SKV6ONLY) == Some(1);
    let listeners = addresses.into_iter().flat_map(|address| receiving_addresses(address, is_ipv6_only));
    let add_frontend = |address| (Frontend { family: Family::from_ip(address), protocol, port }, address);
    Some(listeners.map(add_frontend).collect())
}

/// Parses an address of a family.
fn parse_address(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => Some(Ipv4Addr::from(*bytes.first_chunk::<4>()?).into()),
        AF_INET6 => Some(Ipv6Addr::from(*bytes.first_chunk::<16>()?).to_canonical()),
        _ => None,
    }
}

/// Parses a struct `sockaddr_in` or `sockaddr_in6`.
fn parse_socket_address(bytes: &[u8]) -> Option<IpAddr> {
    let family = u8::try_from(u16::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
    let address_start = if family == AF_INET { 4 } else { 8 };
    parse_address(family, bytes.get(address_start..)?)
}

/// Returns the addresses on which a socket receives packets. The wildcard address of IPv6 includes IPv4, except on
/// sockets with the option `IPV6_V6ONLY`.
fn receiving_addresses(address: IpAddr, is_ipv6_only: bool) -> impl Iterator<Item = IpAddr> {
    let includes_ipv4 = address == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && !is_ipv6_only;
    let ipv4_wildcard = includes_ipv4.then_some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    [Some(address), ipv4_wildcard].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the answer of the kernel for a socket with this address and port 80.
    fn answer(address: IpAddr, interface_index: u32, attrs: &[(u16, Vec<u8>)]) -> Messages {
        let mut header = [0; ANSWER_LENGTH];
        header[5] = 80;
        header[40..44].copy_from_slice(&interface_index.to_ne_bytes());
        match address {
            IpAddr::V4(address) => {
                header[0] = AF_INET;
                header[8..12].copy_from_slice(&address.octets());
            }
            IpAddr::V6(address) => {
                header[0] = AF_INET6;
                header[8..24].copy_from_slice(&address.octets());
            }
        }
        Messages::single(SOCK_DIAG_BY_FAMILY, 0, &header, |writer| {
            for (kind, value) in attrs {
                writer.push_bytes(*kind, value);
            }
        })
    }

    fn parse_first(messages: &Messages, protocol: Protocol) -> Option<Vec<IpAddr>> {
        let listeners = parse_listeners(&Message::parse_all(messages.bytes()).next().unwrap(), protocol)?;
        assert!(listeners.iter().all(|(frontend, address)| {
            frontend.port.get() == 80
                && frontend.protocol == protocol
                && frontend.family == Family::from_ip(*address)
        }));
        Some(listeners.into_iter().map(|(_, address)| address).collect())
    }

    #[test]
    fn address_and_ipv6_option_determine_the_receiving_addresses() {
        for (address, is_ipv6_only, expected) in [
            ("0.0.0.0", None, vec!["0.0.0.0"]),
            ("192.0.2.1", None, vec!["192.0.2.1"]),
            ("::", Some(1), vec!["::"]),
            ("::", Some(0), vec!["::", "0.0.0.0"]),
            // Kernels before 4.3 do not report the option.
            ("::", None, vec!["::", "0.0.0.0"]),
            ("2001:db8::1", Some(0), vec!["2001:db8::1"]),
            ("::ffff:192.0.2.1", Some(0), vec!["192.0.2.1"]),
            ("::ffff:0.0.0.0", Some(0), vec!["0.0.0.0"]),
        ] {
            let attrs: Vec<_> =
                is_ipv6_only.map(|value| (INET_DIAG_SKV6ONLY, vec![value])).into_iter().collect();
            let expected: Vec<IpAddr> = expected.iter().map(|address| address.parse().unwrap()).collect();
            let addresses = parse_first(&answer(address.parse().unwrap(), 0, &attrs), Protocol::Tcp);
            assert_eq!(addresses, Some(expected), "{address} {is_ipv6_only:?}");
        }
    }

    #[test]
    fn socket_of_the_loopback_interface_does_not_receive_packets_from_clients() {
        let wildcard = Ipv4Addr::UNSPECIFIED.into();
        assert_eq!(parse_first(&answer(wildcard, LOOPBACK_INDEX, &[]), Protocol::Udp), Some(vec![]));
        assert_eq!(parse_first(&answer(wildcard, 7, &[]), Protocol::Udp), Some(vec![wildcard]));
    }

    #[test]
    fn sctp_socket_listens_on_all_its_addresses() {
        let mut value = [0; 2 * SOCKET_ADDRESS_LENGTH];
        value[..2].copy_from_slice(&u16::from(AF_INET).to_ne_bytes());
        value[4..8].copy_from_slice(&[192, 0, 2, 2]);
        value[SOCKET_ADDRESS_LENGTH..][..2].copy_from_slice(&u16::from(AF_INET6).to_ne_bytes());
        value[SOCKET_ADDRESS_LENGTH + 23] = 1;
        let attrs = [(INET_DIAG_LOCALS, value.to_vec())];
        let addresses = parse_first(&answer("192.0.2.1".parse().unwrap(), 0, &attrs), Protocol::Sctp);
        assert_eq!(addresses, Some(vec!["192.0.2.2".parse().unwrap(), "::1".parse().unwrap()]));
    }

    proptest! {
        #[test]
        fn parser_does_not_panic_on_arbitrary_bytes(
            mut payload in prop::collection::vec(any::<u8>(), 0..400), family in 0..12_u8, has_attr: bool,
        ) {
            if let Some(byte) = payload.first_mut() {
                *byte = family;
            }
            if has_attr && payload.len() > ANSWER_LENGTH + 4 {
                payload[ANSWER_LENGTH + 2..ANSWER_LENGTH + 4].copy_from_slice(&INET_DIAG_LOCALS.to_ne_bytes());
                payload[ANSWER_LENGTH..ANSWER_LENGTH + 2].copy_from_slice(&200_u16.to_ne_bytes());
            }
            let answer = Message { kind: SOCK_DIAG_BY_FAMILY, flags: 0, seq: 1, port_id: 1, payload: &payload };
            for protocol in Protocol::ALL {
                let _ = parse_listeners(&answer, protocol);
            }
        }
    }
}
