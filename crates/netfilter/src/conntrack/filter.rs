//! Selects conntrack entries. The kernel evaluates only the conditions that all versions of Linux treat equally. Pure.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;

use akrobateo_core::{Family, Protocol};

use super::abi;
use super::entry::Entry;
use crate::netlink::{Attrs, Messages, message};

/// The conditions that conntrack entries must meet. If a field is `None`, all entries meet this condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryFilter {
    /// The address family.
    pub family: Option<Family>,
    /// The layer-4 protocol, and the port that the client used.
    pub frontend: Option<(Protocol, Option<NonZeroU16>)>,
    /// The address that the client used.
    pub original_destination: Option<IpAddr>,
    /// The source of the reply direction: the endpoint's address, and its port.
    pub reply_source: Option<(IpAddr, Option<NonZeroU16>)>,
    /// The zone of the original direction.
    pub zone: Option<u16>,
    /// The mark.
    pub mark: Option<MarkCondition>,
    /// True if the entry must have seen a packet in the reply direction; false if the entry must not have seen one.
    pub has_reply: Option<bool>,
}

/// A condition on a mark: the bits of the mark that `mask` selects must equal `bits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkCondition {
    /// The value of the bits in `mask`.
    pub bits: u32,
    /// The bits to compare.
    pub mask: u32,
}

impl EntryFilter {
    /// Creates a filter that all entries of a family match.
    #[must_use]
    pub const fn new(family: Family) -> Self {
        Self {
            family: Some(family),
            frontend: None,
            original_destination: None,
            reply_source: None,
            zone: None,
            mark: None,
            has_reply: None,
        }
    }

    /// Returns true if the entry meets all conditions.
    #[must_use]
    pub fn matches(&self, entry: &Entry) -> bool {
        let Self { family, frontend, original_destination, reply_source, zone, mark, has_reply } = self;
        let Entry { flow, zone: entry_zone, mark: entry_mark, .. } = entry;
        let has_port =
            |port: Option<NonZeroU16>, entry_port| port.is_none_or(|port| port.get() == entry_port);
        family.is_none_or(|family| Family::from_ip(flow.original_destination.ip()) == family)
            && frontend.is_none_or(|(protocol, port)| {
                protocol == flow.protocol && has_port(port, flow.original_destination.port())
            })
            && original_destination.is_none_or(|address| address == flow.original_destination.ip())
            && reply_source.is_none_or(|(address, port)| {
                address == flow.reply_source.ip() && has_port(port, flow.reply_source.port())
            })
            && has_reply.is_none_or(|has_reply| has_reply == entry.has_reply)
            && zone.is_none_or(|zone| zone == *entry_zone)
            && mark.is_none_or(|mark| entry_mark & mark.mask == mark.bits)
    }

    /// Encodes the request for the entries. The kernel may list more entries than [`Self::matches`] allows.
    ///
    /// The kernel applies the conditions on the family and the mark. Since Linux 5.8, the kernel also applies the
    /// conditions on the original direction. Different kernels treat the other conditions differently. The request
    /// therefore omits each of these conditions:
    /// - on the original direction, if the filter has no family, because kernels reject such a request;
    /// - on an IPv6 address, because kernels list the entries with other addresses (`ctnetlink_filter_match_tuple` in
    ///   Linux 6.18 takes equal addresses for different ones);
    /// - on the reply direction, because some kernels use the flags of the original direction for the reply direction;
    /// - on the zone, because older kernels ignore this condition.
    #[must_use]
    pub fn encode(&self) -> Messages {
        let header = [nfproto(self.family), 0, 0, 0];
        Messages::single(abi::GET_ENTRIES, message::NLM_F_DUMP, &header, |attrs| {
            if let Some(MarkCondition { bits, mask }) = self.mark {
                attrs.push_be32(abi::CTA_MARK, bits);
                attrs.push_be32(abi::CTA_MARK_MASK, mask);
            }
            let ipv4_destination = match self.original_destination {
                Some(IpAddr::V4(address)) => Some(address),
                _ => None,
            };
            if self.family.is_some() && (self.frontend.is_some() || ipv4_destination.is_some()) {
                self.encode_original_tuple(attrs, ipv4_destination);
            }
        })
    }

    fn encode_original_tuple(&self, attrs: &mut Attrs<'_>, destination: Option<Ipv4Addr>) {
        let mut flags = 0;
        attrs.push_nested(abi::CTA_TUPLE_ORIG, |tuple| {
            if let Some(address) = destination {
                flags |= abi::CTA_FILTER_F_CTA_IP_DST;
                tuple.push_nested(abi::CTA_TUPLE_IP, |ip| {
                    ip.push_bytes(abi::CTA_IP_V4_DST, &address.octets());
                });
            }
            if let Some((protocol, port)) = self.frontend {
                flags |= abi::CTA_FILTER_F_CTA_PROTO_NUM;
                tuple.push_nested(abi::CTA_TUPLE_PROTO, |proto| {
                    proto.push_u8(abi::CTA_PROTO_NUM, protocol.number());
                    if let Some(port) = port {
                        flags |= abi::CTA_FILTER_F_CTA_PROTO_DST_PORT;
                        proto.push_bytes(abi::CTA_PROTO_DST_PORT, &port.get().to_be_bytes());
                    }
                });
            }
        });
        attrs.push_nested(abi::CTA_FILTER, |filter| {
            filter.push_bytes(abi::CTA_FILTER_ORIG_FLAGS, &flags.to_ne_bytes());
        });
    }
}

/// Returns `NFPROTO_IPV4`, `NFPROTO_IPV6` or `NFPROTO_UNSPEC` (`linux/netfilter.h`).
const fn nfproto(family: Option<Family>) -> u8 {
    match family {
        Some(Family::V4) => 2,
        Some(Family::V6) => 10,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conntrack::Flow;

    #[test]
    fn entry_matches_only_if_it_meets_each_condition() {
        let entry = Entry {
            flow: Flow {
                protocol: Protocol::Udp,
                client: "192.0.2.100:4000".parse().unwrap(),
                original_destination: "192.0.2.1:53".parse().unwrap(),
                reply_source: "10.244.1.10:5353".parse().unwrap(),
            },
            reply_destination: "192.0.2.100:4000".parse().unwrap(),
            zone: 7,
            mark: 0b1010,
            has_reply: true,
        };
        let mark = |bits, mask| Some(MarkCondition { bits, mask });
        let endpoint = |address: &str, port| Some((address.parse().unwrap(), NonZeroU16::new(port)));
        let filter = EntryFilter {
            family: Some(Family::V4),
            frontend: Some((Protocol::Udp, NonZeroU16::new(53))),
            original_destination: Some("192.0.2.1".parse().unwrap()),
            reply_source: endpoint("10.244.1.10", 5353),
            zone: Some(7),
            mark: mark(0b1000, 0b1100),
            has_reply: Some(true),
        };
        assert!(filter.matches(&entry));
        assert!(EntryFilter::new(Family::V4).matches(&entry));
        assert!(EntryFilter::default().matches(&entry));
        for other_filter in [
            EntryFilter { family: Some(Family::V6), ..filter },
            EntryFilter { frontend: Some((Protocol::Tcp, NonZeroU16::new(53))), ..filter },
            EntryFilter { frontend: Some((Protocol::Udp, NonZeroU16::new(54))), ..filter },
            EntryFilter { original_destination: Some("192.0.2.2".parse().unwrap()), ..filter },
            EntryFilter { reply_source: endpoint("10.244.1.11", 5353), ..filter },
            EntryFilter { reply_source: endpoint("10.244.1.10", 5354), ..filter },
            EntryFilter { zone: Some(0), ..filter },
            EntryFilter { has_reply: Some(false), ..filter },
            EntryFilter { mark: mark(0b0100, 0b1100), ..filter },
        ] {
            assert!(!other_filter.matches(&entry), "{other_filter:?}");
        }
    }
}
