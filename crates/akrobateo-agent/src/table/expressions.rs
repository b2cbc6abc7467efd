//! Expressions that several chains use. Pure.

use netfilter::nft::abi::{ct, meta};
use netfilter::nft::model::{Direction, Expr, PayloadBase, Reg, Rule, Value, Verdict};

use crate::marks;

/// Returns the expressions that load the protocol into register `first_register`, and the destination port into the
/// next register.
pub(super) fn load_protocol_and_port(first_register: u8) -> [Expr; 2] {
    [
        Expr::Meta { key: meta::KEY_L4PROTO, dreg: Reg(first_register) },
        Expr::payload(PayloadBase::Transport, 2, 2, Reg(first_register + 1)),
    ]
}

/// Returns the expressions that match if `mark & mask == bits`. `mark` is the mark of the conntrack entry.
pub(super) fn has_flow_bits(mask: u32, bits: u32) -> [Expr; 3] {
    [
        Expr::Ct { key: ct::KEY_MARK, direction: None, dreg: Reg(0) },
        Expr::and(Reg(0), mask),
        Expr::equal(Reg(0), bits.to_ne_bytes()),
    ]
}

/// Returns the expressions that set bits in the mark of the conntrack entry.
pub(super) fn set_flow_bits(bits: u32) -> [Expr; 3] {
    [
        Expr::Ct { key: ct::KEY_MARK, direction: None, dreg: Reg(0) },
        Expr::or(Reg(0), bits),
        Expr::SetCt { key: ct::KEY_MARK, direction: None, sreg: Reg(0) },
    ]
}

/// Returns the expressions that set bits in the mark of the packet.
pub(super) fn set_packet_bits(bits: u32) -> [Expr; 3] {
    [
        Expr::Meta { key: meta::KEY_MARK, dreg: Reg(0) },
        Expr::or(Reg(0), bits),
        Expr::SetMeta { key: meta::KEY_MARK, sreg: Reg(0) },
    ]
}

/// Returns the expressions that match if `mark & mask == bits`. `mark` is the mark of the packet.
pub(super) fn has_packet_bits(mask: u32, bits: u32) -> [Expr; 3] {
    [
        Expr::Meta { key: meta::KEY_MARK, dreg: Reg(0) },
        Expr::and(Reg(0), mask),
        Expr::equal(Reg(0), bits.to_ne_bytes()),
    ]
}

/// Returns the expression that loads the conntrack zone of the original direction.
pub(super) const fn load_conntrack_zone(reg: Reg) -> Expr {
    Expr::Ct { key: ct::KEY_ZONE, direction: Some(Direction::Original), dreg: reg }
}

/// Returns the expressions that match flows that have come through a peer. Zones of other programs do not match.
pub(super) fn has_peer_zone() -> [Expr; 3] {
    let mask = Expr::Bitwise {
        sreg: Reg(0),
        dreg: Reg(0),
        mask: Value::from(marks::CONNTRACK_ZONE_MASK.to_ne_bytes()),
        xor: Value::from([0; 2]),
    };
    [load_conntrack_zone(Reg(0)), mask, Expr::equal(Reg(0), marks::conntrack_zone(0).to_ne_bytes())]
}

/// Returns the expressions that match one direction of a flow ([`ct::DIRECTION_ORIGINAL`] or [`ct::DIRECTION_REPLY`]).
pub(super) fn is_direction(direction: u8) -> [Expr; 2] {
    [Expr::Ct { key: ct::KEY_DIRECTION, direction: None, dreg: Reg(0) }, Expr::equal(Reg(0), [direction])]
}

/// Returns the expressions that match packets that arrive on an interface.
pub(super) fn is_input_interface(name: &str) -> Vec<Expr> {
    is_interface(meta::KEY_INPUT_INTERFACE_NAME, name)
}

/// Returns the expressions that match packets that leave through an interface.
pub(super) fn is_output_interface(name: &str) -> Vec<Expr> {
    is_interface(meta::KEY_OUTPUT_INTERFACE_NAME, name)
}

/// Returns the expressions that compare the name of an interface. If the name is invalid, the rule never matches.
fn is_interface(key: u32, name: &str) -> Vec<Expr> {
    let name = Value::from_interface_name(name).unwrap_or_else(|| Value::from([0; 16]));
    vec![Expr::Meta { key, dreg: Reg(0) }, Expr::equal(Reg(0), name)]
}

/// Returns the expressions that match packets of a protocol.
pub(super) fn is_protocol(number: u8) -> [Expr; 2] {
    [Expr::Meta { key: meta::KEY_L4PROTO, dreg: Reg(0) }, Expr::equal(Reg(0), [number])]
}

/// Returns the expressions that match packets to a port.
pub(super) fn is_destination_port(port: u16) -> [Expr; 2] {
    [Expr::payload(PayloadBase::Transport, 2, 2, Reg(0)), Expr::equal(Reg(0), port.to_be_bytes())]
}

/// Returns a rule that consists of these groups of expressions.
pub(super) fn rule<const N: usize>(groups: [&[Expr]; N]) -> Rule {
    Rule::new(groups.concat())
}

/// Returns the expression that accepts the packet. The remaining rules of the chain are skipped.
pub(super) const fn accept() -> Expr {
    Expr::Verdict(Verdict::Accept)
}

/// Concatenates the parts of a key or a value. The parts always fit into a value, because the longest key has an
/// address and three numbers.
pub(super) fn concat(parts: &[&[u8]]) -> Value {
    Value::concat(parts).unwrap_or_else(|| Value::from([]))
}
