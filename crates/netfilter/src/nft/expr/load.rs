//! Encodes and decodes the expressions that move data between packets and registers. Pure.

use std::num::NonZeroU32;

use super::super::abi;
use super::super::model::{Direction, Expr, PayloadBase, PayloadField};
use super::data::{decode_value, encode_value};
use super::register;
use crate::netlink::{Attr, Attrs};

/// Appends the operands of an expression that loads or stores data. Appends nothing for all other expressions.
pub(super) fn encode(attrs: &mut Attrs<'_>, expr: &Expr) {
    match expr {
        Expr::Meta { key, dreg } => {
            attrs.push_be32(abi::meta::NFTA_META_KEY, *key);
            register::push(attrs, abi::meta::NFTA_META_DREG, *dreg);
        }
        Expr::SetMeta { key, sreg } => {
            attrs.push_be32(abi::meta::NFTA_META_KEY, *key);
            register::push(attrs, abi::meta::NFTA_META_SREG, *sreg);
        }
        Expr::Ct { key, direction, dreg } => {
            encode_ct_key(attrs, *key, *direction);
            register::push(attrs, abi::ct::NFTA_CT_DREG, *dreg);
        }
        Expr::SetCt { key, direction, sreg } => {
            encode_ct_key(attrs, *key, *direction);
            register::push(attrs, abi::ct::NFTA_CT_SREG, *sreg);
        }
        Expr::Payload(field, dreg) => {
            register::push(attrs, abi::payload::NFTA_PAYLOAD_DREG, *dreg);
            encode_field(attrs, *field);
        }
        Expr::SetPayload(field, sreg) => {
            register::push(attrs, abi::payload::NFTA_PAYLOAD_SREG, *sreg);
            encode_field(attrs, *field);
            attrs.push_be32(abi::payload::NFTA_PAYLOAD_CSUM_TYPE, abi::payload::CHECKSUM_NONE);
            attrs.push_be32(abi::payload::NFTA_PAYLOAD_CSUM_OFFSET, 0);
        }
        Expr::SetTcpOption { kind, offset, length, sreg } => {
            register::push(attrs, abi::exthdr::NFTA_EXTHDR_SREG, *sreg);
            attrs.push_u8(abi::exthdr::NFTA_EXTHDR_TYPE, *kind);
            attrs.push_be32(abi::exthdr::NFTA_EXTHDR_OFFSET, *offset);
            attrs.push_be32(abi::exthdr::NFTA_EXTHDR_LEN, *length);
            attrs.push_be32(abi::exthdr::NFTA_EXTHDR_OP, abi::exthdr::OP_TCP_OPTION);
        }
        Expr::Route { key, dreg } => {
            attrs.push_be32(abi::rt::NFTA_RT_KEY, *key);
            register::push(attrs, abi::rt::NFTA_RT_DREG, *dreg);
        }
        Expr::Fib { result, flags, dreg } => {
            register::push(attrs, abi::fib::NFTA_FIB_DREG, *dreg);
            attrs.push_be32(abi::fib::NFTA_FIB_RESULT, *result);
            attrs.push_be32(abi::fib::NFTA_FIB_FLAGS, *flags);
        }
        Expr::RandomNumber { modulus, dreg } => {
            register::push(attrs, abi::numgen::NFTA_NG_DREG, *dreg);
            attrs.push_be32(abi::numgen::NFTA_NG_MODULUS, modulus.get());
            attrs.push_be32(abi::numgen::NFTA_NG_TYPE, abi::numgen::TYPE_RANDOM);
        }
        Expr::Immediate { dreg, value } => {
            register::push(attrs, abi::immediate::NFTA_IMMEDIATE_DREG, *dreg);
            encode_value(attrs, abi::immediate::NFTA_IMMEDIATE_DATA, value);
        }
        _ => {}
    }
}

fn encode_ct_key(attrs: &mut Attrs<'_>, key: u32, direction: Option<Direction>) {
    attrs.push_be32(abi::ct::NFTA_CT_KEY, key);
    let number = match direction {
        None => return,
        Some(Direction::Original) => abi::ct::DIRECTION_ORIGINAL,
        Some(Direction::Reply) => abi::ct::DIRECTION_REPLY,
    };
    attrs.push_u8(abi::ct::NFTA_CT_DIRECTION, number);
}

fn encode_field(attrs: &mut Attrs<'_>, field: PayloadField) {
    let base = match field.base {
        PayloadBase::Link => abi::payload::BASE_LINK,
        PayloadBase::Network => abi::payload::BASE_NETWORK,
        PayloadBase::Transport => abi::payload::BASE_TRANSPORT,
    };
    attrs.push_be32(abi::payload::NFTA_PAYLOAD_BASE, base);
    attrs.push_be32(abi::payload::NFTA_PAYLOAD_OFFSET, field.offset);
    attrs.push_be32(abi::payload::NFTA_PAYLOAD_LEN, field.length);
}

pub(super) fn decode_meta(attrs: &[u8]) -> Option<Expr> {
    let key = Attr::find_be32(attrs, abi::meta::NFTA_META_KEY)?;
    Some(match register::find_optional(attrs, abi::meta::NFTA_META_DREG).ok()? {
        Some(dreg) => Expr::Meta { key, dreg },
        None => Expr::SetMeta { key, sreg: register::find(attrs, abi::meta::NFTA_META_SREG)? },
    })
}

pub(super) fn decode_ct(attrs: &[u8]) -> Option<Expr> {
    let key = Attr::find_be32(attrs, abi::ct::NFTA_CT_KEY)?;
    let direction = match Attr::find_u8(attrs, abi::ct::NFTA_CT_DIRECTION) {
        None => None,
        Some(abi::ct::DIRECTION_ORIGINAL) => Some(Direction::Original),
        Some(abi::ct::DIRECTION_REPLY) => Some(Direction::Reply),
        Some(_) => return None,
    };
    Some(match register::find_optional(attrs, abi::ct::NFTA_CT_DREG).ok()? {
        Some(dreg) => Expr::Ct { key, direction, dreg },
        None => Expr::SetCt { key, direction, sreg: register::find(attrs, abi::ct::NFTA_CT_SREG)? },
    })
}

pub(super) fn decode_payload(attrs: &[u8]) -> Option<Expr> {
    let number = |kind| Attr::find_be32(attrs, kind);
    let base = match number(abi::payload::NFTA_PAYLOAD_BASE)? {
        abi::payload::BASE_LINK => PayloadBase::Link,
        abi::payload::BASE_NETWORK => PayloadBase::Network,
        abi::payload::BASE_TRANSPORT => PayloadBase::Transport,
        _ => return None,
    };
    let field = PayloadField {
        base,
        offset: number(abi::payload::NFTA_PAYLOAD_OFFSET)?,
        length: number(abi::payload::NFTA_PAYLOAD_LEN)?,
    };
    if let Some(dreg) = register::find_optional(attrs, abi::payload::NFTA_PAYLOAD_DREG).ok()? {
        return Some(Expr::Payload(field, dreg));
    }
    let has_checksum = number(abi::payload::NFTA_PAYLOAD_CSUM_TYPE).unwrap_or(0)
        != abi::payload::CHECKSUM_NONE
        || number(abi::payload::NFTA_PAYLOAD_CSUM_FLAGS).unwrap_or(0) != 0;
    let sreg = register::find(attrs, abi::payload::NFTA_PAYLOAD_SREG)?;
    (!has_checksum).then_some(Expr::SetPayload(field, sreg))
}

pub(super) fn decode_tcp_option(attrs: &[u8]) -> Option<Expr> {
    let number = |kind| Attr::find_be32(attrs, kind);
    let is_tcp_option = number(abi::exthdr::NFTA_EXTHDR_OP)? == abi::exthdr::OP_TCP_OPTION
        && number(abi::exthdr::NFTA_EXTHDR_FLAGS).unwrap_or(0) == 0
        && Attr::find(attrs, abi::exthdr::NFTA_EXTHDR_DREG).is_none();
    let expr = Expr::SetTcpOption {
        kind: Attr::find_u8(attrs, abi::exthdr::NFTA_EXTHDR_TYPE)?,
        offset: number(abi::exthdr::NFTA_EXTHDR_OFFSET)?,
        length: number(abi::exthdr::NFTA_EXTHDR_LEN)?,
        sreg: register::find(attrs, abi::exthdr::NFTA_EXTHDR_SREG)?,
    };
    is_tcp_option.then_some(expr)
}

pub(super) fn decode_route(attrs: &[u8]) -> Option<Expr> {
    let dreg = register::find(attrs, abi::rt::NFTA_RT_DREG)?;
    Some(Expr::Route { key: Attr::find_be32(attrs, abi::rt::NFTA_RT_KEY)?, dreg })
}

pub(super) fn decode_fib(attrs: &[u8]) -> Option<Expr> {
    Some(Expr::Fib {
        result: Attr::find_be32(attrs, abi::fib::NFTA_FIB_RESULT)?,
        flags: Attr::find_be32(attrs, abi::fib::NFTA_FIB_FLAGS)?,
        dreg: register::find(attrs, abi::fib::NFTA_FIB_DREG)?,
    })
}

pub(super) fn decode_random_number(attrs: &[u8]) -> Option<Expr> {
    let number = |kind| Attr::find_be32(attrs, kind);
    let is_random = number(abi::numgen::NFTA_NG_TYPE)? == abi::numgen::TYPE_RANDOM
        && number(abi::numgen::NFTA_NG_OFFSET).unwrap_or(0) == 0;
    let modulus = NonZeroU32::new(number(abi::numgen::NFTA_NG_MODULUS)?)?;
    let dreg = register::find(attrs, abi::numgen::NFTA_NG_DREG)?;
    is_random.then_some(Expr::RandomNumber { modulus, dreg })
}

pub(super) fn decode_immediate(attrs: &[u8]) -> Option<Expr> {
    let dreg = register::find(attrs, abi::immediate::NFTA_IMMEDIATE_DREG)?;
    Some(Expr::Immediate { dreg, value: decode_value(attrs, abi::immediate::NFTA_IMMEDIATE_DATA)? })
}
