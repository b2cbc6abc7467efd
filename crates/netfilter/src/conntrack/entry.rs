//! A conntrack entry, as the kernel lists it. Pure.

use std::net::{IpAddr, SocketAddr};

use akrobateo_core::Protocol;

use crate::netlink::Attr;

/// The attributes of an entry: `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY` and `CTA_ID`, from enum `ctattr_type`. All attribute
/// numbers in this file are from `linux/netfilter/nfnetlink_conntrack.h`. A tuple is the addresses and ports of one
/// direction.
pub(super) const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
pub(super) const ENTRY_ID: u16 = 12;
/// The attributes of a tuple (enum `ctattr_tuple`).
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
/// The addresses of a tuple (enum `ctattr_ip`).
const IP_V4_SOURCE: u16 = 1;
const IP_V4_DESTINATION: u16 = 2;
const IP_V6_SOURCE: u16 = 3;
const IP_V6_DESTINATION: u16 = 4;
/// The protocol and the ports of a tuple (enum `ctattr_l4proto`).
const PROTO_NUMBER: u16 = 1;
const PROTO_SOURCE_PORT: u16 = 2;
const PROTO_DESTINATION_PORT: u16 = 3;

/// The flow of a conntrack entry. The protocol is one of the protocols of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The layer-4 protocol.
    pub protocol: Protocol,
    /// The source of the original direction.
    pub client: SocketAddr,
    /// The destination of the original direction: the address and port that the client used.
    pub original_destination: SocketAddr,
    /// The source of the reply direction. Differs from `original_destination` if the destination was translated.
    pub reply_source: SocketAddr,
}

impl Flow {
    /// Parses the attributes of an entry. Returns `None` if a Service cannot have the entry's protocol.
    pub(super) fn parse(attrs: &[u8]) -> Option<Self> {
        let (protocol, client, original_destination) = parse_tuple(Attr::find(attrs, TUPLE_ORIGINAL)?)?;
        let (_, reply_source, _) = parse_tuple(Attr::find(attrs, TUPLE_REPLY)?)?;
        Some(Self { protocol, client, original_destination, reply_source })
    }
}

/// Returns the protocol, source and destination of one direction.
fn parse_tuple(attrs: &[u8]) -> Option<(Protocol, SocketAddr, SocketAddr)> {
    let proto = Attr::find(attrs, TUPLE_PROTO)?;
    let number = Attr::find(proto, PROTO_NUMBER)?.first()?;
    let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.number() == *number)?;
    let port = |kind| Some(u16::from_be_bytes(*Attr::find(proto, kind)?.first_chunk()?));
    let ip = Attr::find(attrs, TUPLE_IP)?;
    let ipv4 = |kind| Some(IpAddr::from(<[u8; 4]>::try_from(Attr::find(ip, kind)?).ok()?));
    let ipv6 = |kind| Some(IpAddr::from(<[u8; 16]>::try_from(Attr::find(ip, kind)?).ok()?));
    let (source, destination) = match Attr::find(ip, IP_V4_SOURCE) {
        Some(_) => (ipv4(IP_V4_SOURCE)?, ipv4(IP_V4_DESTINATION)?),
        None => (ipv6(IP_V6_SOURCE)?, ipv6(IP_V6_DESTINATION)?),
    };
    Some((
        protocol,
        SocketAddr::new(source, port(PROTO_SOURCE_PORT)?),
        SocketAddr::new(destination, port(PROTO_DESTINATION_PORT)?),
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::Attrs;

    proptest! {
        #[test]
        fn parsing_of_arbitrary_bytes_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Flow::parse(&bytes);
        }

        #[test]
        fn flow_is_parsed_from_both_tuples_of_an_entry(
            protocol in prop::sample::select(&Protocol::ALL[..]),
            ips in prop_oneof![
                any::<[[u8; 4]; 3]>().prop_map(|ips| ips.map(IpAddr::from)),
                any::<[[u8; 16]; 3]>().prop_map(|ips| ips.map(IpAddr::from)),
            ],
            ports in any::<[u16; 3]>(),
        ) {
            let [client, original_destination, reply_source]: [SocketAddr; 3] =
                std::array::from_fn(|index| (ips[index], ports[index]).into());
            let mut bytes = Vec::new();
            let attrs = &mut Attrs(&mut bytes);
            write_tuple(attrs, TUPLE_ORIGINAL, protocol, client, original_destination);
            write_tuple(attrs, TUPLE_REPLY, protocol, reply_source, client);
            let flow = Flow { protocol, client, original_destination, reply_source };
            prop_assert_eq!(Flow::parse(&bytes), Some(flow));
        }
    }

    fn write_tuple(
        attrs: &mut Attrs<'_>,
        kind: u16,
        protocol: Protocol,
        source: SocketAddr,
        destination: SocketAddr,
    ) {
        attrs.push_nested(kind, |tuple| {
            tuple.push_nested(TUPLE_IP, |ip| match (source.ip(), destination.ip()) {
                (IpAddr::V4(source), IpAddr::V4(destination)) => {
                    ip.push_bytes(IP_V4_SOURCE, &source.octets());
                    ip.push_bytes(IP_V4_DESTINATION, &destination.octets());
                }
                (IpAddr::V6(source), IpAddr::V6(destination)) => {
                    ip.push_bytes(IP_V6_SOURCE, &source.octets());
                    ip.push_bytes(IP_V6_DESTINATION, &destination.octets());
                }
                _ => panic!("the source and the destination of a tuple must have the same address family"),
            });
            tuple.push_nested(TUPLE_PROTO, |proto| {
                proto.push_bytes(PROTO_NUMBER, &[protocol.number()]);
                proto.push_bytes(PROTO_SOURCE_PORT, &source.port().to_be_bytes());
                proto.push_bytes(PROTO_DESTINATION_PORT, &destination.port().to_be_bytes());
            });
        });
    }
}
