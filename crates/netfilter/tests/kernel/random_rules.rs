//! Builds random rules with all expressions that the kernel allows in a chain.

use std::num::NonZeroU32;

use akrobateo_core::Family;
use netfilter::nft::abi;
use netfilter::nft::model::{
    ChainType, CmpOp, Counter, Direction, ElementChange, Expr, Hook, LookupResult, Name, NatFlags, NatKind,
    PayloadBase, PayloadField, Reg, Reject, Rule, Set, TableFamily, Value, ValueType,
};

use crate::random_sets::build_verdict;

/// The place of a rule.
#[derive(Clone, Copy)]
pub(crate) struct RulePlace<'a> {
    pub(crate) family: TableFamily,
    /// The type and hook of the base chain; `None` for a regular chain.
    pub(crate) base: Option<(ChainType, &'a Hook)>,
    /// The sets that the rule may use.
    pub(crate) sets: &'a [Set],
    /// The chains to which the rule may jump.
    pub(crate) target_chains: &'a [Name],
}

/// Builds a rule from random numbers.
pub(crate) fn build_rule(place: RulePlace<'_>, numbers: [u8; 4]) -> Rule {
    let [kind, a, b, _] = numbers;
    let mut expressions = match kind % 8 {
        0 => load_and_compare(place, a, b),
        1 => change_packet(place, a, b),
        2 | 3 => use_set(place, a, b),
        4 if place.family != TableFamily::Netdev => use_conntrack(a, b),
        5 if place.family != TableFamily::Netdev => hook_specific_expressions(place, a, b),
        6 => convert_data(a, b),
        _ => Vec::new(),
    };
    let is_final = |expr: &Expr| matches!(expr, Expr::Nat { .. } | Expr::Masquerade(_) | Expr::Reject(_));
    if a % 3 == 0 {
        expressions.insert(0, Expr::Counter(Counter { packets: b.into(), bytes: u64::from(a) << 40 }));
    }
    if !expressions.iter().any(is_final) && b % 2 == 0 {
        expressions.push(Expr::Verdict(build_verdict(a, place.target_chains)));
    }
    let rule = Rule::new(expressions);
    if b % 5 == 0 { rule.with_comment(format!("comment {a} ü")) } else { rule }
}

fn load_and_compare(place: RulePlace<'_>, a: u8, b: u8) -> Vec<Expr> {
    let reg = Reg(b % 12);
    let base = [PayloadBase::Link, PayloadBase::Network, PayloadBase::Transport][usize::from(a) % 3];
    let ops = [
        CmpOp::Equal,
        CmpOp::NotEqual,
        CmpOp::Less,
        CmpOp::LessOrEqual,
        CmpOp::Greater,
        CmpOp::GreaterOrEqual,
    ];
    let op = ops[usize::from(b) % ops.len()];
    match a % 6 {
        0 => vec![
            Expr::Meta { key: abi::meta::KEY_NFPROTO, dreg: reg },
            Expr::Cmp { sreg: reg, op, value: Value::from([b]) },
        ],
        1 if place.family != TableFamily::Netdev => vec![
            Expr::Meta { key: abi::meta::KEY_INPUT_INTERFACE_NAME, dreg: reg },
            Expr::equal(reg, Value::from_interface_name("eth0").unwrap()),
        ],
        2 => vec![
            Expr::payload(base, 4, 16, reg),
            Expr::Range {
                sreg: reg,
                is_inverted: b > 128,
                first: Value::from([1; 16]),
                last: Value::from([a.max(1); 16]),
            },
        ],
        3 => vec![
            Expr::payload(base, u32::from(a), 4, reg),
            Expr::Cmp { sreg: reg, op, value: Value::from([a, b, 0, 1]) },
        ],
        4 => vec![
            Expr::payload(base, 2, 2, reg),
            Expr::Range {
                sreg: reg,
                is_inverted: false,
                first: Value::from([0, b]),
                last: Value::from([1, b]),
            },
        ],
        _ => vec![
            Expr::Meta { key: abi::meta::KEY_MARK, dreg: reg },
            Expr::and(reg, u32::from(a) << 16),
            Expr::not_equal(reg, [0; 4]),
        ],
    }
}

fn change_packet(place: RulePlace<'_>, a: u8, b: u8) -> Vec<Expr> {
    let reg = Reg(b % 12);
    match a % 4 {
        0 => vec![
            Expr::Immediate { dreg: reg, value: Value::from([a, b, 0, 1]) },
            Expr::SetMeta { key: abi::meta::KEY_MARK, sreg: reg },
        ],
        1 => vec![
            Expr::Meta { key: abi::meta::KEY_MARK, dreg: reg },
            Expr::or(reg, 0x4000),
            Expr::SetMeta { key: abi::meta::KEY_MARK, sreg: reg },
        ],
        2 => vec![
            Expr::Immediate { dreg: reg, value: Value::from([2, 0, 0, 0, a, b]) },
            Expr::SetPayload(PayloadField { base: PayloadBase::Link, offset: 0, length: 6 }, reg),
        ],
        _ if place.family == TableFamily::Netdev => Vec::new(),
        _ => vec![Expr::NoTrack],
    }
}

fn convert_data(a: u8, b: u8) -> Vec<Expr> {
    let reg = Reg(b % 12);
    let modulus = NonZeroU32::new(u32::from(a) + 1).unwrap();
    match a % 3 {
        0 => vec![
            Expr::RandomNumber { modulus, dreg: reg },
            Expr::Bitwise {
                sreg: reg,
                dreg: Reg(b % 11 + 1),
                mask: Value::from([a; 4]),
                xor: Value::from([b; 4]),
            },
        ],
        1 => vec![
            Expr::RandomNumber { modulus, dreg: reg },
            Expr::ToNetworkOrder { sreg: reg, dreg: reg, length: 4, size: if b > 100 { 2 } else { 4 } },
        ],
        _ => vec![
            Expr::payload(PayloadBase::Network, 0, 16, Reg(4)),
            Expr::Bitwise {
                sreg: Reg(4),
                dreg: Reg(8),
                mask: Value::from([a; 16]),
                xor: Value::from([0; 16]),
            },
        ],
    }
}

fn use_set(place: RulePlace<'_>, a: u8, b: u8) -> Vec<Expr> {
    let Some(set) = place.sets.get(usize::from(a) % place.sets.len().max(1)) else { return Vec::new() };
    let name = || set.name.clone();
    // The kernel rejects registers without data, so all registers of the key are loaded.
    let key_registers = u8::try_from(set.definition.key_type.length.div_ceil(4)).unwrap();
    let mut expressions: Vec<_> = (0..key_registers)
        .map(|reg| Expr::RandomNumber { modulus: NonZeroU32::MIN, dreg: Reg(reg) })
        .collect();
    let value = Reg(8);
    if set.definition.dynamic.is_some() {
        let has_value = set.definition.value_type.is_some();
        let changes = [ElementChange::Add, ElementChange::Update, ElementChange::Delete];
        let change = changes[usize::from(b) % 3];
        if has_value {
            expressions.push(Expr::payload(PayloadBase::Network, 8, 16, value));
            expressions.push(Expr::payload(PayloadBase::Transport, 2, 2, Reg(12)));
        }
        expressions.push(Expr::ChangeElement {
            set: name(),
            change,
            key: Reg(0),
            value: has_value.then_some(value),
            timeout_seconds: NonZeroU32::new(u32::from(b / 2)),
        });
        return expressions;
    }
    let result = match (set.definition.value_type, b % 3) {
        // Only base chains and the first regular chains may jump, so that no loops exist.
        (Some(ValueType::Verdict), _) if place.target_chains.is_empty() => return Vec::new(),
        (Some(ValueType::Verdict), _) => LookupResult::Verdict,
        (None, 2) => LookupResult::NotContained,
        (None, _) => LookupResult::Contained,
        (Some(ValueType::Data(_)), _) => LookupResult::Value(value),
    };
    expressions.push(Expr::Lookup { set: name(), sreg: Reg(0), result });
    expressions
}

fn use_conntrack(a: u8, b: u8) -> Vec<Expr> {
    let reg = Reg(b % 12);
    let direction = [None, Some(Direction::Original), Some(Direction::Reply)][usize::from(b) % 3];
    match a % 5 {
        0 => vec![
            Expr::Ct { key: abi::ct::KEY_ZONE, direction, dreg: reg },
            Expr::equal(reg, u16::from(b).to_ne_bytes()),
        ],
        1 => vec![
            Expr::Ct { key: abi::ct::KEY_MARK, direction: None, dreg: reg },
            Expr::or(reg, 0x2000_0000),
            Expr::SetCt { key: abi::ct::KEY_MARK, direction: None, sreg: reg },
        ],
        2 => vec![
            Expr::Ct { key: abi::ct::KEY_DIRECTION, direction: None, dreg: reg },
            Expr::equal(reg, [abi::ct::DIRECTION_REPLY]),
        ],
        3 => vec![
            Expr::Immediate { dreg: reg, value: Value::from(u16::from(a).to_ne_bytes()) },
            Expr::SetCt { key: abi::ct::KEY_ZONE, direction, sreg: reg },
        ],
        _ => vec![
            Expr::Ct { key: abi::ct::KEY_STATUS, direction: None, dreg: reg },
            Expr::and(reg, abi::ct::STATUS_DNAT),
            Expr::not_equal(reg, [0; 4]),
        ],
    }
}

/// Builds expressions that the kernel allows only in some hooks.
fn hook_specific_expressions(place: RulePlace<'_>, a: u8, b: u8) -> Vec<Expr> {
    let Some((chain_type, hook)) = place.base else { return Vec::new() };
    let flags = NatFlags { is_fully_random: b & 1 != 0, is_persistent: b & 2 != 0 };
    let family = match place.family {
        TableFamily::Ip6 => Family::V6,
        TableFamily::Ip => Family::V4,
        _ => Family::ALL[usize::from(a) % 2],
    };
    match (chain_type, hook) {
        (ChainType::Nat, Hook::Prerouting | Hook::Output) => {
            vec![
                Expr::payload(PayloadBase::Network, 8, 16, Reg(0)),
                Expr::payload(PayloadBase::Transport, 0, 2, Reg(4)),
                Expr::Nat {
                    kind: NatKind::Destination,
                    family,
                    address: (b & 0xc != 4).then_some(Reg(0)),
                    port: (b & 0xc != 0).then_some(Reg(4)),
                    flags,
                },
            ]
        }
        (ChainType::Nat, Hook::Postrouting) if a.is_multiple_of(3) => vec![Expr::Masquerade(flags)],
        (ChainType::Nat, Hook::Postrouting) => vec![
            Expr::payload(PayloadBase::Network, 12, 16, Reg(0)),
            Expr::Nat { kind: NatKind::Source, family, address: Some(Reg(0)), port: None, flags },
        ],
        (ChainType::Filter, Hook::Forward) if a.is_multiple_of(3) => vec![
            Expr::Route { key: abi::rt::KEY_TCP_MSS, dreg: Reg(b % 12) },
            Expr::ToNetworkOrder { sreg: Reg(b % 12), dreg: Reg(b % 12), length: 2, size: 2 },
            Expr::SetTcpOption {
                kind: abi::exthdr::TCP_OPTION_MAXSEG,
                offset: 2,
                length: 2,
                sreg: Reg(b % 12),
            },
        ],
        (ChainType::Filter, Hook::Input | Hook::Forward | Hook::Output) => {
            vec![Expr::Reject(build_reject(place.family, a, b))]
        }
        (_, Hook::Prerouting | Hook::Output) => vec![
            Expr::Fib {
                result: abi::fib::RESULT_ADDRESS_TYPE,
                flags: abi::fib::NFTA_FIB_F_DADDR,
                dreg: Reg(b % 12),
            },
            Expr::equal(Reg(b % 12), abi::fib::TYPE_LOCAL.to_ne_bytes()),
        ],
        _ => Vec::new(),
    }
}

fn build_reject(family: TableFamily, a: u8, b: u8) -> Reject {
    match (b % 3, family) {
        (0, _) => Reject::TcpReset,
        (1, TableFamily::Inet) => Reject::Icmpx(a % 4),
        (_, TableFamily::Ip6) => Reject::Icmp(abi::reject::ICMPV6_PORT_UNREACHABLE),
        _ => Reject::Icmp(abi::reject::ICMP_PORT_UNREACHABLE),
    }
}
