//! Named sets and maps, and their elements. Pure.

use std::num::NonZeroU32;

use super::data_type::{DataType, ValueType};
use super::value::{Counter, Name, Value};
use super::verdict::Verdict;

/// A named set, or a map if it has a value type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// The set's name, unique in the table.
    pub name: Name,
    /// The fixed properties.
    pub definition: SetDefinition,
    /// The elements, sorted, without duplicate keys.
    pub elements: Vec<Element>,
}

/// The fixed properties of a set. To change one of the properties, the set must be created again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetDefinition {
    /// The type of the keys.
    pub key_type: DataType,
    /// The type of the values, or `None` if this is a set without values.
    pub value_type: Option<ValueType>,
    /// The way in which keys match.
    pub matching: KeyMatching,
    /// The maximum number of elements; `None` means no limit. With a limit, the kernel chooses a hash table of fixed
    /// size. A hash table of fixed size is the fastest type of set (`nft_hash_select_ops`,
    /// `net/netfilter/nft_set_hash.c`). The kernel rejects elements beyond the limit with the error `ENFILE`.
    pub max_elements: Option<NonZeroU32>,
    /// True if each element counts the packets that match it.
    pub has_counters: bool,
    /// The properties of a set whose elements are added by packets.
    pub dynamic: Option<DynamicProperties>,
}

/// The way in which the keys of a set match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyMatching {
    /// A key matches an equal key. The kernel uses a hash table, whose elements can change while packets look up other
    /// elements.
    Exact,
    /// A key matches the interval that contains it. The kernel uses a tree (`NFT_SET_INTERVAL`). Each element is an
    /// interval. While a transaction is executed, lookups in a *new* set of this kind may find nothing.
    Intervals,
    /// Each part of a concatenated key matches an interval that contains it (`NFT_SET_INTERVAL` and `NFT_SET_CONCAT`,
    /// Linux 5.6). The numbers are the lengths of the parts in bytes, without padding. Each element is an interval.
    IntervalsOfParts(Vec<u8>),
}

/// The properties of a set whose elements are added by packets (flag `NFT_SET_EVAL`). A set with this flag must have a
/// limit ([`SetDefinition::max_elements`]); otherwise the kernel does not add elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DynamicProperties {
    /// The time after which an element expires if no packet renews the element (`NFTA_SET_TIMEOUT`). Elements without a
    /// timeout never expire.
    pub timeout_seconds: Option<NonZeroU32>,
}

impl SetDefinition {
    /// Creates the definition of a set with keys of this type. The keys match exactly.
    #[must_use]
    pub const fn set(key_type: DataType) -> Self {
        Self {
            key_type,
            value_type: None,
            matching: KeyMatching::Exact,
            max_elements: None,
            has_counters: false,
            dynamic: None,
        }
    }

    /// Creates the definition of a map from keys to data. The keys match exactly.
    #[must_use]
    pub fn map(key_type: DataType, value_type: DataType) -> Self {
        Self { value_type: Some(ValueType::Data(value_type)), ..Self::set(key_type) }
    }

    /// Creates the definition of a map from keys to verdicts. The keys match exactly.
    #[must_use]
    pub fn verdict_map(key_type: DataType) -> Self {
        Self { value_type: Some(ValueType::Verdict), ..Self::set(key_type) }
    }

    /// Creates the definition of a set or map whose elements are added by packets. The value type is the type of the
    /// map's data, or `None` for a set.
    #[must_use]
    pub fn dynamic(
        key_type: DataType,
        value_type: Option<DataType>,
        max_elements: NonZeroU32,
        timeout_seconds: Option<NonZeroU32>,
    ) -> Self {
        Self {
            value_type: value_type.map(ValueType::Data),
            max_elements: Some(max_elements),
            dynamic: Some(DynamicProperties { timeout_seconds }),
            ..Self::set(key_type)
        }
    }

    /// Returns the definition with this way of matching.
    #[must_use]
    pub fn with_matching(self, matching: KeyMatching) -> Self {
        Self { matching, ..self }
    }

    /// Returns the definition with a limit of the number of elements; 0 means no limit.
    #[must_use]
    pub fn with_max_elements(self, max_elements: u32) -> Self {
        Self { max_elements: NonZeroU32::new(max_elements), ..self }
    }

    /// Returns the definition with counters: each element counts packets.
    #[must_use]
    pub fn with_counters(self) -> Self {
        Self { has_counters: true, ..self }
    }

    /// Returns true if the definitions are equal, or differ only in counters. Kernels before 5.7 have no counters in
    /// sets.
    #[must_use]
    pub fn equals_ignoring_counters(&self, other: &Self) -> bool {
        let Self { key_type, value_type, matching, max_elements, has_counters: _, dynamic } = self;
        *key_type == other.key_type
            && *value_type == other.value_type
            && *matching == other.matching
            && *max_elements == other.max_elements
            && *dynamic == other.dynamic
    }
}

impl Set {
    /// Creates a set with these elements, in any order. If several elements have the same key, the set contains only
    /// one of these elements.
    #[must_use]
    pub fn new(name: impl Into<Name>, definition: SetDefinition, mut elements: Vec<Element>) -> Self {
        elements.sort_unstable();
        elements.dedup_by(|element, previous| element.key == previous.key);
        Self { name: name.into(), definition, elements }
    }

    /// Returns true if both sets match the same packets. Ignores counters, and the elements of dynamic sets, because
    /// packets change both.
    #[must_use]
    pub fn equals_ignoring_state(&self, other: &Self) -> bool {
        let Self { name, definition, elements } = self;
        let has_equal_elements = || {
            elements.len() == other.elements.len()
                && elements
                    .iter()
                    .zip(&other.elements)
                    .all(|(element, other)| element.equals_ignoring_state(other))
        };
        *name == other.name
            && definition.equals_ignoring_counters(&other.definition)
            && (definition.dynamic.is_some() || has_equal_elements())
    }

    /// Returns the element with this key; `None` if the element does not exist.
    #[must_use]
    pub fn get(&self, key: &Value) -> Option<&Element> {
        let index = self.elements.binary_search_by_key(key, |element| element.key).ok()?;
        self.elements.get(index)
    }

    /// Returns the counter of the element with this key, if the element exists and has a counter.
    #[must_use]
    pub fn counter(&self, key: &Value) -> Option<Counter> {
        self.get(key).filter(|_| self.definition.has_counters).map(|element| element.counter)
    }
}

/// An element of a set. Fields that few elements have are boxed to save memory, because a table may have thousands of
/// elements.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    /// The key, or the lowest key of an interval.
    pub key: Value,
    /// The highest key that an interval includes. `None` in sets that match exactly.
    pub last_key: Option<Box<Value>>,
    /// The value of the element, if the set is a map.
    pub value: Option<ElementValue>,
    /// The counter of the element. Zero if the set has no counters.
    pub counter: Counter,
    /// The time until the element expires; `None` if the element does not expire.
    pub lifetime: Option<Box<Lifetime>>,
    /// The comment that the nft program prints.
    pub comment: Option<Box<Name>>,
}

/// The value of an element of a map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ElementValue {
    /// Data of a data map.
    Data(Value),
    /// A verdict of a verdict map.
    Verdict(Verdict),
}

/// The time until an element of a dynamic set expires. The kernel rounds both numbers to its timer's resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lifetime {
    /// The time after which the element expires if no packet renews the element (`NFTA_SET_ELEM_TIMEOUT`). 0 means the
    /// timeout of the set, because newer kernels do not list this timeout with each element.
    pub timeout_millis: u32,
    /// The time until the element expires, from now (`NFTA_SET_ELEM_EXPIRATION`).
    pub remaining_millis: u32,
}

impl Element {
    /// Creates an element of a set that matches exactly.
    #[must_use]
    pub const fn new(key: Value) -> Self {
        let counter = Counter { packets: 0, bytes: 0 };
        Self { key, last_key: None, value: None, counter, lifetime: None, comment: None }
    }

    /// Creates an interval that includes both keys.
    #[must_use]
    pub fn interval(first: Value, last: Value) -> Self {
        Self { last_key: Some(Box::new(last)), ..Self::new(first) }
    }

    /// Returns the element with a value, for a map.
    #[must_use]
    pub fn with_value(self, value: Value) -> Self {
        Self { value: Some(ElementValue::Data(value)), ..self }
    }

    /// Returns the element with a verdict, for a verdict map.
    #[must_use]
    pub fn with_verdict(self, verdict: Verdict) -> Self {
        Self { value: Some(ElementValue::Verdict(verdict)), ..self }
    }

    /// Returns the element with a comment of at most 250 bytes.
    #[must_use]
    pub fn with_comment(self, comment: impl Into<Name>) -> Self {
        Self { comment: Some(Box::new(comment.into())), ..self }
    }

    /// Returns the chain that receives the packets that match the element.
    #[must_use]
    pub fn target_chain(&self) -> Option<&Name> {
        match &self.value {
            Some(ElementValue::Verdict(verdict)) => verdict.target_chain(),
            _ => None,
        }
    }

    /// Returns true if both elements match the same packets and have the same value and comment. Ignores counters and
    /// lifetimes.
    #[must_use]
    pub fn equals_ignoring_state(&self, other: &Self) -> bool {
        let Self { key, last_key, value, counter: _, lifetime: _, comment } = self;
        *key == other.key && *last_key == other.last_key && *value == other.value && *comment == other.comment
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn element_of_a_large_table_is_small() {
        assert!(size_of::<Element>() <= 112, "{}", size_of::<Element>());
    }
}
