//! An nftables table as a value, with the features of nftables that Akrobateo uses. Pure.

use std::borrow::Cow;

/// A name. A static name needs no allocation. Small allocations between large allocations would prevent the allocator
/// from returning memory to the system.
pub type Name = Cow<'static, str>;

/// A table of family `inet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The table's name.
    pub name: Name,
    /// The sets and maps, in the order of their creation.
    pub sets: Vec<Set>,
    /// The base chains, in the order of their creation.
    pub chains: Vec<Chain>,
}

impl Table {
    /// Returns the set or map of this name.
    #[must_use]
    pub fn set(&self, name: &str) -> Option<&Set> {
        self.sets.iter().find(|set| set.name == name)
    }

    /// Sets each counter to its value in `previous`, or to zero if the element is new.
    pub fn copy_counters_from(&mut self, previous: &Self) {
        for set in self.sets.iter_mut().filter(|set| set.has_counters) {
            let Some(previous) = previous.set(&set.name) else { continue };
            for element in &mut set.elements {
                element.counter = previous.counter(&element.key).unwrap_or_default();
            }
        }
    }

    /// Returns true if both tables handle packets in the same way. Ignores counters, because kernels before 5.7 do not
    /// have counters in sets.
    #[must_use]
    pub fn equals_ignoring_counters(&self, other: &Self) -> bool {
        let Self { name, sets, chains } = self;
        *name == other.name
            && *chains == other.chains
            && sets.len() == other.sets.len()
            && sets.iter().zip(&other.sets).all(|(set, other)| set.equals_ignoring_counters(other))
    }
}

/// A named set, or a map if it has a value type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// The set's name, unique in the table.
    pub name: Name,
    /// The type of the keys.
    pub key_type: DataType,
    /// The type of the values, or `None` if this is a set without values.
    pub value_type: Option<DataType>,
    /// True if the keys are bounds of intervals.
    pub has_intervals: bool,
    /// True if each element counts the packets that match it.
    pub has_counters: bool,
    /// The elements, sorted.
    pub elements: Vec<Element>,
}

impl Set {
    fn equals_ignoring_counters(&self, other: &Self) -> bool {
        let Self { name, key_type, value_type, has_intervals, has_counters: _, elements } = self;
        *name == other.name
            && *key_type == other.key_type
            && *value_type == other.value_type
            && *has_intervals == other.has_intervals
            && elements.len() == other.elements.len()
            && elements
                .iter()
                .zip(&other.elements)
                .all(|(element, other)| element.equals_ignoring_counter(other))
    }

    /// Returns the counter of the element with this key; `None` if the element does not exist or has no counter.
    #[must_use]
    pub fn counter(&self, key: &Value) -> Option<Counter> {
        let index = self.elements.binary_search_by_key(key, |element| element.key).ok()?;
        self.elements.get(index).filter(|_| self.has_counters).map(|element| element.counter)
    }
}

/// The type of keys or values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataType {
    /// The number of the data type in the nft program, which prints the data accordingly. The kernel only stores this
    /// number.
    pub id: u32,
    /// The length in bytes. Each part of a concatenation is padded to a multiple of 4.
    pub len: u32,
}

/// An element of a set. In a set with intervals, each element is an inclusive lower bound or an exclusive upper bound.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    /// The key, in network byte order.
    pub key: Value,
    /// True if the element is an upper bound.
    pub is_upper_bound: bool,
    /// The value, in a map.
    pub value: Option<Value>,
    /// The counter, or its initial value. Zero if the set has no counters.
    pub counter: Counter,
}

impl Element {
    fn equals_ignoring_counter(&self, other: &Self) -> bool {
        let Self { key, is_upper_bound, value, counter: _ } = self;
        *key == other.key && *is_upper_bound == other.is_upper_bound && *value == other.value
    }
}

/// The values of a counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Counter {
    /// The number of packets. Segments that the kernel has merged (GRO), or will split later (GSO), count once.
    pub packets: u64,
    /// The bytes of these packets, with IP headers.
    pub bytes: u64,
}

/// A key or a value. Its bytes are stored in the struct and not on the heap, because a table may have thousands of
/// values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value {
    bytes: [u8; Self::MAX_LEN],
    len: u8,
}

impl Value {
    /// The maximum length: an IPv6 address and a padded port.
    pub const MAX_LEN: usize = 20;

    /// Copies `bytes`. Returns `None` if `bytes` is longer than [`Self::MAX_LEN`].
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let mut value = Self { bytes: [0; Self::MAX_LEN], len: u8::try_from(bytes.len()).ok()? };
        value.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(value)
    }

    /// Returns the bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl<const LEN: usize> From<[u8; LEN]> for Value {
    fn from(array: [u8; LEN]) -> Self {
        const { assert!(LEN <= Self::MAX_LEN) };
        let mut bytes = [0; Self::MAX_LEN];
        bytes[..LEN].copy_from_slice(&array);
        #[expect(clippy::cast_possible_truncation, reason = "LEN is at most MAX_LEN")]
        Self { bytes, len: LEN as u8 }
    }
}

/// A base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The chain's name, unique in the table.
    pub name: Name,
    /// The type: `nat` or `filter`.
    pub kind: Name,
    /// The hook (linux/netfilter.h, enum `nf_inet_hooks`).
    pub hook: u32,
    /// The priority in the hook. The kernel runs the chain with the lowest priority first.
    pub priority: i32,
    /// The verdict if no rule has a verdict: [`ACCEPT`] or [`DROP`].
    pub policy: u32,
    /// The rules, in order.
    pub rules: Vec<Rule>,
}

/// `NF_DROP` (linux/netfilter.h).
pub const DROP: u32 = 0;
/// `NF_ACCEPT` (linux/netfilter.h).
pub const ACCEPT: u32 = 1;

/// The expressions of a rule, evaluated in order until one does not match.
pub type Rule = Vec<Expr>;

/// A register of 4 bytes, from 0 to 15 (`NFT_REG32_00` to `NFT_REG32_15` in enum `nft_registers`). Longer data continue in
/// the next registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reg(pub u8);

/// An expression of a rule. The names of expressions and fields are from the kernel's header
/// `linux/netfilter/nf_tables.h`: `sreg` is a source register, `dreg` is a destination register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// Loads metadata of the packet.
    Meta {
        /// The metadata to load: a number of enum `nft_meta_keys`.
        key: u32,
        /// The destination register.
        dreg: Reg,
    },
    /// Loads a property of the packet's conntrack entry.
    Ct {
        /// The property to load: a number of enum `nft_ct_keys`.
        key: u32,
        /// The destination register.
        dreg: Reg,
    },
    /// Sets the mark of the packet's conntrack entry.
    SetCtMark {
        /// The source register.
        sreg: Reg,
    },
    /// Loads a part of a header.
    Payload {
        /// The header: a number of enum `nft_payload_bases`.
        base: u32,
        /// The distance from the header's start, in bytes.
        offset: u32,
        /// The length, in bytes.
        len: u32,
        /// The destination register.
        dreg: Reg,
    },
    /// Matches if a register equals the data. If `is_equal` is false, matches if the register differs from the data.
    Cmp {
        /// The source register.
        sreg: Reg,
        /// True if the register must equal the data.
        is_equal: bool,
        /// The data.
        data: Vec<u8>,
    },
    /// Clears all bits of a register that are not in the mask.
    Mask {
        /// The register that is read and written.
        reg: Reg,
        /// The mask.
        mask: Vec<u8>,
    },
    /// Matches if the set contains the key. If `is_inverted` is true, matches if the set does not contain the key.
    Lookup {
        /// The set's name.
        set: Name,
        /// The register that holds the key.
        sreg: Reg,
        /// The register that receives the value if the set is a map.
        dreg: Option<Reg>,
        /// True if the expression matches keys that are not in the set.
        is_inverted: bool,
    },
    /// Translates the destination of the flow.
    Dnat {
        /// `NFPROTO_IPV4` (2) or `NFPROTO_IPV6` (10).
        family: u32,
        /// The register with the address.
        address: Reg,
        /// The register with the port.
        port: Reg,
    },
    /// Translates the source of the flow to the address of the outgoing interface.
    Masquerade,
    /// Ends the rule with a verdict: [`ACCEPT`] or [`DROP`].
    Verdict(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(has_counters: bool, elements: &[(u8, u64)]) -> Table {
        let element = |&(key, packets): &(u8, u64)| Element {
            key: Value::from([key]),
            is_upper_bound: false,
            value: None,
            counter: Counter { packets, bytes: 0 },
        };
        let set = Set {
            name: "ports".into(),
            key_type: DataType { id: 1, len: 1 },
            value_type: None,
            has_intervals: false,
            has_counters,
            elements: elements.iter().map(element).collect(),
        };
        Table { name: "test".into(), sets: vec![set], chains: Vec::new() }
    }

    #[test]
    fn comparison_of_tables_ignores_counters() {
        let counted_table = table(true, &[(1, 7)]);
        assert!(counted_table.equals_ignoring_counters(&table(true, &[(1, 8)])));
        assert!(counted_table.equals_ignoring_counters(&table(false, &[(1, 0)])));
        assert!(!counted_table.equals_ignoring_counters(&table(true, &[(2, 7)])));
        assert!(!counted_table.equals_ignoring_counters(&table(true, &[(1, 7), (2, 0)])));
    }

    #[test]
    fn counters_are_copied_to_elements_with_the_same_key() {
        let mut replacement = table(true, &[(1, 0), (3, 0)]);
        replacement.copy_counters_from(&table(true, &[(1, 7), (2, 8)]));
        assert_eq!(replacement, table(true, &[(1, 7), (3, 0)]));
    }
}
