//! Encodes and decodes the expressions of rules. Pure.

use super::abi;
use super::model::{Counter, Expr, Reg};
use crate::netlink::{Attr, Attrs};

/// The kernel's name of the counter expression.
const COUNTER_EXPRESSION: &str = "counter";

impl Reg {
    /// Returns the register's number in netlink messages (enum `nft_registers` in `linux/netfilter/nf_tables.h`).
    ///
    /// The kernel numbers registers of 16 bytes from 1 to 4, and registers of 4 bytes from 8 to 23. Each register of 16
    /// bytes consists of four registers of 4 bytes. If a register of 4 bytes is the first of the four, the kernel lists
    /// the number of the register of 16 bytes.
    fn netlink_number(self) -> u32 {
        let index = u32::from(self.0);
        if index.is_multiple_of(4) {
            abi::reg::FIRST_16_BYTE_REGISTER + index / 4
        } else {
            abi::reg::FIRST_4_BYTE_REGISTER + index
        }
    }

    /// Returns the register with this number in netlink messages.
    fn from_netlink_number(number: u32) -> Option<Self> {
        let index = match number {
            1..=4 => (number - abi::reg::FIRST_16_BYTE_REGISTER) * 4,
            8..=23 => number - abi::reg::FIRST_4_BYTE_REGISTER,
            _ => return None,
        };
        u8::try_from(index).ok().map(Self)
    }
}

/// Appends a rule: its list of expressions.
pub(super) fn encode_rule(attrs: &mut Attrs<'_>, rule: &[Expr]) {
    attrs.push_nested(abi::rule::EXPRESSIONS, |list| {
        for expr in rule {
            list.push_nested(abi::LIST_ITEM, |item| {
                item.push_text(abi::expr::NAME, expression_name(expr));
                item.push_nested(abi::expr::DATA, |data| encode(data, expr));
            });
        }
    });
}

fn expression_name(expr: &Expr) -> &'static str {
    match expr {
        Expr::Meta { .. } => "meta",
        Expr::Ct { .. } | Expr::SetCtMark { .. } => "ct",
        Expr::Payload { .. } => "payload",
        Expr::Cmp { .. } => "cmp",
        Expr::Mask { .. } => "bitwise",
        Expr::Lookup { .. } => "lookup",
        Expr::Dnat { .. } => "nat",
        Expr::Masquerade => "masq",
        Expr::Verdict(_) => "immediate",
    }
}

fn encode(attrs: &mut Attrs<'_>, expr: &Expr) {
    match expr {
        Expr::Meta { key, dreg } => {
            attrs.push_be32(abi::meta::KEY, *key);
            attrs.push_be32(abi::meta::DREG, dreg.netlink_number());
        }
        Expr::Ct { key, dreg } => {
            attrs.push_be32(abi::ct::KEY, *key);
            attrs.push_be32(abi::ct::DREG, dreg.netlink_number());
        }
        Expr::SetCtMark { sreg } => {
            attrs.push_be32(abi::ct::KEY, abi::ct::KEY_MARK);
            attrs.push_be32(abi::ct::SREG, sreg.netlink_number());
        }
        Expr::Payload { base, offset, len, dreg } => {
            attrs.push_be32(abi::payload::DREG, dreg.netlink_number());
            attrs.push_be32(abi::payload::BASE, *base);
            attrs.push_be32(abi::payload::OFFSET, *offset);
            attrs.push_be32(abi::payload::LEN, *len);
        }
        Expr::Cmp { sreg, is_equal, data } => {
            attrs.push_be32(abi::cmp::SREG, sreg.netlink_number());
            attrs
                .push_be32(abi::cmp::OP, if *is_equal { abi::cmp::OP_EQUAL } else { abi::cmp::OP_NOT_EQUAL });
            encode_value(attrs, abi::cmp::DATA, data);
        }
        Expr::Mask { reg, mask } => encode_mask(attrs, *reg, mask),
        Expr::Lookup { set, sreg, dreg, is_inverted } => {
            attrs.push_text(abi::lookup::SET, set);
            attrs.push_be32(abi::lookup::SREG, sreg.netlink_number());
            if let Some(dreg) = dreg {
                attrs.push_be32(abi::lookup::DREG, dreg.netlink_number());
            }
            attrs.push_be32(abi::lookup::FLAGS, if *is_inverted { abi::lookup::FLAG_INVERT } else { 0 });
        }
        Expr::Dnat { family, address, port } => {
            attrs.push_be32(abi::nat::TYPE, abi::nat::TYPE_DNAT);
            attrs.push_be32(abi::nat::FAMILY, *family);
            attrs.push_be32(abi::nat::ADDRESS, address.netlink_number());
            attrs.push_be32(abi::nat::PORT, port.netlink_number());
        }
        Expr::Masquerade => {}
        Expr::Verdict(verdict) => {
            attrs.push_be32(abi::immediate::DREG, abi::reg::VERDICT);
            attrs.push_nested(abi::immediate::DATA, |data| {
                data.push_nested(abi::data::VERDICT, |data| {
                    data.push_be32(abi::data::VERDICT_CODE, *verdict);
                });
            });
        }
    }
}

fn encode_mask(attrs: &mut Attrs<'_>, reg: Reg, mask: &[u8]) {
    attrs.push_be32(abi::bitwise::SREG, reg.netlink_number());
    attrs.push_be32(abi::bitwise::DREG, reg.netlink_number());
    attrs.push_be32(abi::bitwise::LEN, u32::try_from(mask.len()).unwrap_or(u32::MAX));
    encode_value(attrs, abi::bitwise::MASK, mask);
    encode_value(attrs, abi::bitwise::XOR, &vec![0; mask.len()]);
}

/// Appends the counter of a set or of an element.
pub(super) fn encode_counter(attrs: &mut Attrs<'_>, kind: u16, counter: Counter) {
    attrs.push_nested(kind, |attrs| {
        attrs.push_text(abi::expr::NAME, COUNTER_EXPRESSION);
        attrs.push_nested(abi::expr::DATA, |data| {
            data.push_bytes(abi::counter::BYTES, &counter.bytes.to_be_bytes());
            data.push_bytes(abi::counter::PACKETS, &counter.packets.to_be_bytes());
        });
    });
}

/// Decodes a counter that [`encode_counter`] appended. Returns `None` for another expression.
pub(super) fn decode_counter(expr: &[u8]) -> Option<Counter> {
    let data = Attr::find(expr, abi::expr::DATA).unwrap_or_default();
    let number = |kind| Some(u64::from_be_bytes(Attr::find(data, kind)?.try_into().ok()?));
    let counter = Counter { packets: number(abi::counter::PACKETS)?, bytes: number(abi::counter::BYTES)? };
    (Attr::find_text(expr, abi::expr::NAME) == Some(COUNTER_EXPRESSION)).then_some(counter)
}

/// Appends the data of a key, a value or an operand.
pub(super) fn encode_value(attrs: &mut Attrs<'_>, kind: u16, data: &[u8]) {
    attrs.push_nested(kind, |attrs| attrs.push_bytes(abi::data::VALUE, data));
}

/// Decodes the data that [`encode_value`] appended.
pub(super) fn decode_value(attrs: &[u8], kind: u16) -> Option<&[u8]> {
    Attr::find(Attr::find(attrs, kind)?, abi::data::VALUE)
}

/// Decodes a rule. Returns `None` if the rule has an expression that Akrobateo never creates.
pub(super) fn decode_rule(attrs: &[u8]) -> Option<Vec<Expr>> {
    let list = Attr::find(attrs, abi::rule::EXPRESSIONS).unwrap_or_default();
    Attr::parse_all(list).map(|item| decode(item.value)).collect()
}

fn decode(item: &[u8]) -> Option<Expr> {
    // The kernel may omit the data of an expression without operands.
    let attrs = Attr::find(item, abi::expr::DATA).unwrap_or_default();
    let number = |kind| Attr::find_be32(attrs, kind);
    let reg = |kind| Reg::from_netlink_number(number(kind)?);
    Some(match Attr::find_text(item, abi::expr::NAME)? {
        "meta" => Expr::Meta { key: number(abi::meta::KEY)?, dreg: reg(abi::meta::DREG)? },
        "ct" => match (reg(abi::ct::DREG), number(abi::ct::KEY)?) {
            (Some(dreg), key) => Expr::Ct { key, dreg },
            (None, abi::ct::KEY_MARK) => Expr::SetCtMark { sreg: reg(abi::ct::SREG)? },
            _ => return None,
        },
        "payload" => Expr::Payload {
            base: number(abi::payload::BASE)?,
            offset: number(abi::payload::OFFSET)?,
            len: number(abi::payload::LEN)?,
            dreg: reg(abi::payload::DREG)?,
        },
        "cmp" => {
            let is_equal = match number(abi::cmp::OP)? {
                abi::cmp::OP_EQUAL => true,
                abi::cmp::OP_NOT_EQUAL => false,
                _ => return None,
            };
            Expr::Cmp {
                sreg: reg(abi::cmp::SREG)?,
                is_equal,
                data: decode_value(attrs, abi::cmp::DATA)?.to_vec(),
            }
        }
        "bitwise" => decode_mask(attrs)?,
        "lookup" => Expr::Lookup {
            set: Attr::find_text(attrs, abi::lookup::SET)?.to_owned().into(),
            sreg: reg(abi::lookup::SREG)?,
            dreg: reg(abi::lookup::DREG),
            is_inverted: number(abi::lookup::FLAGS)
                .is_some_and(|flags| flags & abi::lookup::FLAG_INVERT != 0),
        },
        "nat" if number(abi::nat::TYPE)? == abi::nat::TYPE_DNAT => Expr::Dnat {
            family: number(abi::nat::FAMILY)?,
            address: reg(abi::nat::ADDRESS)?,
            port: reg(abi::nat::PORT)?,
        },
        "masq" => Expr::Masquerade,
        "immediate" => {
            let verdict = Attr::find(Attr::find(attrs, abi::immediate::DATA)?, abi::data::VERDICT)?;
            Expr::Verdict(Attr::find_be32(verdict, abi::data::VERDICT_CODE)?)
        }
        _ => return None,
    })
}

fn decode_mask(attrs: &[u8]) -> Option<Expr> {
    let reg = Reg::from_netlink_number(Attr::find_be32(attrs, abi::bitwise::SREG)?)?;
    let is_in_place = Attr::find_be32(attrs, abi::bitwise::DREG)? == reg.netlink_number();
    let is_mask = Attr::find_be32(attrs, abi::bitwise::OP).unwrap_or(0) == 0
        && decode_value(attrs, abi::bitwise::XOR)?.iter().all(|byte| *byte == 0);
    (is_in_place && is_mask)
        .then_some(Expr::Mask { reg, mask: decode_value(attrs, abi::bitwise::MASK)?.to_vec() })
}
