//! Encodes and decodes the elements of sets. Pure.

use super::abi;
use super::comment::{decode_comment, encode_comment};
use super::expr;
use super::model::{Counter, Element, ElementValue, KeyMatching, Lifetime, Set, Value};
use crate::netlink::{Attr, Attrs};

/// Appends an element, with its value, counter, lifetime and comment.
///
/// The kernel represents an interval of a simple key by two elements: the lowest key, and the key after the highest
/// key.
pub(super) fn encode_element(list: &mut Attrs<'_>, set: &Set, element: &Element) {
    list.push_nested(abi::NFTA_LIST_ELEM, |item| {
        encode_key(item, set, element);
        match &element.value {
            Some(ElementValue::Data(value)) => {
                expr::encode_value(item, abi::element::NFTA_SET_ELEM_DATA, value);
            }
            Some(ElementValue::Verdict(verdict)) => {
                expr::encode_verdict(item, abi::element::NFTA_SET_ELEM_DATA, verdict);
            }
            None => {}
        }
        // If a set has counters and the message contains no counter for an element, the kernel creates a counter with
        // the value 0.
        if element.counter != Counter::default() {
            expr::encode_counter(item, abi::element::NFTA_SET_ELEM_EXPR, element.counter);
        }
        if let Some(lifetime) = &element.lifetime {
            if lifetime.timeout_millis != 0 {
                item.push_be64(abi::element::NFTA_SET_ELEM_TIMEOUT, lifetime.timeout_millis.into());
            }
            item.push_be64(abi::element::NFTA_SET_ELEM_EXPIRATION, lifetime.remaining_millis.into());
        }
        if let Some(comment) = &element.comment {
            encode_comment(item, abi::element::NFTA_SET_ELEM_USERDATA, comment);
        }
    });
    encode_upper_bound(list, set, element);
}

/// Appends only the key of an element. The key is enough to delete the element.
pub(super) fn encode_element_key(list: &mut Attrs<'_>, set: &Set, element: &Element) {
    list.push_nested(abi::NFTA_LIST_ELEM, |item| encode_key(item, set, element));
    encode_upper_bound(list, set, element);
}

fn encode_key(item: &mut Attrs<'_>, set: &Set, element: &Element) {
    expr::encode_value(item, abi::element::NFTA_SET_ELEM_KEY, &element.key);
    if let (KeyMatching::IntervalsOfParts(_), Some(last_key)) = (&set.definition.matching, &element.last_key)
    {
        expr::encode_value(item, abi::element::NFTA_SET_ELEM_KEY_END, last_key);
    }
}

fn encode_upper_bound(list: &mut Attrs<'_>, set: &Set, element: &Element) {
    if set.definition.matching != KeyMatching::Intervals {
        return;
    }
    // An upper bound is exclusive, so an interval up to the highest key has no upper bound.
    if let Some(upper_bound) = element.last_key.as_ref().and_then(|last_key| last_key.next()) {
        list.push_nested(abi::NFTA_LIST_ELEM, |item| {
            expr::encode_value(item, abi::element::NFTA_SET_ELEM_KEY, &upper_bound);
            item.push_be32(abi::element::NFTA_SET_ELEM_FLAGS, abi::element::FLAG_INTERVAL_END);
        });
    }
}

/// An element as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ListedElement {
    /// An element. In a set with intervals of simple keys, the highest key of the element is unknown.
    Element(Element),
    /// The key after the highest key of an interval.
    UpperBound(Value),
}

/// Decodes an element. Returns `None` if the element has a property that this crate cannot encode.
pub(super) fn decode_element(item: &[u8]) -> Option<ListedElement> {
    let key = expr::decode_value(item, abi::element::NFTA_SET_ELEM_KEY)?;
    match Attr::find_be32(item, abi::element::NFTA_SET_ELEM_FLAGS).unwrap_or(0) {
        0 => {}
        abi::element::FLAG_INTERVAL_END => return Some(ListedElement::UpperBound(key)),
        _ => return None,
    }
    let last_key = match Attr::find(item, abi::element::NFTA_SET_ELEM_KEY_END) {
        Some(_) => Some(Box::new(expr::decode_value(item, abi::element::NFTA_SET_ELEM_KEY_END)?)),
        None => None,
    };
    let value = match Attr::find(item, abi::element::NFTA_SET_ELEM_DATA) {
        Some(_) => Some(decode_element_value(item)?),
        None => None,
    };
    let counter = match Attr::find(item, abi::element::NFTA_SET_ELEM_EXPR) {
        Some(expr) => expr::decode_counter(expr)?,
        None => Counter::default(),
    };
    let millis = |kind| Attr::find_be64(item, kind).map(|millis| u32::try_from(millis).unwrap_or(u32::MAX));
    let lifetime = millis(abi::element::NFTA_SET_ELEM_EXPIRATION).map(|remaining_millis| {
        let timeout_millis = millis(abi::element::NFTA_SET_ELEM_TIMEOUT).unwrap_or(0);
        Box::new(Lifetime { timeout_millis, remaining_millis })
    });
    let comment = match Attr::find(item, abi::element::NFTA_SET_ELEM_USERDATA) {
        Some(user_data) => Some(Box::new(decode_comment(user_data)?)),
        None => None,
    };
    let has_one_expression = Attr::find(item, abi::element::NFTA_SET_ELEM_EXPRESSIONS).is_none();
    let element = Element { key, last_key, value, counter, lifetime, comment };
    has_one_expression.then_some(ListedElement::Element(element))
}

fn decode_element_value(item: &[u8]) -> Option<ElementValue> {
    match expr::decode_value(item, abi::element::NFTA_SET_ELEM_DATA) {
        Some(value) => Some(ElementValue::Data(value)),
        None => expr::decode_verdict(item, abi::element::NFTA_SET_ELEM_DATA).map(ElementValue::Verdict),
    }
}

/// Completes the elements of a set with intervals of simple keys. The kernel does not list the highest key of an
/// interval. Each interval ends before the next bound. `elements` and `upper_bounds` are in any order.
pub(super) fn complete_intervals(elements: &mut [Element], upper_bounds: &mut [Value]) {
    elements.sort_unstable_by_key(|element| element.key);
    upper_bounds.sort_unstable();
    let next_keys: Vec<_> = elements.iter().skip(1).map(|element| Some(element.key)).chain([None]).collect();
    for (element, next_key) in elements.iter_mut().zip(next_keys) {
        let index = upper_bounds.partition_point(|upper_bound| *upper_bound <= element.key);
        let next_bound = upper_bounds.get(index).copied().into_iter().chain(next_key).min();
        element.last_key = Some(Box::new(match next_bound {
            Some(upper_bound) => upper_bound.previous().unwrap_or(element.key),
            None => element.key.max_of_same_length(),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_ends_before_the_next_bound() {
        let key = |number: u8| Value::from([number]);
        let mut elements = [30, 10, 20].map(|number| Element::new(key(number)));
        complete_intervals(&mut elements, &mut [key(25), key(20)]);
        let expected = [(10, 19), (20, 24), (30, 255)];
        assert_eq!(elements, expected.map(|(first, last)| Element::interval(key(first), key(last))));
    }
}
