//! A conntrack entry, as the kernel lists it. Pure.

use std::net::{IpAddr, SocketAddr};

use akrobateo_core::Protocol;

use super::abi;
use crate::netlink::Attr;

/// The flow of a conntrack entry. The protocol is one of the protocols of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The layer-4 protocol.
    pub protocol: Protocol,
    /// The source of the original direction.
    pub client: SocketAddr,
    /// The destination of the original direction: the address and port that the client used.
    pub original_destination: SocketAddr,
    /// The source of the reply direction. If DNAT has translated the destination, this address differs from
    /// `original_destination`.
    pub reply_source: SocketAddr,
}

/// A conntrack entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The flow.
    pub flow: Flow,
    /// The destination of the reply direction. If SNAT has translated the source, this address differs from `client`.
    pub reply_destination: SocketAddr,
    /// The zone of the original direction; 0 if the original direction has no zone. A zone of the reply direction is
    /// ignored.
    pub zone: u16,
    /// The mark; 0 if the entry has no mark.
    pub mark: u32,
    /// True if conntrack has seen a packet in the reply direction.
    pub has_reply: bool,
}

impl Entry {
    /// Parses the attributes of an entry. Returns `None` if a Service cannot have the entry's protocol.
    #[must_use]
    pub fn parse(attrs: &[u8]) -> Option<Self> {
        let original_tuple = Attr::find(attrs, abi::CTA_TUPLE_ORIG)?;
        let (protocol, client, original_destination) = parse_tuple(original_tuple)?;
        let (_, reply_source, reply_destination) = parse_tuple(Attr::find(attrs, abi::CTA_TUPLE_REPLY)?)?;
        // A zone of both directions is an attribute of the entry. A zone of one direction is an attribute of the tuple
        // of this direction.
        let zone =
            Attr::find(attrs, abi::CTA_ZONE).or_else(|| Attr::find(original_tuple, abi::CTA_TUPLE_ZONE));
        Some(Self {
            flow: Flow { protocol, client, original_destination, reply_source },
            reply_destination,
            zone: zone.and_then(<[u8]>::first_chunk).copied().map_or(0, u16::from_be_bytes),
            mark: Attr::find_be32(attrs, abi::CTA_MARK).unwrap_or(0),
            has_reply: Attr::find_be32(attrs, abi::CTA_STATUS)
                .is_some_and(|status| status & abi::STATUS_SEEN_REPLY != 0),
        })
    }
}

/// Returns the protocol, source and destination of one direction.
fn parse_tuple(attrs: &[u8]) -> Option<(Protocol, SocketAddr, SocketAddr)> {
    let proto = Attr::find(attrs, abi::CTA_TUPLE_PROTO)?;
    let number = Attr::find(proto, abi::CTA_PROTO_NUM)?.first()?;
    let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.number() == *number)?;
    let port = |kind| Some(u16::from_be_bytes(*Attr::find(proto, kind)?.first_chunk()?));
    let ip = Attr::find(attrs, abi::CTA_TUPLE_IP)?;
    let ipv4 = |kind| Some(IpAddr::from(<[u8; 4]>::try_from(Attr::find(ip, kind)?).ok()?));
    let ipv6 = |kind| Some(IpAddr::from(<[u8; 16]>::try_from(Attr::find(ip, kind)?).ok()?));
    let (source, destination) = match Attr::find(ip, abi::CTA_IP_V4_SRC) {
        Some(_) => (ipv4(abi::CTA_IP_V4_SRC)?, ipv4(abi::CTA_IP_V4_DST)?),
        None => (ipv6(abi::CTA_IP_V6_SRC)?, ipv6(abi::CTA_IP_V6_DST)?),
    };
    Some((
        protocol,
        SocketAddr::new(source, port(abi::CTA_PROTO_SRC_PORT)?),
        SocketAddr::new(destination, port(abi::CTA_PROTO_DST_PORT)?),
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
            let _ = Entry::parse(&bytes);
        }

        #[test]
        fn entry_is_parsed_from_its_tuples_zone_mark_and_status(
            protocol in prop::sample::select(&Protocol::ALL[..]),
            ips in prop_oneof![
                any::<[[u8; 4]; 3]>().prop_map(|ips| ips.map(IpAddr::from)),
                any::<[[u8; 16]; 3]>().prop_map(|ips| ips.map(IpAddr::from)),
            ],
            ports in any::<[u16; 3]>(),
            mark in any::<u32>(),
            zone in any::<u16>(),
            has_zone_of_tuple in any::<bool>(),
            status in any::<u32>(),
        ) {
            let [client, original_destination, reply_source]: [SocketAddr; 3] =
                std::array::from_fn(|index| (ips[index], ports[index]).into());
            let mut bytes = Vec::new();
            let attrs = &mut Attrs(&mut bytes);
            let tuple_zone = has_zone_of_tuple.then_some(zone);
            write_tuple(attrs, abi::CTA_TUPLE_ORIG, protocol, [client, original_destination], tuple_zone);
            write_tuple(attrs, abi::CTA_TUPLE_REPLY, protocol, [reply_source, client], None);
            attrs.push_be32(abi::CTA_MARK, mark);
            attrs.push_be32(abi::CTA_STATUS, status);
            if !has_zone_of_tuple {
                attrs.push_bytes(abi::CTA_ZONE, &zone.to_be_bytes());
            }
            let flow = Flow { protocol, client, original_destination, reply_source };
            let has_reply = status & 2 != 0;
            let entry = Entry { flow, reply_destination: client, zone, mark, has_reply };
            prop_assert_eq!(Entry::parse(&bytes), Some(entry));
        }
    }

    fn write_tuple(
        attrs: &mut Attrs<'_>,
        kind: u16,
        protocol: Protocol,
        [source, destination]: [SocketAddr; 2],
        zone: Option<u16>,
    ) {
        attrs.push_nested(kind, |tuple| {
            if let Some(zone) = zone {
                tuple.push_bytes(abi::CTA_TUPLE_ZONE, &zone.to_be_bytes());
            }
            tuple.push_nested(abi::CTA_TUPLE_IP, |ip| match (source.ip(), destination.ip()) {
                (IpAddr::V4(source), IpAddr::V4(destination)) => {
                    ip.push_bytes(abi::CTA_IP_V4_SRC, &source.octets());
                    ip.push_bytes(abi::CTA_IP_V4_DST, &destination.octets());
                }
                (IpAddr::V6(source), IpAddr::V6(destination)) => {
                    ip.push_bytes(abi::CTA_IP_V6_SRC, &source.octets());
                    ip.push_bytes(abi::CTA_IP_V6_DST, &destination.octets());
                }
                _ => panic!("the source and the destination of a tuple must have the same address family"),
            });
            tuple.push_nested(abi::CTA_TUPLE_PROTO, |proto| {
                proto.push_bytes(abi::CTA_PROTO_NUM, &[protocol.number()]);
                proto.push_bytes(abi::CTA_PROTO_SRC_PORT, &source.port().to_be_bytes());
                proto.push_bytes(abi::CTA_PROTO_DST_PORT, &destination.port().to_be_bytes());
            });
        });
    }
}
