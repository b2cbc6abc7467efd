//! The types of keys and values. Pure.

/// The type of keys or values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataType {
    /// The number that the nft program gives to the data type (enum `datatypes`, `include/datatype.h`). The nft program
    /// prints data according to this number. The kernel only stores this number.
    pub id: u32,
    /// The length in bytes. Each part of a concatenation is padded to a multiple of 4.
    pub length: u32,
}

/// The number of bits that each part occupies in the `id` of a concatenation (`TYPE_BITS`, `include/datatype.h` of
/// nft).
const BITS_PER_TYPE: u32 = 6;

impl DataType {
    /// `meta nfproto`, one byte: `NFPROTO_IPV4` (2) or `NFPROTO_IPV6` (10).
    pub const NFPROTO: Self = Self { id: 2, length: 1 };
    /// A number in the byte order of the machine, for example a random number of `numgen`. This crate uses the type of
    /// marks for such numbers. The type `integer` has no length, and nft 1.0.6 aborts when it prints a concatenation
    /// with this type.
    pub const NUMBER: Self = Self::MARK;
    /// An IPv4 address.
    pub const IPV4: Self = Self { id: 7, length: 4 };
    /// An IPv6 address.
    pub const IPV6: Self = Self { id: 8, length: 16 };
    /// A MAC address.
    pub const MAC: Self = Self { id: 9, length: 6 };
    /// A layer-4 protocol, one byte.
    pub const PROTOCOL: Self = Self { id: 12, length: 1 };
    /// A port.
    pub const PORT: Self = Self { id: 13, length: 2 };
    /// A mark of a packet or of a conntrack entry, in the byte order of the machine.
    pub const MARK: Self = Self { id: 19, length: 4 };
    /// A conntrack zone, in the byte order of the machine. The nft program prints a zone as a number.
    pub const ZONE: Self = Self { id: 4, length: 2 };
    /// The name of a network interface.
    pub const INTERFACE_NAME: Self = Self { id: 41, length: 16 };

    /// Returns true if the kernel keeps data of this type in the byte order of the machine.
    pub(crate) fn has_machine_order(self) -> bool {
        [Self::MARK.id, Self::ZONE.id, Self::INTERFACE_NAME.id].contains(&self.id)
    }

    /// Returns the type of a concatenation of `parts`. A single part is not padded.
    #[must_use]
    pub const fn concat(parts: &[Self]) -> Self {
        if let [part] = parts {
            return *part;
        }
        let (mut id, mut length, mut index) = (0, 0, 0);
        while index < parts.len() {
            id = id << BITS_PER_TYPE | parts[index].id;
            length += parts[index].length.next_multiple_of(4);
            index += 1;
        }
        Self { id, length }
    }
}

/// The type of a map's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// Plain data: a lookup copies the data to a register.
    Data(DataType),
    /// Verdicts: a lookup in the verdict map executes the verdict.
    Verdict,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concatenation_combines_the_numbers_and_lengths_of_its_parts() {
        let parts = [DataType::PROTOCOL, DataType::PORT, DataType::IPV6];
        assert_eq!(DataType::concat(&parts), DataType { id: 12 << 12 | 13 << 6 | 8, length: 24 });
        assert_eq!(DataType::concat(&[DataType::MAC]), DataType::MAC);
    }
}
