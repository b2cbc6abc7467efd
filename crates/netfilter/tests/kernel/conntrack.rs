//! Tests that list conntrack entries with their zones and marks, and that delete entries by filter.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use akrobateo_core::{Family, Protocol as FlowProtocol};
use netfilter::conntrack::{Conntrack, Entry, EntryFilter, Flow, MarkCondition};
use netfilter::netlink::{Attrs, Messages, NetlinkError, Protocol, Socket, message};
use netns_testkit::{Namespace, isolated};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::round_trip::proptest_config;

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW` (`linux/netfilter/nfnetlink_conntrack.h`).
const NEW_ENTRY_MESSAGE: u16 = 1 << 8;
/// `IPS_CONFIRMED`.
const ENTRY_STATUS: u32 = 0b1000;
const ENTRY_TIMEOUT_SECONDS: u32 = 3600;

/// Adds an entry. If `has_directional_zone` is true, the zone applies only to the original direction.
fn add_entry(socket: &Socket, entry: &Entry, has_directional_zone: bool) -> Result<(), NetlinkError> {
    let Flow { protocol, client, original_destination, reply_source } = entry.flow;
    let family = if client.is_ipv4() { 2 } else { 10 };
    let tuple_zone = (has_directional_zone && entry.zone != 0).then_some(entry.zone);
    let request = Messages::single(
        NEW_ENTRY_MESSAGE,
        message::NLM_F_ACK | message::NLM_F_CREATE,
        &[family, 0, 0, 0],
        |attrs| {
            // CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_STATUS, CTA_TIMEOUT, CTA_MARK and CTA_ZONE.
            push_tuple(attrs, 1, protocol, [client, original_destination], tuple_zone);
            push_tuple(attrs, 2, protocol, [reply_source, entry.reply_destination], None);
            attrs.push_be32(3, ENTRY_STATUS);
            attrs.push_be32(7, ENTRY_TIMEOUT_SECONDS);
            attrs.push_be32(8, entry.mark);
            if !has_directional_zone && entry.zone != 0 {
                attrs.push_bytes(18, &entry.zone.to_be_bytes());
            }
            if protocol == FlowProtocol::Tcp {
                // CTA_PROTOINFO with CTA_PROTOINFO_TCP and CTA_PROTOINFO_TCP_STATE: TCP_CONNTRACK_ESTABLISHED.
                attrs.push_nested(4, |info| info.push_nested(1, |tcp| tcp.push_u8(1, 3)));
            }
        },
    );
    socket.request(&request, |_| ())
}

fn push_tuple(
    attrs: &mut Attrs<'_>,
    kind: u16,
    protocol: FlowProtocol,
    [source, destination]: [SocketAddr; 2],
    zone: Option<u16>,
) {
    attrs.push_nested(kind, |tuple| {
        // CTA_TUPLE_IP with CTA_IP_V4_SRC, CTA_IP_V4_DST, CTA_IP_V6_SRC or CTA_IP_V6_DST.
        tuple.push_nested(1, |ip| {
            for (number, address) in (1..).zip([source.ip(), destination.ip()]) {
                match address {
                    IpAddr::V4(address) => ip.push_bytes(number, &address.octets()),
                    IpAddr::V6(address) => ip.push_bytes(number + 2, &address.octets()),
                }
            }
        });
        // CTA_TUPLE_PROTO with CTA_PROTO_NUM, CTA_PROTO_SRC_PORT and CTA_PROTO_DST_PORT.
        tuple.push_nested(2, |proto| {
            proto.push_u8(1, protocol.number());
            proto.push_bytes(2, &source.port().to_be_bytes());
            proto.push_bytes(3, &destination.port().to_be_bytes());
        });
        if let Some(zone) = zone {
            // CTA_TUPLE_ZONE.
            tuple.push_bytes(3, &zone.to_be_bytes());
        }
    });
}

/// Returns one of three numbers for addresses, so that a filter matches some of the entries.
fn any_address_number() -> impl Strategy<Value = u8> {
    1..4_u8
}

fn build_ip(family: Family, network: u8, host: u8) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([10, network, 0, host]),
        Family::V6 => IpAddr::from([0xfd, 0, 0, network, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]),
    }
}

fn any_entry() -> impl Strategy<Value = (Entry, bool)> {
    let family = prop::sample::select(&Family::ALL[..]);
    let protocol = prop::sample::select(&[FlowProtocol::Tcp, FlowProtocol::Udp][..]);
    let addresses = (any_address_number(), any_address_number(), any_address_number());
    let numbers = (any::<u16>(), 0..4_u16, 0..4_u32, any::<bool>());
    (family, protocol, addresses, numbers).prop_map(|(family, protocol, addresses, numbers)| {
        let (client, node, endpoint) = addresses;
        let (client_port, zone, mark, has_directional_zone) = numbers;
        let client = SocketAddr::new(build_ip(family, 1, client), client_port);
        let entry = Entry {
            flow: Flow {
                protocol,
                client,
                original_destination: SocketAddr::new(build_ip(family, 2, node), 80 + u16::from(node)),
                reply_source: SocketAddr::new(build_ip(family, 3, endpoint), 8080 + u16::from(endpoint)),
            },
            reply_destination: client,
            zone,
            mark,
            has_reply: false,
        };
        (entry, has_directional_zone)
    })
}

fn any_filter() -> impl Strategy<Value = EntryFilter> {
    let protocol = prop::sample::select(&[FlowProtocol::Tcp, FlowProtocol::Udp][..]);
    let port = |base: u16| {
        prop::option::weighted(
            0.3,
            any_address_number().prop_map(move |number| NonZeroU16::new(base + u16::from(number)).unwrap()),
        )
    };
    let mark = (0..4_u32, 0..4_u32).prop_map(|(bits, mask)| MarkCondition { bits: bits & mask, mask });
    let family = prop::sample::select(&Family::ALL[..]);
    let frontend = prop::option::weighted(0.3, (protocol, port(80)));
    let addresses = (
        prop::option::weighted(0.3, any_address_number()),
        prop::option::weighted(0.3, (any_address_number(), port(8080))),
    );
    let zone_and_mark = (prop::option::weighted(0.3, 0..4_u16), prop::option::weighted(0.3, mark));
    (family, prop::bool::weighted(0.7), frontend, addresses, zone_and_mark).prop_map(
        |(family, has_family, frontend, (node, endpoint), (zone, mark))| EntryFilter {
            family: has_family.then_some(family),
            frontend,
            original_destination: node.map(|node| build_ip(family, 2, node)),
            reply_source: endpoint.map(|(endpoint, port)| (build_ip(family, 3, endpoint), port)),
            zone,
            mark,
            has_reply: None,
        },
    )
}

/// Returns all entries in a stable order.
fn all_entries(conntrack: &Conntrack) -> Vec<Entry> {
    let entries = Family::ALL.map(|family| conntrack.entries(&EntryFilter::new(family)).unwrap());
    sort_entries(entries.concat())
}

fn sort_entries(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.sort_by_key(|entry| format!("{entry:?}"));
    entries
}

#[test]
fn filter_lists_and_deletes_exactly_the_matching_entries() {
    isolated(|| {
        let check = |(entries, filter): (Vec<(Entry, bool)>, EntryFilter)| {
            let conntrack = Conntrack::open().unwrap();
            let socket = Socket::open(Protocol::Netfilter).unwrap();
            // Entries of an earlier, failed case are deleted.
            conntrack.delete_stale_entries(|_| true).unwrap();
            for (entry, has_directional_zone) in &entries {
                let result = add_entry(&socket, entry, *has_directional_zone);
                prop_assert_eq!(result, Ok(()), "{:?}", entry);
            }
            let entries: Vec<_> = entries.into_iter().map(|(entry, _)| entry).collect();
            prop_assert_eq!(all_entries(&conntrack), sort_entries(entries.clone()));
            let (matching, others): (Vec<_>, Vec<_>) =
                entries.into_iter().partition(|entry| filter.matches(entry));
            prop_assert_eq!(
                sort_entries(conntrack.entries(&filter).unwrap()),
                sort_entries(matching.clone())
            );
            prop_assert_eq!(conntrack.delete_entries(&filter).unwrap(), matching.len());
            prop_assert_eq!(all_entries(&conntrack), sort_entries(others));
            Ok(())
        };
        // Each entry has a different port of the client, because the other fields may be equal.
        let entries = prop::collection::vec(any_entry(), 1..20).prop_map(|mut entries| {
            entries.sort_by_key(|(entry, _)| entry.flow.client.port());
            entries.dedup_by_key(|(entry, _)| entry.flow.client.port());
            entries
        });
        let run = || TestRunner::new(proptest_config(30)).run(&(entries, any_filter()), check).unwrap();
        Namespace::new().run(run);
    });
}

#[test]
fn kernel_lists_only_the_entries_of_the_frontend() {
    isolated(|| {
        Namespace::new().run(|| {
            let socket = Socket::open(Protocol::Netfilter).unwrap();
            for port in 1..=100 {
                let client = SocketAddr::from(([10, 1, 0, 1], port));
                let reply_source = SocketAddr::from(([10, 3, 0, 1], 53));
                let original_destination = SocketAddr::from(([10, 2, 0, 1], 50 + port % 10));
                let flow = Flow { protocol: FlowProtocol::Udp, client, original_destination, reply_source };
                let entry = Entry { flow, reply_destination: client, zone: 0, mark: 0, has_reply: false };
                add_entry(&socket, &entry, false).unwrap();
            }
            let count_listed_entries = |filter: &EntryFilter| {
                let mut count = 0;
                socket.request(&filter.encode(), |_| count += 1).unwrap();
                count
            };
            let frontend = Some((FlowProtocol::Udp, NonZeroU16::new(53)));
            let filter = EntryFilter { frontend, ..EntryFilter::new(Family::V4) };
            assert_eq!(count_listed_entries(&filter), 10);
            assert_eq!(
                count_listed_entries(&EntryFilter {
                    original_destination: Some([10, 2, 0, 9].into()),
                    ..filter
                }),
                0
            );
            assert_eq!(
                count_listed_entries(&EntryFilter {
                    mark: Some(MarkCondition { bits: 1, mask: 1 }),
                    ..filter
                }),
                0
            );
            assert_eq!(count_listed_entries(&EntryFilter::new(Family::V6)), 0);
        });
    });
}
