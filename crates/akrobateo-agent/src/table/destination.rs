//! Translates the destination to an endpoint in registers. Pure.

use netfilter::nft::model::{Expr, NatFlags, NatKind, Reg};

use super::family::FamilyPart;

/// The first register of the chosen endpoint: its address, and then its port.
pub(super) const ENDPOINT: u8 = 8;

/// Translates the destination to the endpoint in the registers from [`ENDPOINT`].
pub(super) fn translate_destination(part: FamilyPart) -> Expr {
    Expr::Nat {
        kind: NatKind::Destination,
        family: part.family,
        address: Some(Reg(ENDPOINT)),
        port: Some(Reg(ENDPOINT + part.address_registers)),
        flags: NatFlags::default(),
    }
}
