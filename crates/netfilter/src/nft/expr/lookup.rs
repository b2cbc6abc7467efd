//! Encodes and decodes the expressions that use sets. Pure.

use std::num::NonZeroU32;

use super::super::abi::{self, UnsupportedProperty};
use super::super::model::{ElementChange, Expr, LookupResult, Reg};
use super::register;
use crate::netlink::{Attr, Attrs};

/// The number of milliseconds in a second: the kernel's timeouts are in milliseconds.
const MILLIS_PER_SECOND: u64 = 1000;

/// Appends the operands of a lookup.
pub(super) fn encode_lookup(attrs: &mut Attrs<'_>, set: &str, sreg: Reg, result: LookupResult) {
    attrs.push_text(abi::lookup::NFTA_LOOKUP_SET, set);
    register::push(attrs, abi::lookup::NFTA_LOOKUP_SREG, sreg);
    match result {
        LookupResult::Value(dreg) => register::push(attrs, abi::lookup::NFTA_LOOKUP_DREG, dreg),
        LookupResult::Verdict => attrs.push_be32(abi::lookup::NFTA_LOOKUP_DREG, abi::reg::VERDICT),
        LookupResult::Contained | LookupResult::NotContained => {}
    }
    let is_inverted = result == LookupResult::NotContained;
    attrs.push_be32(abi::lookup::NFTA_LOOKUP_FLAGS, if is_inverted { abi::lookup::FLAG_INVERT } else { 0 });
}

pub(super) fn decode_lookup(attrs: &[u8]) -> Option<Expr> {
    let flags = Attr::find_be32(attrs, abi::lookup::NFTA_LOOKUP_FLAGS).unwrap_or(0);
    let result = match (Attr::find_be32(attrs, abi::lookup::NFTA_LOOKUP_DREG), flags) {
        (None, 0) => LookupResult::Contained,
        (None, abi::lookup::FLAG_INVERT) => LookupResult::NotContained,
        (Some(abi::reg::VERDICT), 0) => LookupResult::Verdict,
        (Some(_), 0) => LookupResult::Value(register::find(attrs, abi::lookup::NFTA_LOOKUP_DREG)?),
        _ => return None,
    };
    Some(Expr::Lookup {
        set: Attr::find_text(attrs, abi::lookup::NFTA_LOOKUP_SET)?.to_owned().into(),
        sreg: register::find(attrs, abi::lookup::NFTA_LOOKUP_SREG)?,
        result,
    })
}

impl ElementChange {
    const ALL: [Self; 3] = [Self::Add, Self::Update, Self::Delete];

    fn number(self) -> u32 {
        match self {
            Self::Add => abi::dynset::OP_ADD,
            Self::Update => abi::dynset::OP_UPDATE,
            Self::Delete => abi::dynset::OP_DELETE,
        }
    }
}

/// Appends the operands of a change of a dynamic set. Appends nothing for all other expressions.
pub(super) fn encode_change(attrs: &mut Attrs<'_>, expr: &Expr) {
    let Expr::ChangeElement { set, change, key, value, timeout_seconds } = expr else { return };
    attrs.push_text(abi::dynset::NFTA_DYNSET_SET_NAME, set);
    attrs.push_be32(abi::dynset::NFTA_DYNSET_OP, change.number());
    register::push(attrs, abi::dynset::NFTA_DYNSET_SREG_KEY, *key);
    register::push_optional(attrs, abi::dynset::NFTA_DYNSET_SREG_DATA, *value);
    if let Some(seconds) = timeout_seconds {
        attrs.push_be64(abi::dynset::NFTA_DYNSET_TIMEOUT, u64::from(seconds.get()) * MILLIS_PER_SECOND);
    }
}

pub(super) fn decode_change(attrs: &[u8]) -> Option<Expr> {
    let number = Attr::find_be32(attrs, abi::dynset::NFTA_DYNSET_OP)?;
    let has_only_known_attributes = Attr::find_be32(attrs, abi::dynset::NFTA_DYNSET_FLAGS).unwrap_or(0) == 0
        && Attr::find(attrs, abi::dynset::NFTA_DYNSET_EXPR).is_none()
        && Attr::find(attrs, abi::dynset::NFTA_DYNSET_EXPRESSIONS).is_none();
    let expr = Expr::ChangeElement {
        set: Attr::find_text(attrs, abi::dynset::NFTA_DYNSET_SET_NAME)?.to_owned().into(),
        change: ElementChange::ALL.into_iter().find(|change| change.number() == number)?,
        key: register::find(attrs, abi::dynset::NFTA_DYNSET_SREG_KEY)?,
        value: register::find_optional(attrs, abi::dynset::NFTA_DYNSET_SREG_DATA).ok()?,
        timeout_seconds: decode_seconds(attrs, abi::dynset::NFTA_DYNSET_TIMEOUT).ok()?,
    };
    has_only_known_attributes.then_some(expr)
}

/// Decodes a timeout. 0 means that there is no timeout. This crate encodes only whole seconds.
pub(crate) fn decode_seconds(attrs: &[u8], kind: u16) -> Result<Option<NonZeroU32>, UnsupportedProperty> {
    let millis = Attr::find_be64(attrs, kind).unwrap_or(0);
    let seconds = u32::try_from(millis / MILLIS_PER_SECOND).map_err(|_| UnsupportedProperty)?;
    if millis.is_multiple_of(MILLIS_PER_SECOND) {
        Ok(NonZeroU32::new(seconds))
    } else {
        Err(UnsupportedProperty)
    }
}
