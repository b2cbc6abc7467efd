//! Encodes and decodes rules: their expressions and comments. Pure.

mod action;
mod compare;
mod data;
mod load;
mod lookup;
mod register;

pub(super) use data::{
    decode_counter, decode_value, decode_verdict, encode_counter, encode_value, encode_verdict,
};
pub(super) use lookup::decode_seconds;

use super::abi;
use super::comment::{decode_comment, encode_comment};
use super::model::{Expr, Rule};
use crate::netlink::{Attr, Attrs};

/// Appends a rule: its list of expressions, and its comment.
pub(super) fn encode_rule(attrs: &mut Attrs<'_>, rule: &Rule) {
    attrs.push_nested(abi::rule::NFTA_RULE_EXPRESSIONS, |list| {
        for expr in &rule.expressions {
            list.push_nested(abi::NFTA_LIST_ELEM, |item| {
                item.push_text(abi::expr::NFTA_EXPR_NAME, expression_name(expr));
                item.push_nested(abi::expr::NFTA_EXPR_DATA, |data| encode(data, expr));
            });
        }
    });
    if let Some(comment) = &rule.comment {
        encode_comment(attrs, abi::rule::NFTA_RULE_USERDATA, comment);
    }
}

/// Decodes a rule. Returns `None` if the rule has an expression that this crate cannot encode.
pub(super) fn decode_rule(attrs: &[u8]) -> Option<Rule> {
    let list = Attr::find(attrs, abi::rule::NFTA_RULE_EXPRESSIONS).unwrap_or_default();
    let comment = match Attr::find(attrs, abi::rule::NFTA_RULE_USERDATA) {
        Some(user_data) => Some(decode_comment(user_data)?),
        None => None,
    };
    let expressions = Attr::parse_all(list).map(|item| decode(item.value)).collect::<Option<_>>()?;
    Some(Rule { expressions, comment })
}

/// Returns the kernel's name of an expression. The kernel module of the expression has the name `nft_` followed by this
/// name.
pub(super) fn expression_name(expr: &Expr) -> &'static str {
    match expr {
        Expr::Meta { .. } | Expr::SetMeta { .. } => "meta",
        Expr::Ct { .. } | Expr::SetCt { .. } => "ct",
        Expr::Payload(..) | Expr::SetPayload(..) => "payload",
        Expr::SetTcpOption { .. } => "exthdr",
        Expr::Route { .. } => "rt",
        Expr::Fib { .. } => "fib",
        Expr::RandomNumber { .. } => "numgen",
        Expr::Immediate { .. } | Expr::Verdict(_) => "immediate",
        Expr::Cmp { .. } => "cmp",
        Expr::Range { .. } => "range",
        Expr::Bitwise { .. } => "bitwise",
        Expr::ToNetworkOrder { .. } => "byteorder",
        Expr::Lookup { .. } => "lookup",
        Expr::ChangeElement { .. } => "dynset",
        Expr::Nat { .. } => "nat",
        Expr::Masquerade(_) => "masq",
        Expr::Reject(_) => "reject",
        Expr::NoTrack => "notrack",
        Expr::Counter(_) => data::COUNTER_EXPRESSION,
    }
}

fn encode(attrs: &mut Attrs<'_>, expr: &Expr) {
    match expr {
        Expr::Meta { .. }
        | Expr::SetMeta { .. }
        | Expr::Ct { .. }
        | Expr::SetCt { .. }
        | Expr::Payload(..)
        | Expr::SetPayload(..)
        | Expr::SetTcpOption { .. }
        | Expr::Route { .. }
        | Expr::Fib { .. }
        | Expr::RandomNumber { .. }
        | Expr::Immediate { .. } => load::encode(attrs, expr),
        Expr::Cmp { .. } | Expr::Range { .. } | Expr::Bitwise { .. } | Expr::ToNetworkOrder { .. } => {
            compare::encode(attrs, expr);
        }
        Expr::Lookup { set, sreg, result } => lookup::encode_lookup(attrs, set, *sreg, *result),
        Expr::ChangeElement { .. } => lookup::encode_change(attrs, expr),
        Expr::Nat { .. }
        | Expr::Masquerade(_)
        | Expr::Reject(_)
        | Expr::NoTrack
        | Expr::Counter(_)
        | Expr::Verdict(_) => action::encode(attrs, expr),
    }
}

fn decode(item: &[u8]) -> Option<Expr> {
    // The kernel may omit the data of an expression without operands.
    let attrs = Attr::find(item, abi::expr::NFTA_EXPR_DATA).unwrap_or_default();
    match Attr::find_text(item, abi::expr::NFTA_EXPR_NAME)? {
        "meta" => load::decode_meta(attrs),
        "ct" => load::decode_ct(attrs),
        "payload" => load::decode_payload(attrs),
        "exthdr" => load::decode_tcp_option(attrs),
        "rt" => load::decode_route(attrs),
        "fib" => load::decode_fib(attrs),
        "numgen" => load::decode_random_number(attrs),
        "immediate" => action::decode_verdict(attrs).or_else(|| load::decode_immediate(attrs)),
        "cmp" => compare::decode_cmp(attrs),
        "range" => compare::decode_range(attrs),
        "bitwise" => compare::decode_bitwise(attrs),
        "byteorder" => compare::decode_byteorder(attrs),
        "lookup" => lookup::decode_lookup(attrs),
        "dynset" => lookup::decode_change(attrs),
        "nat" => action::decode_nat(attrs),
        "masq" => action::decode_masquerade(attrs),
        "reject" => action::decode_reject(attrs),
        "notrack" => Some(Expr::NoTrack),
        data::COUNTER_EXPRESSION => data::decode_counts(attrs).map(Expr::Counter),
        _ => None,
    }
}
