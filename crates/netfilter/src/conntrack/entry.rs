//! A conntrack entry, as the kernel lists it. Pure.

use std::net::{IpAddr, SocketAddr};

use akrobateo_core::Protocol;

use crate::netlink::Attr;

/// enum `ctattr_type` (`linux/netfilter/nfnetlink_conntrack.h`).
pub(super) const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
pub(super) const ID: u16 = 12;
/// enum `ctattr_tuple`.
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
/// enum `ctattr_ip`.
const IP_V4_SOURCE: u16 = 1;
const IP_V6_SOURCE: u16 = 3;
/// enum `ctattr_l4proto`.
const PROTO_NUMBER: u16 = 1;
const PROTO_SOURCE_PORT: u16 = 2;
const PROTO_TARGET_PORT: u16 = 3;

/// A tracked flow of a protocol that can be forwarded.
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
    /// Reads the attributes of a listed flow; `None` for other protocols.
    pub(super) fn read(attrs: &[u8]) -> Option<Self> {
        let (protocol, client, original_destination) = tuple(Attr::find(attrs, TUPLE_ORIGINAL)?)?;
        let (_, reply_source, _) = tuple(Attr::find(attrs, TUPLE_REPLY)?)?;
        Some(Self { protocol, client, original_destination, reply_source })
    }
}

/// Protocol, source and target of one direction.
fn tuple(attrs: &[u8]) -> Option<(Protocol, SocketAddr, SocketAddr)> {
    let proto = Attr::find(attrs, TUPLE_PROTO)?;
    let number = Attr::find(proto, PROTO_NUMBER)?.first()?;
    let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.number() == *number)?;
    let port = |kind| Some(u16::from_be_bytes(*Attr::find(proto, kind)?.first_chunk()?));
    let ip = Attr::find(attrs, TUPLE_IP)?;
    let (source, target) = match Attr::find(ip, IP_V4_SOURCE) {
        Some(source) => (address::<4>(source)?, address::<4>(Attr::find(ip, IP_V4_SOURCE + 1)?)?),
        None => {
            (address::<16>(Attr::find(ip, IP_V6_SOURCE)?)?, address::<16>(Attr::find(ip, IP_V6_SOURCE + 1)?)?)
        }
    };
    Some((
        protocol,
        SocketAddr::new(source, port(PROTO_SOURCE_PORT)?),
        SocketAddr::new(target, port(PROTO_TARGET_PORT)?),
    ))
}

fn address<const LEN: usize>(bytes: &[u8]) -> Option<IpAddr>
where
    IpAddr: From<[u8; LEN]>,
{
    Some(IpAddr::from(<[u8; LEN]>::try_from(bytes).ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::Attrs;

    proptest! {
        #[test]
        fn reading_ends_whatever_the_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Flow::read(&bytes);
        }

        #[test]
        fn a_flow_is_read_as_the_kernel_lists_it(
            protocol in prop::sample::select(&Protocol::ALL[..]),
            ips in prop_oneof![
                any::<[[u8; 4]; 3]>().prop_map(|ips| ips.map(IpAddr::from)),
                any::<[[u8; 16]; 3]>().prop_map(|ips| ips.map(IpAddr::from)),
            ],
            ports in any::<[u16; 3]>(),
        ) {
            let ends: [SocketAddr; 3] = std::array::from_fn(|at| (ips[at], ports[at]).into());
            let [client, original_destination, reply_source] = ends;
            let mut bytes = Vec::new();
            let attrs = &mut Attrs(&mut bytes);
            write(attrs, TUPLE_ORIGINAL, protocol, client, original_destination);
            write(attrs, TUPLE_REPLY, protocol, reply_source, client);
            prop_assert_eq!(Flow::read(&bytes), Some(Flow { protocol, client, original_destination, reply_source }));
        }
    }

    fn write(attrs: &mut Attrs<'_>, kind: u16, protocol: Protocol, from: SocketAddr, to: SocketAddr) {
        attrs.nested(kind, |tuple| {
            tuple.nested(TUPLE_IP, |ip| {
                for (at, end) in (0..).zip([from, to]) {
                    match end.ip() {
                        IpAddr::V4(address) => ip.bytes(IP_V4_SOURCE + at, &address.octets()),
                        IpAddr::V6(address) => ip.bytes(IP_V6_SOURCE + at, &address.octets()),
                    }
                }
            });
            tuple.nested(TUPLE_PROTO, |proto| {
                proto.bytes(PROTO_NUMBER, &[protocol.number()]);
                proto.bytes(PROTO_SOURCE_PORT, &from.port().to_be_bytes());
                proto.bytes(PROTO_TARGET_PORT, &to.port().to_be_bytes());
            });
        });
    }
}
