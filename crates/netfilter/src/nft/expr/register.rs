//! The numbers of registers. Pure.

use super::super::abi::{self, UnsupportedProperty};
use super::super::model::Reg;
use crate::netlink::{Attr, Attrs};

impl Reg {
    /// Returns the register's number in netlink messages (enum `nft_registers`, `linux/netfilter/nf_tables.h`).
    ///
    /// The kernel numbers registers of 16 bytes from 1 to 4, and registers of 4 bytes from 8 to 23. Each register of 16
    /// bytes consists of four registers of 4 bytes. The kernel lists the first of the four registers under the number
    /// of the register of 16 bytes.
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

/// Appends the number of a register.
pub(super) fn push(attrs: &mut Attrs<'_>, kind: u16, reg: Reg) {
    attrs.push_be32(kind, reg.netlink_number());
}

/// Appends the number of a register. Appends nothing for `None`.
pub(super) fn push_optional(attrs: &mut Attrs<'_>, kind: u16, reg: Option<Reg>) {
    if let Some(reg) = reg {
        push(attrs, kind, reg);
    }
}

/// Decodes a register.
pub(super) fn find(attrs: &[u8], kind: u16) -> Option<Reg> {
    Reg::from_netlink_number(Attr::find_be32(attrs, kind)?)
}

/// Decodes a register that may be absent.
pub(super) fn find_optional(attrs: &[u8], kind: u16) -> Result<Option<Reg>, UnsupportedProperty> {
    match Attr::find(attrs, kind) {
        Some(_) => find(attrs, kind).map(Some).ok_or(UnsupportedProperty),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_of_each_register_converts_to_the_same_register() {
        for reg in (0..16).map(Reg) {
            assert_eq!(Reg::from_netlink_number(reg.netlink_number()), Some(reg));
        }
        assert_eq!(Reg(4).netlink_number(), 2);
        assert_eq!(Reg(5).netlink_number(), 13);
        assert_eq!(Reg::from_netlink_number(abi::reg::VERDICT), None);
    }
}
