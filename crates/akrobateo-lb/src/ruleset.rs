//! Builds the nftables table of a forwarding configuration. Pure.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use akrobateo_core::{Family, Frontend, Protocol};
use netfilter::nft::abi::{ct, meta, payload};
use netfilter::nft::model::{
    ACCEPT, Chain, Count, DROP, DataType, Element, Expr, Reg, Rule, Set, Table, Value,
};

use crate::forwarding_config::ForwardingConfig;
use crate::sources::{AddressRange, Sources};

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

/// The nft program's numbers of data types. A concatenation has 6 bits for each part.
const TYPE_NFPROTO: u32 = 2;
const TYPE_IPV4: u32 = 7;
const TYPE_IPV6: u32 = 8;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_PORT: u32 = 13;
const TYPE_MARK: u32 = 19;
const TYPE_BITS: u32 = 6;

/// The key type "protocol . port". Each part is padded to 4 bytes.
const PORT_KEY: DataType = DataType { id: TYPE_PROTOCOL << TYPE_BITS | TYPE_PORT, len: 8 };
/// The key type "family . protocol . port".
const FRONTEND_KEY: DataType =
    DataType { id: TYPE_NFPROTO << (2 * TYPE_BITS) | PORT_KEY.id, len: PORT_KEY.len + 4 };
/// The type of a conntrack mark. A flow's mark is its frontend, as [`mark_value`] encodes it.
const MARK: DataType = DataType { id: TYPE_MARK, len: 4 };

/// The map from a frontend to its mark.
const MARKS: &str = "mark";
/// The set that counts packets from clients, by mark.
const INCOMING: &str = "incoming";
/// The set that counts packets to clients, by mark.
const OUTGOING: &str = "outgoing";
/// The set that counts packets that the source ranges deny, by frontend.
const REFUSED: &str = "refused";

/// The counters of a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// The number of forwarded flows.
    pub connections: u64,
    /// The number of packets of new flows that the source ranges denied. `None` without source ranges.
    pub refused: Option<u64>,
    /// The traffic from clients to the backend.
    pub incoming: Count,
    /// The traffic from the backend to clients.
    pub outgoing: Count,
}

/// The parts of the table that differ between the address families.
struct FamilySpec {
    forward_map: &'static str,
    source_set: &'static str,
    /// `NFPROTO_IPV4` or `NFPROTO_IPV6`.
    nfproto: u8,
    address: DataType,
    /// The offset of the source address in the IP header, in bytes.
    source_offset: u32,
}

const fn family_spec(family: Family) -> FamilySpec {
    match family {
        Family::V4 => FamilySpec {
            forward_map: "forward4",
            source_set: "source4",
            nfproto: 2,
            address: DataType { id: TYPE_IPV4, len: 4 },
            source_offset: 12,
        },
        Family::V6 => FamilySpec {
            forward_map: "forward6",
            source_set: "source6",
            nfproto: 10,
            address: DataType { id: TYPE_IPV6, len: 16 },
            source_offset: 8,
        },
    }
}

/// The maximum number of sets in a table.
const MAX_SETS: usize = 8;

/// Builds the table of a configuration.
///
/// Allocates the sets last. A small, long-lived allocation behind them would keep the allocator from returning their
/// memory.
#[must_use]
pub fn build_table(config: &ForwardingConfig) -> Table {
    let families = || Family::ALL.into_iter().filter(|family| config.has_forwards(*family));
    let mut prerouting = Vec::new();
    if config.sources().is_some() {
        prerouting.extend(families().map(drop_denied_sources));
    }
    prerouting.push(set_mark());
    prerouting.extend(families().map(translate_destination));
    let chains = vec![
        chain("prerouting", "nat", PREROUTING, PRIORITY_DNAT, prerouting),
        chain("input", "filter", INPUT, PRIORITY_FILTER, vec![drop_invalid(), drop_untranslated()]),
        Chain {
            // The pod is no router: it forwards only packets of flows that it translates.
            policy: DROP,
            ..chain("forward", "filter", FORWARD, PRIORITY_FILTER, forward_rules())
        },
        chain("postrouting", "nat", POSTROUTING, PRIORITY_SNAT, vec![masquerade_forwarded()]),
    ];
    let mut sets = Vec::with_capacity(MAX_SETS);
    sets.extend(families().map(|family| forward_map(config, family)));
    sets.push(mark_map(config));
    sets.extend([INCOMING, OUTGOING].map(|name| counter_set(config, name, MARK, mark_value)));
    if let Some(sources) = config.sources() {
        sets.push(counter_set(config, REFUSED, FRONTEND_KEY, frontend_key));
        sets.extend(families().map(|family| source_set(sources, family)));
    }
    Table { name: TABLE.into(), sets, chains }
}

/// Returns a frontend's counters in a table that [`build_table`] built; `None` if the kernel has no counters in sets.
#[must_use]
pub fn read_traffic(table: &Table, frontend: Frontend) -> Option<Traffic> {
    let count = |set: &str, key: &Value| table.set(set)?.count(key);
    let forward_map = family_spec(frontend.family).forward_map;
    Some(Traffic {
        connections: count(forward_map, &port_key(frontend.protocol, frontend.port))?.packets,
        refused: count(REFUSED, &frontend_key(frontend)).map(|count| count.packets),
        incoming: count(INCOMING, &mark_value(frontend))?,
        outgoing: count(OUTGOING, &mark_value(frontend))?,
    })
}

fn chain(name: &'static str, kind: &'static str, hook: u32, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain { name: name.into(), kind: kind.into(), hook, priority, policy: ACCEPT, rules }
}

fn forward_map(config: &ForwardingConfig, family: Family) -> Set {
    let FamilySpec { forward_map, address, .. } = family_spec(family);
    let value = DataType { id: address.id << TYPE_BITS | TYPE_PORT, len: address.len + 4 };
    let forwards = config.forwards(family);
    let elements = forwards
        .map(|(protocol, port, target)| element(port_key(protocol, port), Some(target_value(target))));
    Set {
        name: forward_map.into(),
        key: PORT_KEY,
        value: Some(value),
        has_intervals: false,
        has_counters: true,
        elements: elements.collect(),
    }
}

fn mark_map(config: &ForwardingConfig) -> Set {
    let element = |frontend| element(frontend_key(frontend), Some(mark_value(frontend)));
    Set {
        name: MARKS.into(),
        key: FRONTEND_KEY,
        value: Some(MARK),
        has_intervals: false,
        has_counters: false,
        elements: config.frontends().map(element).collect(),
    }
}

/// Returns a set with an element for each frontend, which counts the packets that match it.
fn counter_set(
    config: &ForwardingConfig,
    name: &'static str,
    key_type: DataType,
    key: impl Fn(Frontend) -> Value,
) -> Set {
    let mut elements: Vec<_> = config.frontends().map(|frontend| element(key(frontend), None)).collect();
    elements.sort_unstable();
    Set { name: name.into(), key: key_type, value: None, has_intervals: false, has_counters: true, elements }
}

fn element(key: Value, value: Option<Value>) -> Element {
    Element { key, is_upper_bound: false, value, count: Count::default() }
}

fn source_set(sources: &Sources, family: Family) -> Set {
    let FamilySpec { source_set, address, .. } = family_spec(family);
    let bound = |bits: u128, is_upper_bound| {
        let bytes = bits.to_be_bytes();
        let key = match family {
            Family::V4 => Value::from(*bytes.last_chunk::<4>().unwrap_or(&[0; 4])),
            Family::V6 => Value::from(bytes),
        };
        Element { key, is_upper_bound, value: None, count: Count::default() }
    };
    let highest = u128::MAX >> (128 - 8 * address.len);
    let bounds = |range: &AddressRange| {
        // An upper bound is exclusive, so a range up to the highest address has none.
        let upper = (range.last < highest).then(|| bound(range.last + 1, true));
        [Some(bound(range.first, false)), upper].into_iter().flatten()
    };
    Set {
        name: source_set.into(),
        key: address,
        value: None,
        has_intervals: true,
        has_counters: false,
        elements: sources.ranges(family).iter().flat_map(bounds).collect(),
    }
}

/// Drops packets from outside the source ranges. In a nat chain, only the first packet of a flow costs a lookup.
///
/// `meta nfproto FAMILY IP saddr != @SET meta nfproto . meta l4proto . th dport @REFUSED drop`
fn drop_denied_sources(family: Family) -> Rule {
    let FamilySpec { source_set, nfproto, address, source_offset, .. } = family_spec(family);
    vec![
        Expr::Meta { key: meta::NFPROTO, dreg: Reg(0) },
        Expr::Cmp { sreg: Reg(0), is_equal: true, data: vec![nfproto] },
        Expr::Payload { base: payload::NETWORK, offset: source_offset, len: address.len, dreg: Reg(4) },
        Expr::Lookup { set: source_set.into(), sreg: Reg(4), dreg: None, is_inverted: true },
        Expr::Meta { key: meta::L4PROTO, dreg: Reg(1) },
        Expr::Payload { base: payload::TRANSPORT, offset: 2, len: 2, dreg: Reg(2) },
        Expr::Lookup { set: REFUSED.into(), sreg: Reg(0), dreg: None, is_inverted: false },
        Expr::Verdict(DROP),
    ]
}

/// Translates the destination of new flows to the target of their frontend.
///
/// Matches only frontends in the map, so probes and the pod's own traffic stay untranslated.
///
/// `meta nfproto FAMILY dnat to meta l4proto . th dport map @MAP`
fn translate_destination(family: Family) -> Rule {
    let FamilySpec { forward_map, nfproto, address, .. } = family_spec(family);
    let port = if address.len == 4 { Reg(1) } else { Reg(4) };
    vec![
        Expr::Meta { key: meta::NFPROTO, dreg: Reg(0) },
        Expr::Cmp { sreg: Reg(0), is_equal: true, data: vec![nfproto] },
        Expr::Meta { key: meta::L4PROTO, dreg: Reg(0) },
        Expr::Payload { base: payload::TRANSPORT, offset: 2, len: 2, dreg: Reg(1) },
        Expr::Lookup { set: forward_map.into(), sreg: Reg(0), dreg: Some(Reg(0)), is_inverted: false },
        Expr::Dnat { family: nfproto.into(), address: Reg(0), port },
    ]
}

/// Sets the conntrack mark of new flows to the mark of their frontend.
///
/// Further packets are counted by this mark. That costs a third of a lookup by family, protocol and port.
///
/// `ct mark set meta nfproto . meta l4proto . th dport map @MARKS`
fn set_mark() -> Rule {
    let mut rule = load_mark();
    rule.push(Expr::SetCtMark { sreg: Reg(0) });
    rule
}

/// Loads the mark of the packet's frontend into register 0.
fn load_mark() -> Rule {
    vec![
        Expr::Meta { key: meta::NFPROTO, dreg: Reg(0) },
        Expr::Meta { key: meta::L4PROTO, dreg: Reg(1) },
        Expr::Payload { base: payload::TRANSPORT, offset: 2, len: 2, dreg: Reg(2) },
        Expr::Lookup { set: MARKS.into(), sreg: Reg(0), dreg: Some(Reg(0)), is_inverted: false },
    ]
}

/// Returns the rules that accept translated packets, those of counted flows first.
fn forward_rules() -> Vec<Rule> {
    vec![count_incoming(), count_outgoing(), accept_translated()]
}

/// Counts packets from clients.
///
/// `ct direction original ct mark @INCOMING accept`
fn count_incoming() -> Rule {
    vec![
        Expr::Ct { key: ct::DIRECTION, dreg: Reg(0) },
        Expr::Cmp { sreg: Reg(0), is_equal: true, data: vec![ct::ORIGINAL] },
        Expr::Ct { key: ct::MARK, dreg: Reg(0) },
        Expr::Lookup { set: INCOMING.into(), sreg: Reg(0), dreg: None, is_inverted: false },
        Expr::Verdict(ACCEPT),
    ]
}

/// Counts packets to clients: those that [`count_incoming`] has not accepted.
///
/// `ct mark @OUTGOING accept`
fn count_outgoing() -> Rule {
    vec![
        Expr::Ct { key: ct::MARK, dreg: Reg(0) },
        Expr::Lookup { set: OUTGOING.into(), sreg: Reg(0), dreg: None, is_inverted: false },
        Expr::Verdict(ACCEPT),
    ]
}

/// Accepts packets of translated flows that have no mark, such as those from before the table existed.
///
/// `ct status dnat accept`
fn accept_translated() -> Rule {
    if_any_bit(ct::STATUS, CT_DNAT, Expr::Verdict(ACCEPT))
}

/// Drops packets that belong to no flow. The pod itself would answer them with a reset, and break the connection that
/// it forwards.
///
/// `ct state invalid drop`
fn drop_invalid() -> Rule {
    if_any_bit(ct::STATE, CT_INVALID, Expr::Verdict(DROP))
}

/// Drops packets to a frontend that were not translated, because the table was replaced at that moment. The client
/// sends them again. The pod itself would answer that the port is closed.
///
/// `meta nfproto . meta l4proto . th dport map @MARKS != 0 drop`
fn drop_untranslated() -> Rule {
    let mut rule = load_mark();
    // A mark is never 0. But the nft program does not list a lookup whose value is not used.
    rule.push(Expr::Cmp { sreg: Reg(0), is_equal: false, data: vec![0; 4] });
    rule.push(Expr::Verdict(DROP));
    rule
}

/// Masquerades forwarded flows, so that replies return to the pod, which translates them back.
///
/// `ct status dnat masquerade`
fn masquerade_forwarded() -> Rule {
    if_any_bit(ct::STATUS, CT_DNAT, Expr::Masquerade)
}

/// Executes `then` if one of `bits` is set in a property of the conntrack entry.
fn if_any_bit(ct_key: u32, bits: u32, then: Expr) -> Rule {
    vec![
        Expr::Ct { key: ct_key, dreg: Reg(0) },
        Expr::Mask { reg: Reg(0), mask: bits.to_ne_bytes().to_vec() },
        Expr::Cmp { sreg: Reg(0), is_equal: false, data: vec![0; 4] },
        then,
    ]
}

fn port_key(protocol: Protocol, port: NonZeroU16) -> Value {
    let [high, low] = port.get().to_be_bytes();
    Value::from([protocol.number(), 0, 0, 0, high, low, 0, 0])
}

fn frontend_key(Frontend { family, protocol, port }: Frontend) -> Value {
    let [high, low] = port.get().to_be_bytes();
    let nfproto = family_spec(family).nfproto;
    Value::from([nfproto, 0, 0, 0, protocol.number(), 0, 0, 0, high, low, 0, 0])
}

/// Encodes a frontend as a conntrack mark. The mark does not depend on other frontends, so existing flows keep theirs.
fn mark_value(Frontend { family, protocol, port }: Frontend) -> Value {
    let [high, low] = port.get().to_be_bytes();
    let nfproto = family_spec(family).nfproto;
    Value::from(u32::from_be_bytes([nfproto, protocol.number(), high, low]).to_ne_bytes())
}

fn target_value(target: SocketAddr) -> Value {
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
