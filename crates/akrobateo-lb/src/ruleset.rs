//! The rules for a plan: a pure function from what is wanted to the table that the kernel gets.

use std::net::{IpAddr, SocketAddr};

use contract::Protocol;

use crate::nft::abi::{ct, meta, payload};
use crate::nft::model::{ACCEPT, Chain, DROP, DataType, Datum, Element, Expr, Reg, Rule, Set, Table};
use crate::plan::{Family, Plan};
use crate::sources::{Range, Sources};

/// The table's name, in family inet.
pub const TABLE: &str = "akrobateo";

/// linux/netfilter.h, enum `nf_inet_hooks`.
const PREROUTING: u32 = 0;
const INPUT: u32 = 1;
const POSTROUTING: u32 = 4;

/// `linux/netfilter_ipv4.h`, enum `nf_ip_hook_priorities`.
const PRIORITY_DNAT: i32 = -100;
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_SNAT: i32 = 100;

/// `NF_CT_STATE_INVALID_BIT` and `IPS_DST_NAT` (`linux/netfilter/nf_conntrack_common.h`).
const CT_INVALID: u32 = 1;
const CT_DNAT: u32 = 1 << 5;

/// nft's numbers of types, by which it prints keys and values; a concatenation has 6 bits for each part.
const TYPE_IPV4: u32 = 7;
const TYPE_IPV6: u32 = 8;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_PORT: u32 = 13;
const TYPE_BITS: u32 = 6;

/// Protocol and port, as a map's key: each part fills 4 bytes.
const LISTEN: DataType = DataType { id: TYPE_PROTOCOL << TYPE_BITS | TYPE_PORT, len: 8 };

/// What differs between the families.
struct Spec {
    map: &'static str,
    set: &'static str,
    /// `NFPROTO_IPV4` or `NFPROTO_IPV6`.
    nfproto: u8,
    address: DataType,
    /// Of the source address in the packet's header, in bytes.
    source_offset: u32,
}

const fn spec(family: Family) -> Spec {
    match family {
        Family::V4 => Spec {
            map: "forward4",
            set: "source4",
            nfproto: 2,
            address: DataType { id: TYPE_IPV4, len: 4 },
            source_offset: 12,
        },
        Family::V6 => Spec {
            map: "forward6",
            set: "source6",
            nfproto: 10,
            address: DataType { id: TYPE_IPV6, len: 16 },
            source_offset: 8,
        },
    }
}

/// The table for a plan.
#[must_use]
pub fn table(plan: &Plan) -> Table {
    let families = || Family::ALL.into_iter().filter(|family| plan.forwards(*family).next().is_some());
    let mut sets: Vec<_> = families().map(|family| forward_map(plan, family)).collect();
    let mut prerouting = Vec::new();
    if let Some(sources) = plan.sources() {
        sets.extend(families().map(|family| source_set(sources, family)));
        prerouting.extend(families().map(refuse));
    }
    prerouting.extend(families().map(forward));
    let chains = vec![
        chain("prerouting", "nat", PREROUTING, PRIORITY_DNAT, prerouting),
        chain("input", "filter", INPUT, PRIORITY_FILTER, vec![drop_invalid()]),
        chain("postrouting", "nat", POSTROUTING, PRIORITY_SNAT, vec![masquerade_forwarded()]),
    ];
    Table { name: TABLE.to_owned(), sets, chains }
}

fn chain(name: &str, kind: &str, hook: u32, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain { name: name.to_owned(), kind: kind.to_owned(), hook, priority, policy: ACCEPT, rules }
}

fn forward_map(plan: &Plan, family: Family) -> Set {
    let Spec { map, address, .. } = spec(family);
    let value = DataType { id: address.id << TYPE_BITS | TYPE_PORT, len: address.len + 4 };
    let elements = plan.forwards(family).map(|(protocol, port, target)| Element {
        key: listen(protocol, port.get()),
        end: false,
        value: Some(datum(target)),
    });
    Set {
        name: map.to_owned(),
        key: LISTEN,
        value: Some(value),
        interval: false,
        elements: elements.collect(),
    }
}

fn source_set(sources: &Sources, family: Family) -> Set {
    let Spec { set, address, .. } = spec(family);
    let bound = |bits: u128, end| {
        let bytes = bits.to_be_bytes();
        let key = match family {
            Family::V4 => Datum::from(*bytes.last_chunk::<4>().unwrap_or(&[0; 4])),
            Family::V6 => Datum::from(bytes),
        };
        Element { key, end, value: None }
    };
    let highest = u128::MAX >> (128 - 8 * address.len);
    let bounds = |range: &Range| {
        // A range that reaches the highest address has no upper bound outside.
        let end = (range.last < highest).then(|| bound(range.last + 1, true));
        [Some(bound(range.first, false)), end].into_iter().flatten()
    };
    let elements = sources.of(family).iter().flat_map(bounds).collect();
    Set { name: set.to_owned(), key: address, value: None, interval: true, elements }
}

/// `meta nfproto FAMILY meta l4proto . th dport @MAP`, the key in registers 0 and 1, the value from there.
///
/// Only what is in the map matches, so that neither the probe nor the pod's own traffic is touched.
fn listened(family: Family) -> Rule {
    let Spec { map, nfproto, .. } = spec(family);
    vec![
        Expr::Meta { key: meta::NFPROTO, into: Reg(0) },
        Expr::Cmp { from: Reg(0), equal: true, data: vec![nfproto] },
        Expr::Meta { key: meta::L4PROTO, into: Reg(0) },
        Expr::Payload { base: payload::TRANSPORT, offset: 2, len: 2, into: Reg(1) },
        Expr::Lookup { set: map.to_owned(), from: Reg(0), into: Some(Reg(0)), missing: false },
    ]
}

/// Drops clients that are not let in; in a nat chain, only a flow's first packet pays for it.
fn refuse(family: Family) -> Rule {
    let Spec { set, address, source_offset, .. } = spec(family);
    let mut rule = listened(family);
    rule.extend([
        // Always so; but the nft program doesn't list a lookup whose value isn't used.
        Expr::Cmp { from: Reg(0), equal: false, data: vec![0; (address.len as usize + 4).min(16)] },
        Expr::Payload { base: payload::NETWORK, offset: source_offset, len: address.len, into: Reg(0) },
        Expr::Lookup { set: set.to_owned(), from: Reg(0), into: None, missing: true },
        Expr::Verdict(DROP),
    ]);
    rule
}

fn forward(family: Family) -> Rule {
    let Spec { nfproto, address, .. } = spec(family);
    let port = if address.len == 4 { Reg(1) } else { Reg(4) };
    let mut rule = listened(family);
    rule.push(Expr::Dnat { family: nfproto.into(), address: Reg(0), port });
    rule
}

/// Otherwise the pod itself would answer strays of flows that it forwards with a reset, and break them.
fn drop_invalid() -> Rule {
    with_bit(ct::STATE, CT_INVALID, Expr::Verdict(DROP))
}

/// The answer has to come back through here, to be given the address that the client knows.
fn masquerade_forwarded() -> Rule {
    with_bit(ct::STATUS, CT_DNAT, Expr::Masquerade)
}

fn with_bit(key: u32, bit: u32, then: Expr) -> Rule {
    vec![
        Expr::Ct { key, into: Reg(0) },
        Expr::Mask { reg: Reg(0), mask: bit.to_ne_bytes().to_vec() },
        Expr::Cmp { from: Reg(0), equal: false, data: vec![0; 4] },
        then,
    ]
}

/// The protocol's number in the IP header.
pub(crate) const fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

fn listen(protocol: Protocol, port: u16) -> Datum {
    let [high, low] = port.to_be_bytes();
    Datum::from([number(protocol), 0, 0, 0, high, low, 0, 0])
}

fn datum(target: SocketAddr) -> Datum {
    let [high, low] = target.port().to_be_bytes();
    match target.ip() {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            Datum::from([a, b, c, d, high, low, 0, 0])
        }
        IpAddr::V6(ip) => {
            let mut bytes = [0; Datum::MAX_LEN];
            bytes[..16].copy_from_slice(&ip.octets());
            bytes[16..18].copy_from_slice(&[high, low]);
            Datum::from(bytes)
        }
    }
}
