//! Encodes and decodes data, verdicts and counters. Pure.

use super::super::abi;
use super::super::model::{Counter, Value, Verdict};
use crate::netlink::{Attr, Attrs};

/// The kernel's name of the counter expression.
pub(super) const COUNTER_EXPRESSION: &str = "counter";

/// Appends the data of a key, a value or an operand.
pub(crate) fn encode_value(attrs: &mut Attrs<'_>, kind: u16, value: &Value) {
    attrs.push_nested(kind, |attrs| attrs.push_bytes(abi::data::NFTA_DATA_VALUE, value.bytes()));
}

/// Decodes the data that [`encode_value`] appended.
pub(crate) fn decode_value(attrs: &[u8], kind: u16) -> Option<Value> {
    Value::from_slice(Attr::find(Attr::find(attrs, kind)?, abi::data::NFTA_DATA_VALUE)?)
}

/// Appends a verdict.
pub(crate) fn encode_verdict(attrs: &mut Attrs<'_>, kind: u16, verdict: &Verdict) {
    let code = match verdict {
        Verdict::Accept => abi::verdict::ACCEPT,
        Verdict::Drop => abi::verdict::DROP,
        Verdict::Continue => abi::verdict::CONTINUE,
        Verdict::Return => abi::verdict::RETURN,
        Verdict::Jump(_) => abi::verdict::JUMP,
        Verdict::Goto(_) => abi::verdict::GOTO,
    };
    attrs.push_nested(kind, |attrs| {
        attrs.push_nested(abi::data::NFTA_DATA_VERDICT, |attrs| {
            attrs.push_be32(abi::data::NFTA_VERDICT_CODE, code.cast_unsigned());
            if let Some(chain) = verdict.target_chain() {
                attrs.push_text(abi::data::NFTA_VERDICT_CHAIN, chain);
            }
        });
    });
}

/// Decodes the verdict that [`encode_verdict`] appended.
pub(crate) fn decode_verdict(attrs: &[u8], kind: u16) -> Option<Verdict> {
    let verdict = Attr::find(Attr::find(attrs, kind)?, abi::data::NFTA_DATA_VERDICT)?;
    let chain = || Some(Attr::find_text(verdict, abi::data::NFTA_VERDICT_CHAIN)?.to_owned());
    Some(match Attr::find_be32(verdict, abi::data::NFTA_VERDICT_CODE)?.cast_signed() {
        abi::verdict::ACCEPT => Verdict::Accept,
        abi::verdict::DROP => Verdict::Drop,
        abi::verdict::CONTINUE => Verdict::Continue,
        abi::verdict::RETURN => Verdict::Return,
        abi::verdict::JUMP => Verdict::jump(chain()?),
        abi::verdict::GOTO => Verdict::goto(chain()?),
        _ => return None,
    })
}

/// Appends the counter of a set or of an element, as an expression.
pub(crate) fn encode_counter(attrs: &mut Attrs<'_>, kind: u16, counter: Counter) {
    attrs.push_nested(kind, |attrs| {
        attrs.push_text(abi::expr::NFTA_EXPR_NAME, COUNTER_EXPRESSION);
        attrs.push_nested(abi::expr::NFTA_EXPR_DATA, |data| encode_counts(data, counter));
    });
}

/// Decodes a counter that [`encode_counter`] appended. Returns `None` for all other expressions.
pub(crate) fn decode_counter(expr: &[u8]) -> Option<Counter> {
    let is_counter = Attr::find_text(expr, abi::expr::NFTA_EXPR_NAME) == Some(COUNTER_EXPRESSION);
    decode_counts(Attr::find(expr, abi::expr::NFTA_EXPR_DATA).unwrap_or_default()).filter(|_| is_counter)
}

/// Appends the operands of a counter expression.
pub(super) fn encode_counts(attrs: &mut Attrs<'_>, counter: Counter) {
    attrs.push_be64(abi::counter::NFTA_COUNTER_BYTES, counter.bytes);
    attrs.push_be64(abi::counter::NFTA_COUNTER_PACKETS, counter.packets);
}

/// Decodes the operands of a counter expression.
pub(super) fn decode_counts(attrs: &[u8]) -> Option<Counter> {
    let number = |kind| Attr::find_be64(attrs, kind);
    Some(Counter {
        packets: number(abi::counter::NFTA_COUNTER_PACKETS)?,
        bytes: number(abi::counter::NFTA_COUNTER_BYTES)?,
    })
}
