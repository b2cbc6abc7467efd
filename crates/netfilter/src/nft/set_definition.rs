//! Encodes and decodes the definitions of sets. Pure.

use std::num::NonZeroU32;

use super::abi;
use super::expr;
use super::model::{DataType, DynamicProperties, KeyMatching, SetDefinition, ValueType};
use crate::netlink::{Attr, Attrs};

/// The number of milliseconds in a second: the kernel's timeouts are in milliseconds.
const MILLIS_PER_SECOND: u64 = 1000;
/// The number of bytes that a number occupies in user data: its type, its length and four bytes.
const USER_DATA_NUMBER_LENGTH: usize = 6;

/// Returns the set's flags (enum `nft_set_flags`).
pub(super) fn set_flags(definition: &SetDefinition) -> u32 {
    let matching_flags = match definition.matching {
        KeyMatching::Exact => 0,
        KeyMatching::Intervals => abi::set::FLAG_INTERVAL,
        KeyMatching::IntervalsOfParts(_) => abi::set::FLAG_INTERVAL | abi::set::FLAG_CONCAT,
    };
    let map_flag = if definition.value_type.is_some() { abi::set::FLAG_MAP } else { 0 };
    let dynamic_flags = match definition.dynamic {
        None => 0,
        Some(DynamicProperties { timeout_seconds: None }) => abi::set::FLAG_EVAL,
        Some(DynamicProperties { timeout_seconds: Some(_) }) => abi::set::FLAG_EVAL | abi::set::FLAG_TIMEOUT,
    };
    matching_flags | map_flag | dynamic_flags
}

/// Appends user data, so that the nft program prints numbers in the byte order of the machine correctly. The kernel
/// ignores the user data.
pub(super) fn encode_byte_order(attrs: &mut Attrs<'_>, definition: &SetDefinition) {
    let value_type = match definition.value_type {
        Some(ValueType::Data(data_type)) => Some(data_type),
        Some(ValueType::Verdict) | None => None,
    };
    let data_types = [
        (abi::set::USER_DATA_KEY_ORDER, Some(definition.key_type)),
        (abi::set::USER_DATA_VALUE_ORDER, value_type),
    ];
    // The buffer is not on the heap, because a small block would prevent the allocator from returning the memory of the
    // table to the system.
    let mut user_data = [0; 2 * USER_DATA_NUMBER_LENGTH];
    let mut length = 0;
    for (kind, data_type) in data_types {
        if data_type.is_some_and(DataType::has_machine_order) {
            // User data consist of a type, a length and a number.
            let [a, b, c, d] = abi::set::MACHINE_ORDER.to_ne_bytes();
            user_data[length..length + USER_DATA_NUMBER_LENGTH].copy_from_slice(&[kind, 4, a, b, c, d]);
            length += USER_DATA_NUMBER_LENGTH;
        }
    }
    if length > 0 {
        attrs.push_bytes(abi::set::NFTA_SET_USERDATA, &user_data[..length]);
    }
}

/// Appends the size, the lengths of the key's parts, and the timeout. Omits parts with their default value.
pub(super) fn encode_description(attrs: &mut Attrs<'_>, definition: &SetDefinition) {
    let parts: &[u8] = match &definition.matching {
        KeyMatching::IntervalsOfParts(lens) => lens,
        KeyMatching::Exact | KeyMatching::Intervals => &[],
    };
    if definition.max_elements.is_some() || !parts.is_empty() {
        attrs.push_nested(abi::set::NFTA_SET_DESC, |description| {
            if let Some(max_elements) = definition.max_elements {
                description.push_be32(abi::set_description::NFTA_SET_DESC_SIZE, max_elements.get());
            }
            if !parts.is_empty() {
                description.push_nested(abi::set_description::NFTA_SET_DESC_CONCAT, |list| {
                    for length in parts {
                        list.push_nested(abi::NFTA_LIST_ELEM, |field| {
                            field.push_be32(abi::field::NFTA_SET_FIELD_LEN, u32::from(*length));
                        });
                    }
                });
            }
        });
    }
    if let Some(DynamicProperties { timeout_seconds: Some(seconds) }) = definition.dynamic {
        attrs.push_be64(abi::set::NFTA_SET_TIMEOUT, u64::from(seconds.get()) * MILLIS_PER_SECOND);
    }
}

/// Decodes the definition of a set. Returns `None` if the set has a property that this crate cannot encode.
pub(super) fn decode_definition(attrs: &[u8]) -> Option<SetDefinition> {
    let number = |kind| Attr::find_be32(attrs, kind);
    let flags = number(abi::set::NFTA_SET_FLAGS).unwrap_or(0);
    let description = Attr::find(attrs, abi::set::NFTA_SET_DESC).unwrap_or_default();
    let value_type = match number(abi::set::NFTA_SET_DATA_TYPE).filter(|_| flags & abi::set::FLAG_MAP != 0) {
        None => None,
        Some(abi::data::TYPE_VERDICT) => Some(ValueType::Verdict),
        Some(id) => Some(ValueType::Data(DataType { id, length: number(abi::set::NFTA_SET_DATA_LEN)? })),
    };
    let matching = if flags & abi::set::FLAG_CONCAT != 0 {
        KeyMatching::IntervalsOfParts(decode_parts(description)?)
    } else if flags & abi::set::FLAG_INTERVAL != 0 {
        KeyMatching::Intervals
    } else {
        KeyMatching::Exact
    };
    let timeout_seconds = expr::decode_seconds(attrs, abi::set::NFTA_SET_TIMEOUT).ok()?;
    let definition = SetDefinition {
        key_type: DataType {
            id: number(abi::set::NFTA_SET_KEY_TYPE)?,
            length: number(abi::set::NFTA_SET_KEY_LEN)?,
        },
        value_type,
        matching,
        max_elements: Attr::find_be32(description, abi::set_description::NFTA_SET_DESC_SIZE)
            .and_then(NonZeroU32::new),
        has_counters: match Attr::find(attrs, abi::set::NFTA_SET_EXPR) {
            Some(expr) => expr::decode_counter(expr).map(|_| true)?,
            None => false,
        },
        dynamic: (flags & abi::set::FLAG_EVAL != 0).then_some(DynamicProperties { timeout_seconds }),
    };
    // If a set has several expressions, the kernel lists the expressions in the attribute `NFTA_SET_EXPRESSIONS`.
    let has_one_expression = Attr::find(attrs, abi::set::NFTA_SET_EXPRESSIONS).is_none();
    (has_one_expression && set_flags(&definition) == flags).then_some(definition)
}

fn decode_parts(description: &[u8]) -> Option<Vec<u8>> {
    let list = Attr::find(description, abi::set_description::NFTA_SET_DESC_CONCAT)?;
    let decode =
        |field: Attr<'_>| u8::try_from(Attr::find_be32(field.value, abi::field::NFTA_SET_FIELD_LEN)?).ok();
    Attr::parse_all(list).map(decode).collect()
}
