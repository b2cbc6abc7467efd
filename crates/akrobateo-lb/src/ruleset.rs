//! Builds the nftables table of a forwarding configuration. Pure.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use akrobateo_core::{Family, Frontend, Protocol};
use netfilter::nft::abi::{ct, meta, payload};
use netfilter::nft::model::{
    ACCEPT, Chain, Counter, DROP, DataType, Element, Expr, Reg, Rule, Set, Table, Value,
};

use crate::forwarding_config::ForwardingConfig;
use crate::source_ranges::{AddressRange, SourceRanges};

/// The table's name, in family inet.
pub const TABLE_NAME: &str = "akrobateo";

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

/// The numbers that the nft program uses for data types (enum `datatypes` in datatype.h of nftables). The number of a
/// concatenation consists of 6 bits for each part.
const TYPE_NFPROTO: u32 = 2;
const TYPE_IPV4: u32 = 7;
const TYPE_IPV6: u32 = 8;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_PORT: u32 = 13;
const TYPE_MARK: u32 = 19;
const BITS_PER_TYPE: u32 = 6;

/// The key type "protocol . port". Each part is padded to 4 bytes.
const PORT_KEY_TYPE: DataType = DataType { id: TYPE_PROTOCOL << BITS_PER_TYPE | TYPE_PORT, len: 8 };
/// The key type "family . protocol . port".
const FRONTEND_KEY_TYPE: DataType =
    DataType { id: TYPE_NFPROTO << (2 * BITS_PER_TYPE) | PORT_KEY_TYPE.id, len: PORT_KEY_TYPE.len + 4 };
/// The type of a conntrack mark. The mark of a flow identifies its frontend; see [`mark_value`].
const MARK_TYPE: DataType = DataType { id: TYPE_MARK, len: 4 };

/// The map from a frontend to its mark.
const MARK_MAP: &str = "mark";
/// The set that counts packets from clients for each mark.
const INCOMING_SET: &str = "incoming";
/// The set that counts packets to clients for each mark.
const OUTGOING_SET: &str = "outgoing";
/// The set that counts denied packets for each frontend. Denied packets come from outside the source ranges.
const REFUSED_SET: &str = "refused";

/// The counters of a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// The number of forwarded flows.
    pub connections: u64,
    /// The number of packets of new flows from outside the source ranges. `None` if there are no source ranges.
    pub refused_packets: Option<u64>,
    /// The traffic from clients to the backend.
    pub incoming: Counter,
    /// The traffic from the backend to clients.
    pub outgoing: Counter,
}

/// The values in the table that differ between the address families.
struct FamilySpec {
    forward_map: &'static str,
    source_set: &'static str,
    /// `NFPROTO_IPV4` or `NFPROTO_IPV6`.
    nfproto: u8,
    address_type: DataType,
    /// The offset of the source address in the IP header, in bytes.
    source_address_offset: u32,
}

const fn family_spec(family: Family) -> FamilySpec {
    match family {
        Family::V4 => FamilySpec {
            forward_map: "forward4",
            source_set: "source4",
            nfproto: 2,
            address_type: DataType { id: TYPE_IPV4, len: 4 },
            source_address_offset: 12,
        },
        Family::V6 => FamilySpec {
            forward_map: "forward6",
            source_set: "source6",
            nfproto: 10,
            address_type: DataType { id: TYPE_IPV6, len: 16 },
            source_address_offset: 8,
        },
    }
}

/// The maximum number of sets in a table.
const MAX_SET_COUNT: usize = 8;

/// Builds the table of a configuration.
///
/// Allocates the sets last. If a small, long-lived object followed the sets in memory, the allocator could not return
/// the memory of the sets to the system.
#[must_use]
pub fn build_table(config: &ForwardingConfig) -> Table {
    let families = || Family::ALL.into_iter().filter(|family| config.has_forwards(*family));
    let mut prerouting_rules = Vec::new();
    if config.sources().is_some() {
        prerouting_rules.extend(families().map(denied_sources_drop_rule));
    }
    prerouting_rules.push(mark_rule());
    prerouting_rules.extend(families().map(destination_nat_rule));
    let forward_rules =
        vec![incoming_counter_rule(), outgoing_counter_rule(), translated_packet_accept_rule()];
    let chains = vec![
        chain("prerouting", "nat", PREROUTING, PRIORITY_DNAT, prerouting_rules),
        chain(
            "input",
            "filter",
            INPUT,
            PRIORITY_FILTER,
            vec![invalid_packet_drop_rule(), untranslated_packet_drop_rule()],
        ),
        // The pod is no router: it forwards only packets of flows that it translates.
        Chain { policy: DROP, ..chain("forward", "filter", FORWARD, PRIORITY_FILTER, forward_rules) },
        chain("postrouting", "nat", POSTROUTING, PRIORITY_SNAT, vec![masquerade_rule()]),
    ];
    let mut sets = Vec::with_capacity(MAX_SET_COUNT);
    sets.extend(families().map(|family| forward_map(config, family)));
    sets.push(mark_map(config));
    sets.extend([INCOMING_SET, OUTGOING_SET].map(|name| counter_set(config, name, MARK_TYPE, mark_value)));
    if let Some(sources) = config.sources() {
        sets.push(counter_set(config, REFUSED_SET, FRONTEND_KEY_TYPE, frontend_key));
        sets.extend(families().map(|family| source_set(sources, family)));
    }
    Table { name: TABLE_NAME.into(), sets, chains }
}

/// Returns a frontend's counters in a table that [`build_table`] built; `None` if the kernel does not
/// support counters in sets.
#[must_use]
pub fn read_traffic(table: &Table, frontend: Frontend) -> Option<Traffic> {
    let counter = |set: &str, key: &Value| table.set(set)?.counter(key);
    let forward_map = family_spec(frontend.family).forward_map;
    Some(Traffic {
        connections: counter(forward_map, &port_key(frontend.protocol, frontend.port))?.packets,
        refused_packets: counter(REFUSED_SET, &frontend_key(frontend)).map(|counter| counter.packets),
        incoming: counter(INCOMING_SET, &mark_value(frontend))?,
        outgoing: counter(OUTGOING_SET, &mark_value(frontend))?,
    })
}

fn chain(name: &'static str, kind: &'static str, hook: u32, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain { name: name.into(), kind: kind.into(), hook, priority, policy: ACCEPT, rules }
}

fn forward_map(config: &ForwardingConfig, family: Family) -> Set {
    let FamilySpec { forward_map, address_type, .. } = family_spec(family);
    let value_type = DataType { id: address_type.id << BITS_PER_TYPE | TYPE_PORT, len: address_type.len + 4 };
    let forwards = config.forwards(family);
    let elements = forwards
        .map(|(protocol, port, target)| element(port_key(protocol, port), Some(target_value(target))));
    Set {
        name: forward_map.into(),
        key_type: PORT_KEY_TYPE,
        value_type: Some(value_type),
        has_intervals: false,
        has_counters: true,
        elements: elements.collect(),
    }
}

fn mark_map(config: &ForwardingConfig) -> Set {
    let mark_element = |frontend| element(frontend_key(frontend), Some(mark_value(frontend)));
    Set {
        name: MARK_MAP.into(),
        key_type: FRONTEND_KEY_TYPE,
        value_type: Some(MARK_TYPE),
        has_intervals: false,
        has_counters: false,
        elements: config.frontends().map(mark_element).collect(),
    }
}

/// Returns a set with one element for each frontend. Each element counts the packets that match it.
fn counter_set(
    config: &ForwardingConfig,
    name: &'static str,
    key_type: DataType,
    to_key: impl Fn(Frontend) -> Value,
) -> Set {
    let mut elements: Vec<_> = config.frontends().map(|frontend| element(to_key(frontend), None)).collect();
    elements.sort_unstable();
    Set { name: name.into(), key_type, value_type: None, has_intervals: false, has_counters: true, elements }
}

fn element(key: Value, value: Option<Value>) -> Element {
    Element { key, is_upper_bound: false, value, counter: Counter::default() }
}

fn source_set(sources: &SourceRanges, family: Family) -> Set {
    let FamilySpec { source_set, address_type, .. } = family_spec(family);
    let bound_element = |bits: u128, is_upper_bound| {
        let address_bytes = bits.to_be_bytes();
        let key = match family {
            Family::V4 => Value::from(*address_bytes.last_chunk::<4>().unwrap_or(&[0; 4])),
            Family::V6 => Value::from(address_bytes),
        };
        Element { key, is_upper_bound, value: None, counter: Counter::default() }
    };
    let highest_address = u128::MAX >> (128 - 8 * address_type.len);
    let range_elements = |range: &AddressRange| {
        // An upper bound is exclusive, so a range up to the highest address has no upper bound.
        let upper_bound = (range.last < highest_address).then(|| bound_element(range.last + 1, true));
        [Some(bound_element(range.first, false)), upper_bound].into_iter().flatten()
    };
    Set {
        name: source_set.into(),
        key_type: address_type,
        value_type: None,
        has_intervals: true,
        has_counters: false,
        elements: sources.ranges(family).iter().flat_map(range_elements).collect(),
    }
}

/// Returns the rule that drops packets from outside the source ranges. The rule is in a nat chain, so only the first
/// packet of a flow costs a lookup.
///
/// `meta nfproto FAMILY {ip|ip6} saddr != @SET meta nfproto . meta l4proto . th dport @REFUSED_SET drop`
fn denied_sources_drop_rule(family: Family) -> Rule {
    let FamilySpec { source_set, nfproto, address_type, source_address_offset, .. } = family_spec(family);
    vec![
        Expr::Meta { key: meta::KEY_NFPROTO, dreg: Reg(0) },
        Expr::Cmp { sreg: Reg(0), is_equal: true, data: vec![nfproto] },
        Expr::Payload {
            base: payload::BASE_NETWORK,
            offset: source_address_offset,
            len: address_type.len,
            dreg: Reg(4),
        },
        Expr::Lookup { set: source_set.into(), sreg: Reg(4), dreg: None, is_inverted: true },
        Expr::Meta { key: meta::KEY_L4PROTO, dreg: Reg(1) },
        Expr::Payload { base: payload::BASE_TRANSPORT, offset: 2, len: 2, dreg: Reg(2) },
        Expr::Lookup { set: REFUSED_SET.into(), sreg: Reg(0), dreg: None, is_inverted: false },
        Expr::Verdict(DROP),
    ]
}

/// Returns the rule that translates the destination of new flows to the target of their frontend.
///
/// The rule matches only frontends in the map, so probes and the pod's own traffic stay untranslated.
///
/// `meta nfproto FAMILY dnat to meta l4proto . th dport map @MAP`
fn destination_nat_rule(family: Family) -> Rule {
    let FamilySpec { forward_map, nfproto, address_type, .. } = family_spec(family);
    let port = if address_type.len == 4 { Reg(1) } else { Reg(4) };
    vec![
        Expr::Meta { key: meta::KEY_NFPROTO, dreg: Reg(0) },
        Expr::Cmp { sreg: Reg(0), is_equal: true, data: vec![nfproto] },
        Expr::Meta { key: meta::KEY_L4PROTO, dreg: Reg(0) },
        Expr::Payload { base: payload::BASE_TRANSPORT, offset: 2, len: 2, dreg: Reg(1) },
        Expr::Lookup { set: forward_map.into(), sreg: Reg(0), dreg: Some(Reg(0)), is_inverted: false },
        Expr::Dnat { family: nfproto.into(), address: Reg(0), port },
    ]
}

/// Returns the rule that sets the conntrack mark of new flows to the mark of their frontend.
///
/// Later packets of the flow are counted by this mark. A lookup by mark takes a third of the time of a lookup by
/// family, protocol and port.
///
/// `ct mark set meta nfproto . meta l4proto . th dport map @MARK_MAP`
fn mark_rule() -> Rule {
    let mut rule = mark_lookup_expressions();
    rule.push(Expr::SetCtMark { sreg: Reg(0) });
    rule
}

/// Returns the expressions that load the mark of the packet's frontend into register 0.
fn mark_lookup_expressions() -> Rule {
    vec![
        Expr::Meta { key: meta::KEY_NFPROTO, dreg: Reg(0) },
        Expr::Meta { key: meta::KEY_L4PROTO, dreg: Reg(1) },
        Expr::Payload { base: payload::BASE_TRANSPORT, offset: 2, len: 2, dreg: Reg(2) },
        Expr::Lookup { set: MARK_MAP.into(), sreg: Reg(0), dreg: Some(Reg(0)), is_inverted: false },
    ]
}

/// Returns the rule that counts packets from clients.
///
/// `ct direction original ct mark @INCOMING_SET accept`
fn incoming_counter_rule() -> Rule {
    vec![
        Expr::Ct { key: ct::KEY_DIRECTION, dreg: Reg(0) },
        Expr::Cmp { sreg: Reg(0), is_equal: true, data: vec![ct::DIRECTION_ORIGINAL] },
        Expr::Ct { key: ct::KEY_MARK, dreg: Reg(0) },
        Expr::Lookup { set: INCOMING_SET.into(), sreg: Reg(0), dreg: None, is_inverted: false },
        Expr::Verdict(ACCEPT),
    ]
}

/// Returns the rule that counts packets to clients: all packets that [`incoming_counter_rule`] has not accepted.
///
/// `ct mark @OUTGOING_SET accept`
fn outgoing_counter_rule() -> Rule {
    vec![
        Expr::Ct { key: ct::KEY_MARK, dreg: Reg(0) },
        Expr::Lookup { set: OUTGOING_SET.into(), sreg: Reg(0), dreg: None, is_inverted: false },
        Expr::Verdict(ACCEPT),
    ]
}

/// Returns the rule that accepts packets of translated flows without a mark, such as flows from before the table existed.
///
/// `ct status dnat accept`
fn translated_packet_accept_rule() -> Rule {
    rule_if_any_bit_is_set(ct::KEY_STATUS, CT_DNAT, Expr::Verdict(ACCEPT))
}

/// Returns the rule that drops packets that belong to no flow in conntrack. Without this rule, the pod would answer such a
/// packet with a reset, and the reset would break the forwarded connection.
///
/// `ct state invalid drop`
fn invalid_packet_drop_rule() -> Rule {
    rule_if_any_bit_is_set(ct::KEY_STATE, CT_INVALID, Expr::Verdict(DROP))
}

/// Returns the rule that drops packets to a frontend if their destination was not translated. The kernel translates no
/// packets while the table is replaced. The client sends the dropped packets again. Without this rule, the pod would
/// answer that the port is closed.
///
/// `meta nfproto . meta l4proto . th dport map @MARK_MAP != 0 drop`
fn untranslated_packet_drop_rule() -> Rule {
    let mut rule = mark_lookup_expressions();
    // A mark is never 0. The comparison is needed because the nft program does not list a lookup whose value is not
    // used.
    rule.push(Expr::Cmp { sreg: Reg(0), is_equal: false, data: vec![0; 4] });
    rule.push(Expr::Verdict(DROP));
    rule
}

/// Returns the rule that masquerades forwarded flows, so that replies return to the pod. The pod then translates the
/// replies back.
///
/// `ct status dnat masquerade`
fn masquerade_rule() -> Rule {
    rule_if_any_bit_is_set(ct::KEY_STATUS, CT_DNAT, Expr::Masquerade)
}

/// Returns a rule that executes `action` if one of `bits` is set in a property of the conntrack entry.
fn rule_if_any_bit_is_set(ct_key: u32, bits: u32, action: Expr) -> Rule {
    vec![
        Expr::Ct { key: ct_key, dreg: Reg(0) },
        Expr::Mask { reg: Reg(0), mask: bits.to_ne_bytes().to_vec() },
        Expr::Cmp { sreg: Reg(0), is_equal: false, data: vec![0; 4] },
        action,
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

/// Encodes a frontend as a conntrack mark. The mark does not depend on other frontends, so existing flows keep
/// their marks.
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
