//! Names, keys and values of sets, and counters. Pure.

use std::borrow::Cow;

/// A name. A static name needs no allocation. Small allocations between large allocations would prevent the allocator
/// from returning memory to the system.
pub type Name = Cow<'static, str>;

/// A key, a value of a map, or an operand. The struct itself stores the bytes, without heap memory, because a table may
/// have thousands of values.
///
/// Addresses, ports and protocols are in network byte order. The kernel keeps marks, zones and random numbers in the
/// byte order of the machine, so their bytes come from `to_ne_bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value {
    bytes: [u8; Self::MAX_LENGTH],
    length: u8,
}

impl Value {
    /// The maximum length in bytes: an IPv6 address and three parts of 4 bytes. The kernel would accept 64 bytes
    /// (`NFT_DATA_VALUE_MAXLEN`, `linux/netfilter/nf_tables.h`).
    pub const MAX_LENGTH: usize = 28;

    /// Copies `bytes`. Returns `None` if `bytes` is longer than [`Self::MAX_LENGTH`].
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let mut value = Self { bytes: [0; Self::MAX_LENGTH], length: u8::try_from(bytes.len()).ok()? };
        value.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(value)
    }

    /// Concatenates `parts`. Each part is padded with zero bytes to a multiple of 4, as the kernel expects. A single
    /// part is not padded. Returns `None` if the result is longer than [`Self::MAX_LENGTH`].
    #[must_use]
    pub fn concat(parts: &[&[u8]]) -> Option<Self> {
        if let [part] = parts {
            return Self::from_slice(part);
        }
        let mut value = Self { bytes: [0; Self::MAX_LENGTH], length: 0 };
        let mut end = 0;
        for part in parts {
            value.bytes.get_mut(end..end + part.len())?.copy_from_slice(part);
            end += part.len().next_multiple_of(4);
        }
        value.length = u8::try_from(end).ok().filter(|_| end <= Self::MAX_LENGTH)?;
        Some(value)
    }

    /// Returns the name of a network interface as the kernel keeps it in a register: 16 bytes, padded with zero bytes.
    /// Returns `None` if the name is too long for an interface (`IFNAMSIZ`, `linux/if.h`).
    #[must_use]
    pub fn from_interface_name(name: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        bytes.get_mut(..name.len()).filter(|_| name.len() < 16)?.copy_from_slice(name.as_bytes());
        Some(Self::from(bytes))
    }

    /// Returns the bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// Returns the number of bytes.
    #[must_use]
    pub fn byte_length(&self) -> u32 {
        self.length.into()
    }

    /// Returns the next value of the same length in network byte order; `None` after the highest value.
    pub(crate) fn next(mut self) -> Option<Self> {
        for byte in self.bytes[..usize::from(self.length)].iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                return Some(self);
            }
        }
        None
    }

    /// Returns the previous value of the same length in network byte order; `None` before the lowest value.
    pub(crate) fn previous(mut self) -> Option<Self> {
        for byte in self.bytes[..usize::from(self.length)].iter_mut().rev() {
            *byte = byte.wrapping_sub(1);
            if *byte != u8::MAX {
                return Some(self);
            }
        }
        None
    }

    /// Returns the highest value of the same length.
    pub(crate) fn max_of_same_length(mut self) -> Self {
        self.bytes[..usize::from(self.length)].fill(u8::MAX);
        self
    }
}

impl<const LENGTH: usize> From<[u8; LENGTH]> for Value {
    fn from(array: [u8; LENGTH]) -> Self {
        const { assert!(LENGTH <= Self::MAX_LENGTH) };
        let mut bytes = [0; Self::MAX_LENGTH];
        bytes[..LENGTH].copy_from_slice(&array);
        #[expect(clippy::cast_possible_truncation, reason = "LENGTH is at most MAX_LENGTH")]
        Self { bytes, length: LENGTH as u8 }
    }
}

/// The values of a counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Counter {
    /// The number of packets. Segments that the kernel has merged (GRO), or will split later (GSO), count once.
    pub packets: u64,
    /// The number of bytes in these packets, with IP headers.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concatenation_pads_each_part_to_four_bytes() {
        let value = Value::concat(&[&[6], &80_u16.to_be_bytes(), &[10, 0, 0, 1]]).unwrap();
        assert_eq!(value.bytes(), [6, 0, 0, 0, 0, 80, 0, 0, 10, 0, 0, 1]);
        assert_eq!(Value::concat(&[&[1; 16], &[2; 12]]).map(|value| value.byte_length()), Some(28));
        assert_eq!(Value::concat(&[&[1; 16], &[2; 12], &[3]]), None);
        assert_eq!(Value::concat(&[&[1; 29]]), None);
        assert_eq!(Value::concat(&[&[1; 6]]), Some(Value::from([1; 6])));
    }

    #[test]
    fn next_and_previous_value_carry_over_all_bytes() {
        let value = Value::from([10, 0, 255, 255]);
        assert_eq!(value.next(), Some(Value::from([10, 1, 0, 0])));
        assert_eq!(value.next().and_then(Value::previous), Some(value));
        assert_eq!(Value::from([255; 4]).next(), None);
        assert_eq!(Value::from([0; 4]).previous(), None);
        assert_eq!(value.max_of_same_length(), Value::from([255; 4]));
    }

    #[test]
    fn interface_name_is_padded_and_has_at_most_15_characters() {
        let value = Value::from_interface_name("eth0").unwrap();
        assert_eq!(value.bytes(), b"eth0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert!(Value::from_interface_name("fifteen-letters").is_some());
        assert_eq!(Value::from_interface_name("sixteen--letters"), None);
    }
}
