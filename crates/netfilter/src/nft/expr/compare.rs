//! Encodes and decodes the expressions that compare or convert data in registers. Pure.

use super::super::abi;
use super::super::model::{CmpOp, Expr};
use super::data::{decode_value, encode_value};
use super::register;
use crate::netlink::{Attr, Attrs};

/// Appends the operands of an expression that compares or converts data. Appends nothing for all other expressions.
pub(super) fn encode(attrs: &mut Attrs<'_>, expr: &Expr) {
    match expr {
        Expr::Cmp { sreg, op, value } => {
            register::push(attrs, abi::cmp::NFTA_CMP_SREG, *sreg);
            attrs.push_be32(abi::cmp::NFTA_CMP_OP, op.number());
            encode_value(attrs, abi::cmp::NFTA_CMP_DATA, value);
        }
        Expr::Range { sreg, is_inverted, first, last } => {
            register::push(attrs, abi::range::NFTA_RANGE_SREG, *sreg);
            let op = if *is_inverted { abi::range::OP_OUTSIDE } else { abi::range::OP_INSIDE };
            attrs.push_be32(abi::range::NFTA_RANGE_OP, op);
            encode_value(attrs, abi::range::NFTA_RANGE_FROM_DATA, first);
            encode_value(attrs, abi::range::NFTA_RANGE_TO_DATA, last);
        }
        Expr::Bitwise { sreg, dreg, mask, xor } => {
            register::push(attrs, abi::bitwise::NFTA_BITWISE_SREG, *sreg);
            register::push(attrs, abi::bitwise::NFTA_BITWISE_DREG, *dreg);
            attrs.push_be32(abi::bitwise::NFTA_BITWISE_LEN, mask.byte_length());
            encode_value(attrs, abi::bitwise::NFTA_BITWISE_MASK, mask);
            encode_value(attrs, abi::bitwise::NFTA_BITWISE_XOR, xor);
        }
        Expr::ToNetworkOrder { sreg, dreg, length, size } => {
            register::push(attrs, abi::byteorder::NFTA_BYTEORDER_SREG, *sreg);
            register::push(attrs, abi::byteorder::NFTA_BYTEORDER_DREG, *dreg);
            attrs.push_be32(abi::byteorder::NFTA_BYTEORDER_OP, abi::byteorder::OP_TO_NETWORK);
            attrs.push_be32(abi::byteorder::NFTA_BYTEORDER_LEN, *length);
            attrs.push_be32(abi::byteorder::NFTA_BYTEORDER_SIZE, *size);
        }
        _ => {}
    }
}

impl CmpOp {
    const ALL: [Self; 6] =
        [Self::Equal, Self::NotEqual, Self::Less, Self::LessOrEqual, Self::Greater, Self::GreaterOrEqual];

    fn number(self) -> u32 {
        match self {
            Self::Equal => abi::cmp::OP_EQUAL,
            Self::NotEqual => abi::cmp::OP_NOT_EQUAL,
            Self::Less => abi::cmp::OP_LESS,
            Self::LessOrEqual => abi::cmp::OP_LESS_OR_EQUAL,
            Self::Greater => abi::cmp::OP_GREATER,
            Self::GreaterOrEqual => abi::cmp::OP_GREATER_OR_EQUAL,
        }
    }
}

pub(super) fn decode_cmp(attrs: &[u8]) -> Option<Expr> {
    let number = Attr::find_be32(attrs, abi::cmp::NFTA_CMP_OP)?;
    Some(Expr::Cmp {
        sreg: register::find(attrs, abi::cmp::NFTA_CMP_SREG)?,
        op: CmpOp::ALL.into_iter().find(|op| op.number() == number)?,
        value: decode_value(attrs, abi::cmp::NFTA_CMP_DATA)?,
    })
}

pub(super) fn decode_range(attrs: &[u8]) -> Option<Expr> {
    Some(Expr::Range {
        sreg: register::find(attrs, abi::range::NFTA_RANGE_SREG)?,
        is_inverted: match Attr::find_be32(attrs, abi::range::NFTA_RANGE_OP)? {
            abi::range::OP_INSIDE => false,
            abi::range::OP_OUTSIDE => true,
            _ => return None,
        },
        first: decode_value(attrs, abi::range::NFTA_RANGE_FROM_DATA)?,
        last: decode_value(attrs, abi::range::NFTA_RANGE_TO_DATA)?,
    })
}

pub(super) fn decode_bitwise(attrs: &[u8]) -> Option<Expr> {
    // Kernels before 5.6 know only this operation, and do not list the attribute.
    let op = Attr::find_be32(attrs, abi::bitwise::NFTA_BITWISE_OP).unwrap_or(abi::bitwise::OP_MASK_XOR);
    let expr = Expr::Bitwise {
        sreg: register::find(attrs, abi::bitwise::NFTA_BITWISE_SREG)?,
        dreg: register::find(attrs, abi::bitwise::NFTA_BITWISE_DREG)?,
        mask: decode_value(attrs, abi::bitwise::NFTA_BITWISE_MASK)?,
        xor: decode_value(attrs, abi::bitwise::NFTA_BITWISE_XOR)?,
    };
    (op == abi::bitwise::OP_MASK_XOR).then_some(expr)
}

pub(super) fn decode_byteorder(attrs: &[u8]) -> Option<Expr> {
    let is_to_network =
        Attr::find_be32(attrs, abi::byteorder::NFTA_BYTEORDER_OP)? == abi::byteorder::OP_TO_NETWORK;
    let expr = Expr::ToNetworkOrder {
        sreg: register::find(attrs, abi::byteorder::NFTA_BYTEORDER_SREG)?,
        dreg: register::find(attrs, abi::byteorder::NFTA_BYTEORDER_DREG)?,
        length: Attr::find_be32(attrs, abi::byteorder::NFTA_BYTEORDER_LEN)?,
        size: Attr::find_be32(attrs, abi::byteorder::NFTA_BYTEORDER_SIZE)?,
    };
    is_to_network.then_some(expr)
}
