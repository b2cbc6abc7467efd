//! Decodes a table from messages, which come from the kernel's lists or from a transaction. Pure.

use super::abi::{self, UnsupportedProperty, msg};
use super::element::{ListedElement, complete_intervals, decode_element};
use super::expr;
use super::installed::{ForeignObject, InstalledTable};
use super::model::{
    BaseChain, Chain, ChainType, Hook, KeyMatching, Name, Policy, Set, Table, TableFamily, TableId, Value,
};
use super::set_definition::decode_definition;
use crate::netlink::{Attr, Message};

/// Builds one table from messages, in the order of the kernel's lists: table, sets, chains, rules, elements.
#[derive(Clone, Debug)]
pub struct Decoder {
    id: TableId,
    installed_table: Option<InstalledTable>,
    /// The upper bounds of each set with intervals of simple keys, by the index of the set.
    upper_bounds: Vec<(usize, Value)>,
}

impl Decoder {
    /// Creates a decoder for the table `id`.
    #[must_use]
    pub fn new(id: &TableId) -> Self {
        Self { id: id.clone(), installed_table: None, upper_bounds: Vec::new() }
    }

    /// Creates a decoder for the elements of one set of the table `id`. The set's own elements are ignored.
    pub(crate) fn for_set(id: &TableId, set: &Set) -> Self {
        let set = Set::new(set.name.clone(), set.definition.clone(), Vec::new());
        let table = Table { sets: vec![set], ..Table::empty(id.clone()) };
        Self { installed_table: Some(table.into()), ..Self::new(id) }
    }

    /// Returns the table; `None` if no message created it.
    #[must_use]
    pub fn finish(self) -> Option<InstalledTable> {
        let mut installed_table = self.installed_table?;
        for (index, set) in installed_table.table.sets.iter_mut().enumerate() {
            if set.definition.matching == KeyMatching::Intervals {
                let bounds = self.upper_bounds.iter().filter(|(set_index, _)| *set_index == index);
                complete_intervals(&mut set.elements, &mut bounds.map(|(_, key)| *key).collect::<Vec<_>>());
            }
            set.elements.sort_unstable();
        }
        Some(installed_table)
    }

    /// Returns true if no message has created the table so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.installed_table.is_none()
    }

    /// Returns the names of the sets that were added so far.
    #[must_use]
    pub fn list_set_names(&self) -> Vec<Name> {
        self.installed_table
            .iter()
            .flat_map(|installed_table| &installed_table.table.sets)
            .map(|set| set.name.clone())
            .collect()
    }

    /// Adds one message. Ignores a message about another table.
    pub fn add_message(&mut self, message: &Message<'_>) {
        let attrs = message.attrs(abi::HEADER_LENGTH);
        // The attribute with the table's name has the same type in all messages.
        let belongs_to_table = Attr::find_text(attrs, abi::table::NFTA_TABLE_NAME) == Some(&self.id.name)
            && message.payload.first() == Some(&self.id.family.number());
        if !belongs_to_table {
            return;
        }
        match abi::message_of_type(message.kind) {
            Some(msg::NEW_TABLE) => self.add_table(attrs),
            Some(msg::DEL_TABLE) => {
                self.installed_table = None;
                self.upper_bounds.clear();
            }
            Some(msg::NEW_SET) => self.add_set(attrs),
            Some(msg::NEW_CHAIN) => self.add_chain(attrs),
            Some(msg::NEW_RULE) => self.add_rule(attrs),
            Some(msg::NEW_ELEMENTS) => self.add_elements(attrs),
            _ => {}
        }
    }

    fn add_table(&mut self, attrs: &[u8]) {
        let id = &self.id;
        let installed_table = self.installed_table.get_or_insert_with(|| Table::empty(id.clone()).into());
        if Attr::find_be32(attrs, abi::table::NFTA_TABLE_FLAGS).is_some_and(|flags| flags != 0) {
            installed_table.foreign_objects.push(ForeignObject::TableFlag);
        }
    }

    fn add_set(&mut self, attrs: &[u8]) {
        let is_anonymous = Attr::find_be32(attrs, abi::set::NFTA_SET_FLAGS)
            .is_some_and(|flags| flags & abi::set::FLAG_ANONYMOUS != 0);
        // An anonymous set belongs to one rule of another program, and is deleted with this rule.
        let (Some(installed_table), Some(name), false) =
            (&mut self.installed_table, find_name(attrs, abi::set::NFTA_SET_NAME), is_anonymous)
        else {
            return;
        };
        match decode_definition(attrs) {
            Some(definition) => {
                installed_table.table.sets.push(Set { name, definition, elements: Vec::new() });
            }
            None => installed_table.foreign_objects.push(ForeignObject::Set(name)),
        }
    }

    fn add_chain(&mut self, attrs: &[u8]) {
        let (Some(installed_table), Some(name)) =
            (&mut self.installed_table, find_name(attrs, abi::chain::NFTA_CHAIN_NAME))
        else {
            return;
        };
        match decode_base_chain(self.id.family, attrs) {
            Ok(base) => installed_table.table.chains.push(Chain { name, base, rules: Vec::new() }),
            Err(UnsupportedProperty) => installed_table.foreign_objects.push(ForeignObject::Chain(name)),
        }
    }

    fn add_rule(&mut self, attrs: &[u8]) {
        let (Some(installed_table), Some(name)) =
            (&mut self.installed_table, find_name(attrs, abi::rule::NFTA_RULE_CHAIN))
        else {
            return;
        };
        let chain = installed_table.table.chains.iter_mut().find(|chain| chain.name == name);
        match (chain, expr::decode_rule(attrs)) {
            (Some(chain), Some(rule)) => chain.rules.push(rule),
            (Some(_), None) => installed_table.foreign_objects.push(ForeignObject::RuleInChain(name)),
            // The chain itself is a foreign object.
            (None, _) => {}
        }
    }

    fn add_elements(&mut self, attrs: &[u8]) {
        let (Some(installed_table), Some(name)) =
            (&mut self.installed_table, find_name(attrs, abi::elements::NFTA_SET_ELEM_LIST_SET))
        else {
            return;
        };
        let Some(index) = installed_table.table.sets.iter().position(|set| set.name == name) else { return };
        for item in
            Attr::parse_all(Attr::find(attrs, abi::elements::NFTA_SET_ELEM_LIST_ELEMENTS).unwrap_or_default())
        {
            match decode_element(item.value) {
                Some(ListedElement::Element(element)) => {
                    installed_table.table.sets[index].elements.push(element);
                }
                Some(ListedElement::UpperBound(key)) => self.upper_bounds.push((index, key)),
                None => {
                    let foreign_object = ForeignObject::ElementOfSet(name.clone());
                    if !installed_table.foreign_objects.contains(&foreign_object) {
                        installed_table.foreign_objects.push(foreign_object);
                    }
                }
            }
        }
    }
}

fn find_name(attrs: &[u8], kind: u16) -> Option<Name> {
    Attr::find_text(attrs, kind).map(|name| name.to_owned().into())
}

/// Decodes the properties of a base chain; `None` for a regular chain.
fn decode_base_chain(family: TableFamily, attrs: &[u8]) -> Result<Option<BaseChain>, UnsupportedProperty> {
    let flags = Attr::find_be32(attrs, abi::chain::NFTA_CHAIN_FLAGS).unwrap_or(0);
    if flags & !abi::chain::FLAG_BASE != 0 {
        return Err(UnsupportedProperty);
    }
    let Some(hook) = Attr::find(attrs, abi::chain::NFTA_CHAIN_HOOK) else { return Ok(None) };
    decode_hooked_chain(family, attrs, hook).map(Some).ok_or(UnsupportedProperty)
}

fn decode_hooked_chain(family: TableFamily, attrs: &[u8], hook: &[u8]) -> Option<BaseChain> {
    let chain_type = Attr::find_text(attrs, abi::chain::NFTA_CHAIN_TYPE)?;
    Some(BaseChain {
        chain_type: ChainType::ALL.into_iter().find(|known| known.as_str() == chain_type)?,
        hook: decode_hook(family, hook)?,
        priority: Attr::find_be32(hook, abi::hook::NFTA_HOOK_PRIORITY)?.cast_signed(),
        policy: match Attr::find_be32(attrs, abi::chain::NFTA_CHAIN_POLICY)?.cast_signed() {
            abi::verdict::ACCEPT => Policy::Accept,
            abi::verdict::DROP => Policy::Drop,
            _ => return None,
        },
    })
}

fn decode_hook(family: TableFamily, attrs: &[u8]) -> Option<Hook> {
    let number = Attr::find_be32(attrs, abi::hook::NFTA_HOOK_HOOKNUM)?;
    if family != TableFamily::Netdev {
        return Some(match number {
            abi::hook::PREROUTING => Hook::Prerouting,
            abi::hook::INPUT => Hook::Input,
            abi::hook::FORWARD => Hook::Forward,
            abi::hook::OUTPUT => Hook::Output,
            abi::hook::POSTROUTING => Hook::Postrouting,
            _ => return None,
        });
    }
    let interfaces = decode_interfaces(attrs)?;
    match number {
        abi::hook::NETDEV_INGRESS => Some(Hook::Ingress(interfaces)),
        abi::hook::NETDEV_EGRESS => Some(Hook::Egress(interfaces)),
        _ => None,
    }
}

/// Decodes the names of the interfaces. Returns `None` if one of the names is a pattern.
fn decode_interfaces(hook: &[u8]) -> Option<Vec<Name>> {
    let Some(list) = Attr::find(hook, abi::hook::NFTA_HOOK_DEVS) else {
        return Some(find_name(hook, abi::hook::NFTA_HOOK_DEV).into_iter().collect());
    };
    let decode = |item: Attr<'_>| {
        let text = std::str::from_utf8(item.value).ok()?.trim_end_matches('\0');
        (item.kind == abi::device::NFTA_DEVICE_NAME).then(|| Name::from(text.to_owned()))
    };
    Attr::parse_all(list).map(decode).collect()
}
