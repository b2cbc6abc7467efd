//! Checks that a table is consistent, to find mistakes before the kernel rejects the table. Pure.

use std::collections::BTreeSet;

use super::chain::{Chain, Hook};
use super::data_type::ValueType;
use super::expr::{Expr, LookupResult, Reg};
use super::set::{Element, ElementValue, KeyMatching, Set};
use super::table::{Table, TableFamily};
use super::value::{Name, Value};

/// The maximum length of a name (`NFT_NAME_MAXLEN`, `linux/netfilter/nf_tables.h`), without the zero byte.
const MAX_NAME_LENGTH: usize = 255;
/// The maximum length of a comment: `NFT_USERDATA_MAXLEN` without type, length and zero byte.
const MAX_COMMENT_LENGTH: usize = 250;
/// The number of registers (`NFT_REG32_COUNT`).
const REGISTER_COUNT: u32 = 16;

/// The reason why a table is not consistent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// A name is empty, too long or not unique.
    #[error(
        "the name {0:?} is not valid: a name is unique and has 1 to {MAX_NAME_LENGTH} bytes without zero bytes"
    )]
    Name(Name),
    /// The definition of a set contradicts itself.
    #[error("the definition of the set {set} is not valid: {reason}")]
    Definition {
        /// The set's name.
        set: Name,
        /// The contradiction.
        reason: &'static str,
    },
    /// An element contradicts the definition of its set.
    #[error("an element of the set {set} is not valid: {reason}: {element:?}")]
    Element {
        /// The set's name.
        set: Name,
        /// The contradiction.
        reason: &'static str,
        /// The element.
        element: Box<Element>,
    },
    /// A chain or one of its rules contradicts the rest of the table.
    #[error("the chain {chain} is not valid: {reason}")]
    Chain {
        /// The chain's name.
        chain: Name,
        /// The contradiction.
        reason: &'static str,
    },
}

impl Table {
    /// Checks that the table is consistent. The kernel may still lack a feature, or reject a rule in this hook.
    pub fn check(&self) -> Result<(), TableError> {
        check_names([&self.id.name])?;
        check_names(self.sets.iter().map(|set| &set.name))?;
        check_names(self.chains.iter().map(|chain| &chain.name))?;
        for set in &self.sets {
            check_definition(set)
                .map_err(|reason| TableError::Definition { set: set.name.clone(), reason })?;
            let mut previous = None;
            for element in &set.elements {
                self.check_element(set, element, previous).map_err(|reason| TableError::Element {
                    set: set.name.clone(),
                    reason,
                    element: Box::new(element.clone()),
                })?;
                previous = Some(element);
            }
        }
        for chain in &self.chains {
            self.check_chain(chain)
                .map_err(|reason| TableError::Chain { chain: chain.name.clone(), reason })?;
        }
        Ok(())
    }

    fn check_element(
        &self,
        set: &Set,
        element: &Element,
        previous: Option<&Element>,
    ) -> Result<(), &'static str> {
        let definition = &set.definition;
        if element.key.byte_length() != definition.key_type.length {
            return Err("the key does not have the length of the key type");
        }
        if previous.is_some_and(|previous| previous.key >= element.key) {
            return Err("the elements are not sorted, or two elements have the same key");
        }
        check_interval(&definition.matching, element, previous)?;
        match (definition.value_type, &element.value) {
            (None, None) | (Some(ValueType::Verdict), Some(ElementValue::Verdict(_))) => {}
            (Some(ValueType::Data(data_type)), Some(ElementValue::Data(value))) => {
                if value.byte_length() != data_type.length {
                    return Err("the value does not have the length of the value type");
                }
            }
            _ => return Err("the value does not have the value type of the set"),
        }
        if element.lifetime.is_some() && definition.dynamic.is_none() {
            return Err("only elements of dynamic sets expire");
        }
        if element.comment.as_ref().is_some_and(|comment| comment.len() > MAX_COMMENT_LENGTH) {
            return Err("the comment is too long");
        }
        element.target_chain().map_or(Ok(()), |chain| self.check_target(chain))
    }

    fn check_target(&self, name: &Name) -> Result<(), &'static str> {
        match self.chain(name) {
            Some(chain) if chain.base.is_none() => Ok(()),
            Some(_) => Err("the target of a jump or goto is a base chain"),
            None => Err("the target of a jump or goto is missing"),
        }
    }

    fn check_chain(&self, chain: &Chain) -> Result<(), &'static str> {
        if let Some(base) = &chain.base {
            if base.hook.is_netdev() != (self.id.family == TableFamily::Netdev) {
                return Err("the hook does not exist in the family of the table");
            }
            if base.hook.is_netdev() && base.hook.interfaces().is_empty() {
                return Err("a chain of family netdev needs an interface");
            }
            if let Hook::Ingress(names) | Hook::Egress(names) = &base.hook
                && names.iter().any(|name| name.is_empty() || Value::from_interface_name(name).is_none())
            {
                return Err("the name of an interface has 1 to 15 bytes");
            }
        }
        for rule in &chain.rules {
            if rule.comment.as_ref().is_some_and(|comment| comment.len() > MAX_COMMENT_LENGTH) {
                return Err("a comment is too long");
            }
            for expr in &rule.expressions {
                self.check_expr(expr)?;
            }
        }
        Ok(())
    }

    fn check_expr(&self, expr: &Expr) -> Result<(), &'static str> {
        if registers(expr).into_iter().any(|(reg, length)| u32::from(reg.0) * 4 + length > REGISTER_COUNT * 4)
        {
            return Err("an expression uses a register that does not exist");
        }
        if let Some(name) = expr.set_name() {
            let definition = &self.set(name).ok_or("a rule uses a set that is missing")?.definition;
            let matches_use = match expr {
                Expr::Lookup { result: LookupResult::Value(_), .. } => {
                    matches!(definition.value_type, Some(ValueType::Data(_)))
                }
                Expr::Lookup { result: LookupResult::Verdict, .. } => {
                    definition.value_type == Some(ValueType::Verdict)
                }
                Expr::ChangeElement { value, .. } => {
                    definition.dynamic.is_some() && value.is_some() == definition.value_type.is_some()
                }
                _ => true,
            };
            if !matches_use {
                return Err("a rule uses a set in a way that its definition does not allow");
            }
        }
        expr.target_chain().map_or(Ok(()), |chain| self.check_target(chain))
    }
}

fn check_names<'a>(names: impl IntoIterator<Item = &'a Name>) -> Result<(), TableError> {
    let mut known_names = BTreeSet::new();
    for name in names {
        let is_valid = (1..=MAX_NAME_LENGTH).contains(&name.len()) && !name.contains('\0');
        if !is_valid || !known_names.insert(name) {
            return Err(TableError::Name(name.clone()));
        }
    }
    Ok(())
}

fn check_definition(set: &Set) -> Result<(), &'static str> {
    let definition = &set.definition;
    let has_valid_parts = match &definition.matching {
        KeyMatching::IntervalsOfParts(lens) => {
            let padded_length: u32 = lens.iter().map(|length| u32::from(*length).next_multiple_of(4)).sum();
            lens.len() > 1 && !lens.contains(&0) && padded_length == definition.key_type.length
        }
        KeyMatching::Exact | KeyMatching::Intervals => true,
    };
    if !has_valid_parts {
        return Err("the lengths of at least two parts must add up to the length of the key type");
    }
    if definition.dynamic.is_some() && definition.matching != KeyMatching::Exact {
        return Err("a dynamic set has no intervals");
    }
    let max_elements = definition.max_elements.map(std::num::NonZeroU32::get);
    if definition.dynamic.is_some() && max_elements.is_none() {
        return Err("a dynamic set needs a maximum number of elements");
    }
    if definition.dynamic.is_some() && definition.value_type == Some(ValueType::Verdict) {
        return Err("a packet cannot add a verdict");
    }
    let element_count = u32::try_from(set.elements.len()).unwrap_or(u32::MAX);
    if max_elements.is_some_and(|max_elements| element_count > max_elements) {
        return Err("the set has more elements than its maximum");
    }
    Ok(())
}

fn check_interval(
    matching: &KeyMatching,
    element: &Element,
    previous: Option<&Element>,
) -> Result<(), &'static str> {
    let Some(last_key) = element.last_key.as_deref() else {
        let needs_interval = *matching != KeyMatching::Exact;
        return if needs_interval { Err("the highest key is missing") } else { Ok(()) };
    };
    if last_key.byte_length() != element.key.byte_length() {
        return Err("both keys of an interval must have the same length");
    }
    let is_valid = match matching {
        KeyMatching::Exact => return Err("a set that matches exactly has no intervals"),
        KeyMatching::Intervals => {
            let overlaps =
                previous.is_some_and(|previous| previous.last_key.as_deref() >= Some(&element.key));
            element.key <= *last_key && !overlaps
        }
        // The kernel checks for overlaps. A check here would have to compare each element with each other element.
        KeyMatching::IntervalsOfParts(lens) => {
            let mut start = 0;
            lens.iter().all(|length| {
                let range = start..start + usize::from(*length);
                start = range.end.next_multiple_of(4);
                element.key.bytes().get(range.clone()) <= last_key.bytes().get(range)
            })
        }
    };
    if is_valid { Ok(()) } else { Err("the interval is empty, or overlaps with another interval") }
}

/// Returns the registers of the expression, and the number of bytes that the expression reads or writes in each
/// register. The keys and values of sets are treated as one register, because their length is unknown here.
fn registers(expr: &Expr) -> Vec<(Reg, u32)> {
    match expr {
        Expr::Meta { dreg: reg, .. }
        | Expr::SetMeta { sreg: reg, .. }
        | Expr::Ct { dreg: reg, .. }
        | Expr::SetCt { sreg: reg, .. }
        | Expr::SetTcpOption { sreg: reg, .. }
        | Expr::Route { dreg: reg, .. }
        | Expr::Fib { dreg: reg, .. }
        | Expr::RandomNumber { dreg: reg, .. } => vec![(*reg, 4)],
        Expr::Payload(field, reg) | Expr::SetPayload(field, reg) => vec![(*reg, field.length)],
        Expr::Immediate { dreg: reg, value } | Expr::Cmp { sreg: reg, value, .. } => {
            vec![(*reg, value.byte_length())]
        }
        Expr::Range { sreg, first, last, .. } => vec![(*sreg, first.byte_length().max(last.byte_length()))],
        Expr::Bitwise { sreg, dreg, mask, .. } => {
            vec![(*sreg, mask.byte_length()), (*dreg, mask.byte_length())]
        }
        Expr::ToNetworkOrder { sreg, dreg, length, .. } => vec![(*sreg, *length), (*dreg, *length)],
        Expr::Lookup { sreg, result: LookupResult::Value(dreg), .. } => vec![(*sreg, 4), (*dreg, 4)],
        Expr::Lookup { sreg, .. } => vec![(*sreg, 4)],
        Expr::ChangeElement { key, value, .. } => {
            [Some(*key), *value].into_iter().flatten().map(|reg| (reg, 4)).collect()
        }
        Expr::Nat { address, port, .. } => {
            [*address, *port].into_iter().flatten().map(|reg| (reg, 4)).collect()
        }
        Expr::Masquerade(_) | Expr::Reject(_) | Expr::NoTrack | Expr::Counter(_) | Expr::Verdict(_) => {
            Vec::new()
        }
    }
}
