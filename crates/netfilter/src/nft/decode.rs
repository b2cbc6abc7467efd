//! Decodes a table from messages, which come from the kernel's lists or from a transaction. Pure.

use super::abi::{self, msg};
use super::expr;
use super::model::{Chain, Counter, DataType, Element, Set, Table, Value};
use crate::netlink::{Attr, Message};

/// The table contains an object that Akrobateo never creates. The field is the kind of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the table has {0} that Akrobateo did not create")]
pub struct UnknownObject(pub &'static str);

/// Builds one table from messages, in the order of the kernel's lists: table, sets, chains, rules, elements.
#[derive(Clone, Debug)]
pub struct Decoder {
    name: String,
    table: Option<Table>,
}

impl Decoder {
    /// Creates a decoder for the table `name` of family inet.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), table: None }
    }

    /// Returns the table; `None` if no message created it.
    #[must_use]
    pub fn finish(self) -> Option<Table> {
        let mut table = self.table?;
        table.sets.iter_mut().for_each(|set| set.elements.sort_unstable());
        Some(table)
    }

    /// Returns true if no message has created the table so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_none()
    }

    /// Returns the names of the sets that were added so far.
    #[must_use]
    pub fn set_names(&self) -> Vec<String> {
        self.table.iter().flat_map(|table| &table.sets).map(|set| set.name.to_string()).collect()
    }

    /// Adds one message. Ignores a message about another table.
    pub fn add_message(&mut self, message: &Message<'_>) -> Result<(), UnknownObject> {
        let attrs = message.attrs(abi::HEADER_LEN);
        // The attribute with the table's name has the same type in all messages.
        let belongs_to_table = Attr::find_text(attrs, abi::table::NAME) == Some(&self.name)
            && message.payload.first() == Some(&abi::NFPROTO_INET);
        if message.kind >> 8 != abi::NFTABLES_SUBSYSTEM || !belongs_to_table {
            return Ok(());
        }
        match message.kind & 0xff {
            msg::NEW_TABLE => self.add_table(attrs),
            msg::DEL_TABLE => {
                self.table = None;
                Ok(())
            }
            msg::NEW_SET => self.add_object(decode_set(attrs), |table, set| table.sets.push(set)),
            msg::NEW_CHAIN => self.add_object(decode_chain(attrs), |table, chain| table.chains.push(chain)),
            msg::NEW_RULE => self.add_rule(attrs),
            msg::NEW_ELEMENTS => self.add_elements(attrs),
            _ => Ok(()),
        }
    }

    fn add_table(&mut self, attrs: &[u8]) -> Result<(), UnknownObject> {
        // The flags are `NFT_TABLE_F_DORMANT` and `NFT_TABLE_F_OWNER`. Akrobateo's table has no flag.
        if Attr::find_be32(attrs, abi::table::FLAGS).is_some_and(|flags| flags != 0) {
            return Err(UnknownObject("a flag"));
        }
        self.table.get_or_insert(Table {
            name: self.name.clone().into(),
            sets: Vec::new(),
            chains: Vec::new(),
        });
        Ok(())
    }

    fn add_object<T>(
        &mut self,
        object: Result<T, UnknownObject>,
        push: impl FnOnce(&mut Table, T),
    ) -> Result<(), UnknownObject> {
        let object = object?;
        if let Some(table) = &mut self.table {
            push(table, object);
        }
        Ok(())
    }

    fn add_rule(&mut self, attrs: &[u8]) -> Result<(), UnknownObject> {
        let rule = expr::decode_rule(attrs).ok_or(UnknownObject("a rule"))?;
        let chain_name = Attr::find_text(attrs, abi::rule::CHAIN);
        let mut chains = self.table.iter_mut().flat_map(|table| &mut table.chains);
        let chain = chains.find(|chain| Some(&*chain.name) == chain_name).ok_or(UnknownObject("a chain"))?;
        chain.rules.push(rule);
        Ok(())
    }

    fn add_elements(&mut self, attrs: &[u8]) -> Result<(), UnknownObject> {
        let set_name = Attr::find_text(attrs, abi::elements::SET);
        let mut sets = self.table.iter_mut().flat_map(|table| &mut table.sets);
        let set = sets.find(|set| Some(&*set.name) == set_name).ok_or(UnknownObject("a set"))?;
        for item in Attr::parse_all(Attr::find(attrs, abi::elements::ELEMENTS).unwrap_or_default()) {
            set.elements.push(decode_element(item.value).ok_or(UnknownObject("an element"))?);
        }
        Ok(())
    }
}

fn decode_set(attrs: &[u8]) -> Result<Set, UnknownObject> {
    let number = |kind| Attr::find_be32(attrs, kind);
    let flags = number(abi::set::FLAGS).unwrap_or(0);
    let decode = || {
        let value_type = match number(abi::set::DATA_LEN) {
            Some(len) => Some(DataType { id: number(abi::set::DATA_TYPE)?, len }),
            None => None,
        };
        let set = Set {
            name: Attr::find_text(attrs, abi::set::NAME)?.to_owned().into(),
            key_type: DataType { id: number(abi::set::KEY_TYPE)?, len: number(abi::set::KEY_LEN)? },
            value_type,
            has_intervals: flags & abi::set::FLAG_INTERVAL != 0,
            has_counters: match Attr::find(attrs, abi::set::EXPRESSION) {
                Some(expr) => expr::decode_counter(expr).map(|_| true)?,
                None => false,
            },
            elements: Vec::new(),
        };
        // If a set has several expressions, the kernel lists them in another attribute.
        let has_one_expression = Attr::find(attrs, abi::set::EXPRESSIONS).is_none();
        (has_one_expression && set.flags() == flags).then_some(set)
    };
    decode().ok_or(UnknownObject("a set"))
}

fn decode_chain(attrs: &[u8]) -> Result<Chain, UnknownObject> {
    let decode = || {
        let hook = Attr::find(attrs, abi::chain::HOOK)?;
        Some(Chain {
            name: Attr::find_text(attrs, abi::chain::NAME)?.to_owned().into(),
            kind: Attr::find_text(attrs, abi::chain::TYPE)?.to_owned().into(),
            hook: Attr::find_be32(hook, abi::hook::NUMBER)?,
            priority: Attr::find_be32(hook, abi::hook::PRIORITY)?.cast_signed(),
            policy: Attr::find_be32(attrs, abi::chain::POLICY)?,
            rules: Vec::new(),
        })
    };
    decode().ok_or(UnknownObject("a chain"))
}

fn decode_element(item: &[u8]) -> Option<Element> {
    let value = |kind| expr::decode_value(item, kind).map(Value::from_slice);
    let flags = Attr::find_be32(item, abi::element::FLAGS).unwrap_or(0);
    Some(Element {
        key: value(abi::element::KEY)??,
        is_upper_bound: match flags {
            0 => false,
            abi::element::FLAG_END => true,
            _ => return None,
        },
        value: match value(abi::element::DATA) {
            Some(value) => Some(value?),
            None => None,
        },
        counter: match Attr::find(item, abi::element::EXPRESSION) {
            Some(expr) => expr::decode_counter(expr)?,
            None => Counter::default(),
        },
    })
}
