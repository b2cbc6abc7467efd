//! Builds the nftables table of a forwarding configuration. Pure.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use akrobateo_core::{Family, Frontend, Protocol};
use netfilter::nft::abi::{ct, meta};
use netfilter::nft::model::{
    BaseChain, Chain, ChainType, Counter, DataType, Element, Expr, Hook, KeyMatching, NatFlags, NatKind,
    PayloadBase, Policy, Reg, Rule, Set, SetDefinition, Table, TableFamily, TableId, Value, Verdict,
};

use crate::forwarding_config::ForwardingConfig;
use crate::source_ranges::{AddressRange, SourceRanges};

/// The table's name, in family inet.
pub const TABLE_NAME: &str = "akrobateo";

/// The priorities of the chains (`linux/netfilter_ipv4.h`, enum `nf_ip_hook_priorities`).
const PRIORITY_DNAT: i32 = -100;
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_SNAT: i32 = 100;

/// The key type "protocol . port".
const PORT_KEY_TYPE: DataType = DataType::concat(&[DataType::PROTOCOL, DataType::PORT]);
/// The key type "family . protocol . port".
const FRONTEND_KEY_TYPE: DataType =
    DataType::concat(&[DataType::NFPROTO, DataType::PROTOCOL, DataType::PORT]);
/// The type of a conntrack mark. The mark of a flow identifies its frontend; see [`mark_value`].
const MARK_TYPE: DataType = DataType::MARK;

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

/// The parts of the table that differ between the address families.
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
            address_type: DataType::IPV4,
            source_address_offset: 12,
        },
        Family::V6 => FamilySpec {
            forward_map: "forward6",
            source_set: "source6",
            nfproto: 10,
            address_type: DataType::IPV6,
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
    let chains = vec![
        Chain::base("prerouting", ChainType::Nat, Hook::Prerouting, PRIORITY_DNAT, prerouting_rules),
        Chain::base(
            "input",
            ChainType::Filter,
            Hook::Input,
            PRIORITY_FILTER,
            vec![invalid_packet_drop_rule(), untranslated_packet_drop_rule()],
        ),
        forward_chain(),
        Chain::base("postrouting", ChainType::Nat, Hook::Postrouting, PRIORITY_SNAT, vec![masquerade_rule()]),
    ];
    let mut sets = Vec::with_capacity(MAX_SET_COUNT);
    sets.extend(families().map(|family| forward_map(config, family)));
    sets.push(mark_map(config));
    sets.extend([INCOMING_SET, OUTGOING_SET].map(|name| counter_set(config, name, MARK_TYPE, mark_value)));
    if let Some(sources) = config.sources() {
        sets.push(counter_set(config, REFUSED_SET, FRONTEND_KEY_TYPE, frontend_key));
        sets.extend(families().map(|family| source_set(sources, family)));
    }
    Table { id: table_id(), sets, chains }
}

/// Returns the family and name of the table.
#[must_use]
pub fn table_id() -> TableId {
    TableId::new(TableFamily::Inet, TABLE_NAME)
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

/// Returns the chain for forwarded packets. The pod is not a router: it forwards only packets of flows that it
/// translates.
fn forward_chain() -> Chain {
    let rules = vec![incoming_counter_rule(), outgoing_counter_rule(), translated_packet_accept_rule()];
    let base_chain = BaseChain {
        chain_type: ChainType::Filter,
        hook: Hook::Forward,
        priority: PRIORITY_FILTER,
        policy: Policy::Drop,
    };
    Chain { name: "forward".into(), base: Some(base_chain), rules }
}

/// Returns a set with a fixed size. The kernel's fastest type of set needs a fixed size.
fn fixed_size_set(name: &'static str, definition: SetDefinition, elements: Vec<Element>) -> Set {
    let size = u32::try_from(elements.len()).unwrap_or(u32::MAX);
    Set::new(name, definition.with_max_elements(size), elements)
}

fn forward_map(config: &ForwardingConfig, family: Family) -> Set {
    let FamilySpec { forward_map, address_type, .. } = family_spec(family);
    let value_type = DataType::concat(&[address_type, DataType::PORT]);
    let elements = config.forwards(family).map(|(protocol, port, target)| {
        Element::new(port_key(protocol, port)).with_value(target_value(target))
    });
    let definition = SetDefinition::map(PORT_KEY_TYPE, value_type).with_counters();
    fixed_size_set(forward_map, definition, elements.collect())
}

fn mark_map(config: &ForwardingConfig) -> Set {
    let mark_element = |frontend| Element::new(frontend_key(frontend)).with_value(mark_value(frontend));
    let elements = config.frontends().map(mark_element).collect();
    fixed_size_set(MARK_MAP, SetDefinition::map(FRONTEND_KEY_TYPE, MARK_TYPE), elements)
}

/// Returns a set with one element for each frontend. Each element counts the packets that match it.
fn counter_set(
    config: &ForwardingConfig,
    name: &'static str,
    key_type: DataType,
    build_key: impl Fn(Frontend) -> Value,
) -> Set {
    let elements = config.frontends().map(|frontend| Element::new(build_key(frontend))).collect();
    fixed_size_set(name, SetDefinition::set(key_type).with_counters(), elements)
}

fn source_set(sources: &SourceRanges, family: Family) -> Set {
    let FamilySpec { source_set, address_type, .. } = family_spec(family);
    let build_key = |bits: u128| {
        let address_bytes = bits.to_be_bytes();
        match family {
            Family::V4 => Value::from(*address_bytes.last_chunk::<4>().unwrap_or(&[0; 4])),
            Family::V6 => Value::from(address_bytes),
        }
    };
    let build_element =
        |range: &AddressRange| Element::interval(build_key(range.first), build_key(range.last));
    let definition = SetDefinition::set(address_type).with_matching(KeyMatching::Intervals);
    Set::new(source_set, definition, sources.ranges(family).iter().map(build_element).collect())
}

/// Returns the rule that drops packets from outside the source ranges. The rule is in a nat chain, so only the first
/// packet of a flow needs a lookup.
///
/// `meta nfproto FAMILY {ip|ip6} saddr != @SET meta nfproto . meta l4proto . th dport @REFUSED_SET drop`
fn denied_sources_drop_rule(family: Family) -> Rule {
    let FamilySpec { source_set, nfproto, address_type, source_address_offset, .. } = family_spec(family);
    Rule::new(vec![
        Expr::Meta { key: meta::KEY_NFPROTO, dreg: Reg(0) },
        Expr::equal(Reg(0), [nfproto]),
        Expr::payload(PayloadBase::Network, source_address_offset, address_type.length, Reg(4)),
        Expr::is_not_in(source_set, Reg(4)),
        Expr::Meta { key: meta::KEY_L4PROTO, dreg: Reg(1) },
        Expr::payload(PayloadBase::Transport, 2, 2, Reg(2)),
        Expr::is_in(REFUSED_SET, Reg(0)),
        Expr::Verdict(Verdict::Drop),
    ])
}

/// Returns the rule that translates the destination of new flows to the target of their frontend.
///
/// The rule matches only frontends in the map, so probes and the pod's own traffic stay untranslated.
///
/// `meta nfproto FAMILY dnat to meta l4proto . th dport map @MAP`
fn destination_nat_rule(family: Family) -> Rule {
    let FamilySpec { forward_map, nfproto, address_type, .. } = family_spec(family);
    let port = if address_type.length == 4 { Reg(1) } else { Reg(4) };
    Rule::new(vec![
        Expr::Meta { key: meta::KEY_NFPROTO, dreg: Reg(0) },
        Expr::equal(Reg(0), [nfproto]),
        Expr::Meta { key: meta::KEY_L4PROTO, dreg: Reg(0) },
        Expr::payload(PayloadBase::Transport, 2, 2, Reg(1)),
        Expr::map(forward_map, Reg(0), Reg(0)),
        Expr::Nat {
            kind: NatKind::Destination,
            family,
            address: Some(Reg(0)),
            port: Some(port),
            flags: NatFlags::default(),
        },
    ])
}

/// Returns the rule that sets the conntrack mark of new flows to the mark of their frontend.
///
/// Later packets of the flow are counted by this mark. A lookup by mark takes a third of the time of a lookup by
/// family, protocol and port.
///
/// `ct mark set meta nfproto . meta l4proto . th dport map @MARK_MAP`
fn mark_rule() -> Rule {
    let mut expressions = mark_lookup_expressions();
    expressions.push(Expr::SetCt { key: ct::KEY_MARK, direction: None, sreg: Reg(0) });
    Rule::new(expressions)
}

/// Returns the expressions that load the mark of the packet's frontend into register 0.
fn mark_lookup_expressions() -> Vec<Expr> {
    vec![
        Expr::Meta { key: meta::KEY_NFPROTO, dreg: Reg(0) },
        Expr::Meta { key: meta::KEY_L4PROTO, dreg: Reg(1) },
        Expr::payload(PayloadBase::Transport, 2, 2, Reg(2)),
        Expr::map(MARK_MAP, Reg(0), Reg(0)),
    ]
}

/// Returns the rule that counts packets from clients.
///
/// `ct direction original ct mark @INCOMING_SET accept`
fn incoming_counter_rule() -> Rule {
    Rule::new(vec![
        Expr::Ct { key: ct::KEY_DIRECTION, direction: None, dreg: Reg(0) },
        Expr::equal(Reg(0), [ct::DIRECTION_ORIGINAL]),
        Expr::Ct { key: ct::KEY_MARK, direction: None, dreg: Reg(0) },
        Expr::is_in(INCOMING_SET, Reg(0)),
        Expr::Verdict(Verdict::Accept),
    ])
}

/// Returns the rule that counts packets to clients: all packets that [`incoming_counter_rule`] has not accepted.
///
/// `ct mark @OUTGOING_SET accept`
fn outgoing_counter_rule() -> Rule {
    Rule::new(vec![
        Expr::Ct { key: ct::KEY_MARK, direction: None, dreg: Reg(0) },
        Expr::is_in(OUTGOING_SET, Reg(0)),
        Expr::Verdict(Verdict::Accept),
    ])
}

/// Returns the rule that accepts packets of translated flows without a mark. A flow that started before the table was
/// installed has no mark.
///
/// `ct status dnat accept`
fn translated_packet_accept_rule() -> Rule {
    rule_if_any_bit_is_set(ct::KEY_STATUS, ct::STATUS_DNAT, Expr::Verdict(Verdict::Accept))
}

/// Returns the rule that drops packets that belong to no flow in conntrack. Without this rule, the pod would answer
/// such a packet with a reset, and the reset would break the forwarded connection.
///
/// `ct state invalid drop`
fn invalid_packet_drop_rule() -> Rule {
    rule_if_any_bit_is_set(ct::KEY_STATE, ct::STATE_INVALID, Expr::Verdict(Verdict::Drop))
}

/// Returns the rule that drops packets to a frontend if their destination was not translated. While the table is
/// replaced, the kernel does not translate packets. The client sends the dropped packets again. Without this rule, the
/// pod would answer that the port is closed.
///
/// `meta nfproto . meta l4proto . th dport map @MARK_MAP != 0 drop`
fn untranslated_packet_drop_rule() -> Rule {
    let mut expressions = mark_lookup_expressions();
    // A mark is never 0. The comparison is needed because the nft program does not list a lookup whose value is not
    // used.
    expressions.push(Expr::not_equal(Reg(0), [0; 4]));
    expressions.push(Expr::Verdict(Verdict::Drop));
    Rule::new(expressions)
}

/// Returns the rule that masquerades forwarded flows, so that replies return to the pod. The pod then translates the
/// replies back.
///
/// `ct status dnat masquerade`
fn masquerade_rule() -> Rule {
    rule_if_any_bit_is_set(ct::KEY_STATUS, ct::STATUS_DNAT, Expr::Masquerade(NatFlags::default()))
}

/// Returns a rule that executes `action` if one of `bits` is set in a property of the conntrack entry.
fn rule_if_any_bit_is_set(ct_key: u32, bits: u32, action: Expr) -> Rule {
    Rule::new(vec![
        Expr::Ct { key: ct_key, direction: None, dreg: Reg(0) },
        Expr::and(Reg(0), bits),
        Expr::not_equal(Reg(0), [0; 4]),
        action,
    ])
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
            let mut bytes = [0; 20];
            bytes[..16].copy_from_slice(&ip.octets());
            bytes[16..18].copy_from_slice(&[high, low]);
            Value::from(bytes)
        }
    }
}
