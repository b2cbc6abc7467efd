//! Encodes and decodes the expressions that decide about a packet or its flow. Pure.

use akrobateo_core::Family;

use super::super::abi::{self, UnsupportedProperty};
use super::super::model::{Expr, NatFlags, NatKind, Reject};
use super::{data, register};
use crate::netlink::{Attr, Attrs};

/// Appends the operands of an expression that decides about a packet. Appends nothing for all other expressions.
pub(super) fn encode(attrs: &mut Attrs<'_>, expr: &Expr) {
    match expr {
        Expr::Nat { kind, family, address, port, flags } => {
            let kind_number = match kind {
                NatKind::Source => abi::nat::TYPE_SNAT,
                NatKind::Destination => abi::nat::TYPE_DNAT,
            };
            attrs.push_be32(abi::nat::NFTA_NAT_TYPE, kind_number);
            attrs.push_be32(abi::nat::NFTA_NAT_FAMILY, family_number(*family));
            register::push_optional(attrs, abi::nat::NFTA_NAT_REG_ADDR_MIN, *address);
            register::push_optional(attrs, abi::nat::NFTA_NAT_REG_PROTO_MIN, *port);
            encode_nat_flags(attrs, abi::nat::NFTA_NAT_FLAGS, *flags);
        }
        Expr::Masquerade(flags) => encode_nat_flags(attrs, abi::masq::NFTA_MASQ_FLAGS, *flags),
        Expr::Reject(reject) => {
            let (kind, code) = match reject {
                Reject::TcpReset => (abi::reject::TYPE_TCP_RESET, None),
                Reject::Icmp(code) => (abi::reject::TYPE_ICMP, Some(*code)),
                Reject::Icmpx(code) => (abi::reject::TYPE_ICMPX, Some(*code)),
            };
            attrs.push_be32(abi::reject::NFTA_REJECT_TYPE, kind);
            if let Some(code) = code {
                attrs.push_u8(abi::reject::NFTA_REJECT_ICMP_CODE, code);
            }
        }
        Expr::Counter(counter) => data::encode_counts(attrs, *counter),
        Expr::Verdict(verdict) => {
            attrs.push_be32(abi::immediate::NFTA_IMMEDIATE_DREG, abi::reg::VERDICT);
            data::encode_verdict(attrs, abi::immediate::NFTA_IMMEDIATE_DATA, verdict);
        }
        _ => {}
    }
}

/// Returns `NFPROTO_IPV4` or `NFPROTO_IPV6` (`linux/netfilter.h`).
const fn family_number(family: Family) -> u32 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

fn encode_nat_flags(attrs: &mut Attrs<'_>, kind: u16, flags: NatFlags) {
    let fully_random = if flags.is_fully_random { abi::nat::FLAG_FULLY_RANDOM } else { 0 };
    let persistent = if flags.is_persistent { abi::nat::FLAG_PERSISTENT } else { 0 };
    if flags != NatFlags::default() {
        attrs.push_be32(kind, fully_random | persistent);
    }
}

/// Decodes flags. Ignores the flags that the kernel sets itself.
fn decode_nat_flags(attrs: &[u8], kind: u16) -> Option<NatFlags> {
    let flags = Attr::find_be32(attrs, kind).unwrap_or(0);
    let implied_flags = abi::nat::FLAG_MAP_IPS | abi::nat::FLAG_PROTO_SPECIFIED;
    let known_flags = implied_flags | abi::nat::FLAG_FULLY_RANDOM | abi::nat::FLAG_PERSISTENT;
    (flags & !known_flags == 0).then_some(NatFlags {
        is_fully_random: flags & abi::nat::FLAG_FULLY_RANDOM != 0,
        is_persistent: flags & abi::nat::FLAG_PERSISTENT != 0,
    })
}

pub(super) fn decode_nat(attrs: &[u8]) -> Option<Expr> {
    let kind = match Attr::find_be32(attrs, abi::nat::NFTA_NAT_TYPE)? {
        abi::nat::TYPE_SNAT => NatKind::Source,
        abi::nat::TYPE_DNAT => NatKind::Destination,
        _ => return None,
    };
    let number = Attr::find_be32(attrs, abi::nat::NFTA_NAT_FAMILY)?;
    let family = Family::ALL.into_iter().find(|family| family_number(*family) == number)?;
    // If there is no range, the kernel lists the same register twice.
    let reg = |first_kind, last_kind| {
        let first = register::find_optional(attrs, first_kind)?;
        let last = register::find_optional(attrs, last_kind)?;
        if last.is_none() || last == first { Ok(first) } else { Err(UnsupportedProperty) }
    };
    Some(Expr::Nat {
        kind,
        family,
        address: reg(abi::nat::NFTA_NAT_REG_ADDR_MIN, abi::nat::NFTA_NAT_REG_ADDR_MAX).ok()?,
        port: reg(abi::nat::NFTA_NAT_REG_PROTO_MIN, abi::nat::NFTA_NAT_REG_PROTO_MAX).ok()?,
        flags: decode_nat_flags(attrs, abi::nat::NFTA_NAT_FLAGS)?,
    })
}

pub(super) fn decode_masquerade(attrs: &[u8]) -> Option<Expr> {
    let has_port = Attr::find(attrs, abi::masq::NFTA_MASQ_REG_PROTO_MIN).is_some();
    decode_nat_flags(attrs, abi::masq::NFTA_MASQ_FLAGS).filter(|_| !has_port).map(Expr::Masquerade)
}

pub(super) fn decode_reject(attrs: &[u8]) -> Option<Expr> {
    let code = || Attr::find_u8(attrs, abi::reject::NFTA_REJECT_ICMP_CODE);
    Some(Expr::Reject(match Attr::find_be32(attrs, abi::reject::NFTA_REJECT_TYPE)? {
        abi::reject::TYPE_TCP_RESET => Reject::TcpReset,
        abi::reject::TYPE_ICMP => Reject::Icmp(code()?),
        abi::reject::TYPE_ICMPX => Reject::Icmpx(code()?),
        _ => return None,
    }))
}

pub(super) fn decode_verdict(attrs: &[u8]) -> Option<Expr> {
    let is_verdict = Attr::find_be32(attrs, abi::immediate::NFTA_IMMEDIATE_DREG)? == abi::reg::VERDICT;
    data::decode_verdict(attrs, abi::immediate::NFTA_IMMEDIATE_DATA).filter(|_| is_verdict).map(Expr::Verdict)
}
