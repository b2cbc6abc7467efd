//! Translates the destination of a packet to the endpoint in the registers. Pure.

use netfilter::nft::model::{Expr, NatFlags, NatKind, Reg};

use super::ip_version::IpVersion;

/// The first register of the chosen endpoint. The registers contain the endpoint's address, and then its port.
pub(super) const ENDPOINT_REGISTER: u8 = 8;

/// Returns the expression that translates the destination to the endpoint in the registers from [`ENDPOINT_REGISTER`].
pub(super) fn translate_destination(ip_version: IpVersion) -> Expr {
    Expr::Nat {
        kind: NatKind::Destination,
        family: ip_version.family,
        address: Some(Reg(ENDPOINT_REGISTER)),
        port: Some(Reg(ENDPOINT_REGISTER + ip_version.address_register_count)),
        flags: NatFlags::default(),
    }
}
