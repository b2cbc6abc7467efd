//! The rules for a plan: a pure function from what is wanted to the table that the kernel gets.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use akrobateo_core::{Family, Protocol};

use crate::forwarding_config::{ForwardingConfig, Frontend};
use crate::sources::{Range, Sources};
use netfilter::nft::abi::{ct, meta, payload};
use netfilter::nft::model::{
    ACCEPT, Chain, Count, DROP, DataType, Element, Expr, Reg, Rule, Set, Table, Value,
};

/// The table's name, in family inet.
pub const TABLE: &str = "akrobateo";

/// linux/netfilter.h, enum `nf_inet_hooks`.
const PREROUTING: u32 = 0;
const INPUT: u32 = 1;
const FORWARD: u32 = 2;
const POSTROUTING: u32 = 4;

/// `linux/netfilter_ipv4.h`, enum `nf_ip_hook_priorities`.
const PRIORITY_DNAT: i32 = -100;
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_SNAT: i32 = 100;

/// `NF_CT_STATE_INVALID_BIT` and `IPS_DST_NAT` (`linux/netfilter/nf_conntrack_common.h`).
const CT_INVALID: u32 = 1;
const CT_DNAT: u32 = 1 << 5;

/// nft's numbers of types, by which it prints keys and values; a concatenation has 6 bits for each part.
const TYPE_NFPROTO: u32 = 2;
const TYPE_IPV4: u32 = 7;
const TYPE_IPV6: u32 = 8;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_PORT: u32 = 13;
const TYPE_MARK: u32 = 19;
const TYPE_BITS: u32 = 6;

/// Protocol and port, as a map's key: each part fills 4 bytes.
const LISTEN: DataType = DataType { id: TYPE_PROTOCOL << TYPE_BITS | TYPE_PORT, len: 8 };
/// The same after the family.
const FAMILY_LISTEN: DataType =
    DataType { id: TYPE_NFPROTO << (2 * TYPE_BITS) | LISTEN.id, len: LISTEN.len + 4 };
/// What a flow is marked with: its port, as [`mark_of`] writes it.
const MARK: DataType = DataType { id: TYPE_MARK, len: 4 };

/// From a port to its mark.
const MARKS: &str = "mark";
/// Every packet from a client that is passed on, by its flow's mark.
const INCOMING: &str = "incoming";
/// Every packet to a client that is passed on, by its flow's mark.
const OUTGOING: &str = "outgoing";
/// Every flow's beginning that source ranges refuse, by port.
const REFUSED: &str = "refused";

/// What was counted for a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Flows that were forwarded.
    pub connections: u64,
    /// Packets that would have begun a flow, but for the source ranges; `None` without ranges.
    pub refused: Option<u64>,
    /// From clients to the backend.
    pub incoming: Count,
    /// From the backend to clients.
    pub outgoing: Count,
}

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

/// Sets that a table may have.
const MOST_SETS: usize = 8;

/// The table for a plan.
///
/// The sets come last: so nothing small that stays lies behind them in memory, and the allocator gives theirs back.
#[must_use]
pub fn table(plan: &ForwardingConfig) -> Table {
    let families = || Family::ALL.into_iter().filter(|family| plan.forwards(*family).next().is_some());
    let mut prerouting = Vec::new();
    if plan.sources().is_some() {
        prerouting.extend(families().map(refuse));
    }
    prerouting.push(mark());
    prerouting.extend(families().map(forward));
    let chains = vec![
        chain("prerouting", "nat", PREROUTING, PRIORITY_DNAT, prerouting),
        chain("input", "filter", INPUT, PRIORITY_FILTER, vec![drop_invalid(), drop_untranslated()]),
        chain("forward", "filter", FORWARD, PRIORITY_FILTER, vec![count_incoming(), count_outgoing()]),
        chain("postrouting", "nat", POSTROUTING, PRIORITY_SNAT, vec![masquerade_forwarded()]),
    ];
    let mut sets = Vec::with_capacity(MOST_SETS);
    sets.extend(families().map(|family| forward_map(plan, family)));
    sets.push(mark_map(plan));
    sets.extend([INCOMING, OUTGOING].map(|name| counters(plan, name, MARK, mark_of)));
    if let Some(sources) = plan.sources() {
        sets.push(counters(plan, REFUSED, FAMILY_LISTEN, listen_key));
        sets.extend(families().map(|family| source_set(sources, family)));
    }
    Table { name: TABLE.into(), sets, chains }
}

/// What was counted for a port, in a table as [`table`] makes it; `None` where the kernel counts nothing.
#[must_use]
pub fn traffic(table: &Table, listen: Frontend) -> Option<Traffic> {
    let (family, protocol, port) = listen;
    let count = |set: &str, key: &Value| table.set(set)?.count(key);
    Some(Traffic {
        connections: count(spec(family).map, &map_key(protocol, port))?.packets,
        refused: count(REFUSED, &listen_key(listen)).map(|count| count.packets),
        incoming: count(INCOMING, &mark_of(listen))?,
        outgoing: count(OUTGOING, &mark_of(listen))?,
    })
}

fn chain(name: &'static str, kind: &'static str, hook: u32, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain { name: name.into(), kind: kind.into(), hook, priority, policy: ACCEPT, rules }
}

fn forward_map(plan: &ForwardingConfig, family: Family) -> Set {
    let Spec { map, address, .. } = spec(family);
    let value = DataType { id: address.id << TYPE_BITS | TYPE_PORT, len: address.len + 4 };
    let forwards = plan.forwards(family);
    let elements = forwards.map(|(protocol, port, to)| element(map_key(protocol, port), Some(datum(to))));
    Set {
        name: map.into(),
        key: LISTEN,
        value: Some(value),
        interval: false,
        counted: true,
        elements: elements.collect(),
    }
}

fn mark_map(plan: &ForwardingConfig) -> Set {
    let element = |listen| element(listen_key(listen), Some(mark_of(listen)));
    let elements = plan.frontends().map(element).collect();
    let (name, key) = (MARKS.into(), FAMILY_LISTEN);
    Set { name, key, value: Some(MARK), interval: false, counted: false, elements }
}

/// A set with an element for each port, which counts the packets that find it.
fn counters(
    plan: &ForwardingConfig,
    name: &'static str,
    key_type: DataType,
    key: impl Fn(Frontend) -> Value,
) -> Set {
    let mut elements: Vec<_> = plan.frontends().map(|listen| element(key(listen), None)).collect();
    elements.sort_unstable();
    Set { name: name.into(), key: key_type, value: None, interval: false, counted: true, elements }
}

fn element(key: Value, value: Option<Value>) -> Element {
    Element { key, end: false, value, count: Count::default() }
}

fn source_set(sources: &Sources, family: Family) -> Set {
    let Spec { set, address, .. } = spec(family);
    let bound = |bits: u128, end| {
        let bytes = bits.to_be_bytes();
        let key = match family {
            Family::V4 => Value::from(*bytes.last_chunk::<4>().unwrap_or(&[0; 4])),
            Family::V6 => Value::from(bytes),
        };
        Element { key, end, value: None, count: Count::default() }
    };
    let highest = u128::MAX >> (128 - 8 * address.len);
    let bounds = |range: &Range| {
        // A range that reaches the highest address has no upper bound outside.
        let end = (range.last < highest).then(|| bound(range.last + 1, true));
        [Some(bound(range.first, false)), end].into_iter().flatten()
    };
    let elements = sources.of(family).iter().flat_map(bounds).collect();
    Set { name: set.into(), key: address, value: None, interval: true, counted: false, elements }
}

/// Drops clients that are not let in; in a nat chain, only a flow's first packet pays for it.
///
/// `meta nfproto FAMILY IP saddr != @SET meta nfproto . meta l4proto . th dport @REFUSED drop`
fn refuse(family: Family) -> Rule {
    let Spec { set, nfproto, address, source_offset, .. } = spec(family);
    vec![
        Expr::Meta { key: meta::NFPROTO, into: Reg(0) },
        Expr::Cmp { from: Reg(0), equal: true, data: vec![nfproto] },
        Expr::Payload { base: payload::NETWORK, offset: source_offset, len: address.len, into: Reg(4) },
        Expr::Lookup { set: set.into(), from: Reg(4), into: None, missing: true },
        Expr::Meta { key: meta::L4PROTO, into: Reg(1) },
        Expr::Payload { base: payload::TRANSPORT, offset: 2, len: 2, into: Reg(2) },
        Expr::Lookup { set: REFUSED.into(), from: Reg(0), into: None, missing: false },
        Expr::Verdict(DROP),
    ]
}

/// `meta nfproto FAMILY dnat to meta l4proto . th dport map @MAP`
///
/// Only what is in the map matches, so that neither the probe nor the pod's own traffic is touched.
fn forward(family: Family) -> Rule {
    let Spec { map, nfproto, address, .. } = spec(family);
    let port = if address.len == 4 { Reg(1) } else { Reg(4) };
    vec![
        Expr::Meta { key: meta::NFPROTO, into: Reg(0) },
        Expr::Cmp { from: Reg(0), equal: true, data: vec![nfproto] },
        Expr::Meta { key: meta::L4PROTO, into: Reg(0) },
        Expr::Payload { base: payload::TRANSPORT, offset: 2, len: 2, into: Reg(1) },
        Expr::Lookup { set: map.into(), from: Reg(0), into: Some(Reg(0)), missing: false },
        Expr::Dnat { family: nfproto.into(), address: Reg(0), port },
    ]
}

/// `ct mark set meta nfproto . meta l4proto . th dport map @MARKS`
///
/// By the mark each further packet is counted: a third of what a look-up by family, protocol and port costs.
fn mark() -> Rule {
    let mut rule = marked();
    rule.push(Expr::SetCtMark { from: Reg(0) });
    rule
}

/// The mark of the packet's port in register 0.
fn marked() -> Rule {
    vec![
        Expr::Meta { key: meta::NFPROTO, into: Reg(0) },
        Expr::Meta { key: meta::L4PROTO, into: Reg(1) },
        Expr::Payload { base: payload::TRANSPORT, offset: 2, len: 2, into: Reg(2) },
        Expr::Lookup { set: MARKS.into(), from: Reg(0), into: Some(Reg(0)), missing: false },
    ]
}

/// `ct direction original ct mark @INCOMING accept`
fn count_incoming() -> Rule {
    vec![
        Expr::Ct { key: ct::DIRECTION, into: Reg(0) },
        Expr::Cmp { from: Reg(0), equal: true, data: vec![ct::ORIGINAL] },
        Expr::Ct { key: ct::MARK, into: Reg(0) },
        Expr::Lookup { set: INCOMING.into(), from: Reg(0), into: None, missing: false },
        Expr::Verdict(ACCEPT),
    ]
}

/// `ct mark @OUTGOING`, for what the rule before leaves.
fn count_outgoing() -> Rule {
    vec![
        Expr::Ct { key: ct::MARK, into: Reg(0) },
        Expr::Lookup { set: OUTGOING.into(), from: Reg(0), into: None, missing: false },
    ]
}

/// Otherwise the pod itself would answer strays of flows that it forwards with a reset, and break them.
fn drop_invalid() -> Rule {
    with_bit(ct::STATE, CT_INVALID, Expr::Verdict(DROP))
}

/// What should have been forwarded and comes to the pod itself passed between the old table and the new one.
/// Dropped, it comes again; the pod would answer that nobody frontends.
///
/// `meta nfproto . meta l4proto . th dport map @MARKS != 0 drop`
fn drop_untranslated() -> Rule {
    let mut rule = marked();
    // Always so; but the nft program doesn't list a look-up whose value isn't used.
    rule.push(Expr::Cmp { from: Reg(0), equal: false, data: vec![0; 4] });
    rule.push(Expr::Verdict(DROP));
    rule
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

fn map_key(protocol: Protocol, port: NonZeroU16) -> Value {
    let [high, low] = port.get().to_be_bytes();
    Value::from([protocol.number(), 0, 0, 0, high, low, 0, 0])
}

fn listen_key((family, protocol, port): Frontend) -> Value {
    let [high, low] = port.get().to_be_bytes();
    Value::from([spec(family).nfproto, 0, 0, 0, protocol.number(), 0, 0, 0, high, low, 0, 0])
}

/// Family, protocol and port as one number, the same whatever else is forwarded: flows keep their mark.
fn mark_of((family, protocol, port): Frontend) -> Value {
    let [high, low] = port.get().to_be_bytes();
    Value::from(u32::from_be_bytes([spec(family).nfproto, protocol.number(), high, low]).to_ne_bytes())
}

fn datum(target: SocketAddr) -> Value {
    let [high, low] = target.port().to_be_bytes();
    match target.ip() {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            Value::from([a, b, c, d, high, low, 0, 0])
        }
        IpAddr::V6(ip) => {
            let mut bytes = [0; Value::MAX_LEN];
            bytes[..16].copy_from_slice(&ip.octets());
            bytes[16..18].copy_from_slice(&[high, low]);
            Value::from(bytes)
        }
    }
}
