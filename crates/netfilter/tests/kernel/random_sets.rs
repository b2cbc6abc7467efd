//! Builds random sets with all kinds of keys, values and matching.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use netfilter::nft::model::{
    Counter, DataType, Element, ElementValue, KeyMatching, Name, Set, SetDefinition, Value, ValueType,
    Verdict,
};
use proptest::prelude::*;

/// The number of kinds of sets.
const SHAPE_COUNT: usize = 16;
/// The number of set names.
pub(crate) const SET_COUNT: usize = 6;

/// The random choices for one set. Sets with the same shape, limit and counters have the same definition.
#[derive(Clone, Debug)]
pub(crate) struct SetSeed {
    shape: usize,
    has_limit: bool,
    has_counters: bool,
    /// The elements: a number for each key, and a number for its value.
    elements: BTreeMap<u8, u8>,
}

pub(crate) fn any_set_seed() -> impl Strategy<Value = SetSeed> {
    let elements = prop::collection::btree_map(0..30_u8, any::<u8>(), 0..20);
    (0..SHAPE_COUNT, any::<bool>(), any::<bool>(), elements).prop_map(
        |(shape, has_limit, has_counters, elements)| SetSeed { shape, has_limit, has_counters, elements },
    )
}

/// Returns a seed with the same definition of the set, and with different elements.
pub(crate) fn with_other_elements(seed: SetSeed) -> impl Strategy<Value = SetSeed> {
    let changes = prop::collection::btree_map(0..30_u8, any::<Option<u8>>(), 0..10);
    changes.prop_map(move |changes| {
        let mut seed = seed.clone();
        for (key, value) in changes {
            match value {
                Some(value) => seed.elements.insert(key, value),
                None => seed.elements.remove(&key),
            };
        }
        seed
    })
}

impl SetSeed {
    /// Returns a seed with a different limit. The definition of the set differs, but the rules that use the set are the
    /// same.
    pub(crate) fn with_other_limit(self) -> Self {
        Self { has_limit: !self.has_limit, ..self }
    }
}

pub(crate) fn set_name(slot: usize) -> Name {
    format!("set{slot}").into()
}

impl SetSeed {
    /// Builds the set. Verdicts of the elements lead to the chains `target_chains`.
    pub(crate) fn build(&self, slot: usize, target_chains: &[Name]) -> Set {
        let (parts, definition) = shape(self.shape);
        let is_dynamic = definition.dynamic.is_some();
        let limit = if self.has_limit && !is_dynamic { 64 } else { 0 };
        let definition = if is_dynamic { definition } else { definition.with_max_elements(limit) };
        let has_counters = self.has_counters && definition.matching == KeyMatching::Exact && !is_dynamic;
        let definition = SetDefinition { has_counters, ..definition };
        let build_element = |(key, value): (&u8, &u8)| {
            let counter = Counter { packets: u64::from(*value), bytes: u64::from(*value) << 33 };
            Element {
                value: build_value(&definition, *value, target_chains),
                counter: if has_counters { counter } else { Counter::default() },
                comment: value.is_multiple_of(3).then(|| Box::new(format!("comment {value}").into())),
                ..build_key(&parts, &definition.matching, *key, *value)
            }
        };
        // Packets add the elements of dynamic sets.
        let elements = self.elements.iter().filter(|_| !is_dynamic).map(build_element).collect();
        Set::new(set_name(slot), definition, elements)
    }
}

/// Returns the parts of the key, and the definition.
fn shape(shape: usize) -> (Vec<DataType>, SetDefinition) {
    use DataType as T;
    let frontend = |address| vec![address, T::PROTOCOL, T::PORT];
    let slot = vec![T::PROTOCOL, T::PORT, T::NUMBER];
    let map = |parts: Vec<T>, value: &[T]| {
        let definition = SetDefinition::map(T::concat(&parts), T::concat(value));
        (parts, definition)
    };
    let set = |parts: Vec<T>| {
        let definition = SetDefinition::set(T::concat(&parts));
        (parts, definition)
    };
    let verdict_map = |parts: Vec<T>| {
        let definition = SetDefinition::verdict_map(T::concat(&parts));
        (parts, definition)
    };
    let intervals = |(parts, definition): (Vec<T>, SetDefinition)| {
        (parts, definition.with_matching(KeyMatching::Intervals))
    };
    let intervals_of_parts = |(parts, definition): (Vec<T>, SetDefinition)| {
        let lens = parts.iter().map(|part| u8::try_from(part.length).unwrap()).collect();
        (parts, definition.with_matching(KeyMatching::IntervalsOfParts(lens)))
    };
    let dynamic = |parts: Vec<T>, value: Option<T>, timeout: u32| {
        let key_type = T::concat(&parts);
        let max_elements = NonZeroU32::new(1000).unwrap();
        (parts, SetDefinition::dynamic(key_type, value, max_elements, NonZeroU32::new(timeout)))
    };
    match shape {
        0 => set(vec![T::IPV4]),
        1 => set(vec![T::IPV6]),
        2 => map(slot, &[T::IPV4, T::PORT]),
        3 => map(slot, &[T::IPV6, T::PORT]),
        4 => verdict_map(frontend(T::IPV4)),
        5 => verdict_map(frontend(T::IPV6)),
        6 => intervals(set(vec![T::IPV4])),
        7 => intervals(map(vec![T::IPV6], &[T::MARK])),
        8 => intervals(verdict_map(vec![T::IPV4])),
        9 => intervals_of_parts(set(vec![T::PROTOCOL, T::PORT, T::IPV4])),
        10 => intervals_of_parts(map(vec![T::PROTOCOL, T::PORT, T::IPV6], &[T::MARK])),
        11 => dynamic(vec![T::IPV4, T::PROTOCOL, T::PORT], None, 10),
        12 => dynamic(frontend(T::IPV6), Some(T::concat(&[T::IPV6, T::PORT])), 10_800),
        13 => map(vec![T::MAC], &[T::ZONE]),
        14 => map(vec![T::MARK], &[T::MAC]),
        _ => set(vec![T::PORT]),
    }
}

/// Builds an element with a key or interval. Elements with different numbers have different keys and do not overlap.
fn build_key(parts: &[DataType], matching: &KeyMatching, number: u8, width: u8) -> Element {
    let part_bytes = |part: &DataType, low: u8| {
        let mut bytes = vec![0; usize::try_from(part.length).unwrap()];
        *bytes.last_mut().unwrap() = low;
        if let [.., high, _] = bytes.as_mut_slice() {
            *high = number;
        } else {
            bytes[0] = number;
        }
        bytes
    };
    let build_value = |low: u8| {
        let parts: Vec<_> = parts.iter().map(|part| part_bytes(part, low)).collect();
        Value::concat(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap()
    };
    match matching {
        KeyMatching::Exact => Element::new(build_value(0)),
        // The widest possible interval reaches up to the interval of the next number.
        _ => Element::interval(build_value(0), build_value(if width > 128 { 255 } else { width })),
    }
}

fn build_value(definition: &SetDefinition, number: u8, target_chains: &[Name]) -> Option<ElementValue> {
    Some(match definition.value_type? {
        ValueType::Data(data_type) => {
            let mut bytes = vec![0; usize::try_from(data_type.length).unwrap()];
            bytes[0] = number;
            ElementValue::Data(Value::from_slice(&bytes).unwrap())
        }
        ValueType::Verdict => ElementValue::Verdict(build_verdict(number, target_chains)),
    })
}

/// Returns a verdict. Jumps and gotos lead to one of the chains `target_chains`.
pub(crate) fn build_verdict(number: u8, target_chains: &[Name]) -> Verdict {
    let target = target_chains.get(usize::from(number / 8) % target_chains.len().max(1));
    match (number % 6, target) {
        (0, Some(target)) => Verdict::goto(target.clone()),
        (1, Some(target)) => Verdict::jump(target.clone()),
        (0 | 2, _) => Verdict::Drop,
        (1 | 3, _) => Verdict::Return,
        (4, _) => Verdict::Continue,
        _ => Verdict::Accept,
    }
}
