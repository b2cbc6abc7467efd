//! A table back from messages: those that the kernel lists, or those of a transaction. Pure.

use super::abi::{self, msg};
use super::expr;
use super::model::{Chain, Count, DataType, Element, Set, Table, Value};
use crate::netlink::{Attr, Message};

/// Something in the table that Akrobateo never writes, by what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the table holds {0} that is not Akrobateo's")]
pub struct Foreign(pub &'static str);

/// Collects one table from messages, which come in any number, in the order of the kernel's lists.
#[derive(Clone, Debug)]
pub struct Decoder {
    name: String,
    table: Option<Table>,
}

impl Decoder {
    /// For the table `name` of family inet.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), table: None }
    }

    /// What was collected; `None` if there is no such table.
    #[must_use]
    pub fn finish(self) -> Option<Table> {
        let mut table = self.table?;
        table.sets.iter_mut().for_each(|set| set.elements.sort_unstable());
        Some(table)
    }

    /// Whether no such table has been seen so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_none()
    }

    /// The names of the sets collected so far.
    #[must_use]
    pub fn sets(&self) -> Vec<String> {
        self.table.iter().flat_map(|table| &table.sets).map(|set| set.name.to_string()).collect()
    }

    /// Takes in one message, if it is about this table.
    pub fn message(&mut self, message: &Message<'_>) -> Result<(), Foreign> {
        let attrs = message.attrs(abi::HEADER_LEN);
        // In each of these messages, the first attribute is the table's name.
        let ours = Attr::find_text(attrs, abi::table::NAME) == Some(&self.name)
            && message.payload.first() == Some(&abi::INET);
        if message.kind >> 8 != abi::SUBSYSTEM || !ours {
            return Ok(());
        }
        match message.kind & 0xff {
            msg::NEW_TABLE => self.new_table(attrs),
            msg::DEL_TABLE => {
                self.table = None;
                Ok(())
            }
            msg::NEW_SET => self.add(set(attrs), |table, set| table.sets.push(set)),
            msg::NEW_CHAIN => self.add(chain(attrs), |table, chain| table.chains.push(chain)),
            msg::NEW_RULE => self.rule(attrs),
            msg::NEW_ELEMENTS => self.elements(attrs),
            _ => Ok(()),
        }
    }

    fn new_table(&mut self, attrs: &[u8]) -> Result<(), Foreign> {
        // A flag would say that it sleeps, or belongs to a process.
        if Attr::find_be32(attrs, abi::table::FLAGS).is_some_and(|flags| flags != 0) {
            return Err(Foreign("a flag"));
        }
        self.table.get_or_insert(Table {
            name: self.name.clone().into(),
            sets: Vec::new(),
            chains: Vec::new(),
        });
        Ok(())
    }

    fn add<T>(&mut self, item: Result<T, Foreign>, push: impl FnOnce(&mut Table, T)) -> Result<(), Foreign> {
        let item = item?;
        if let Some(table) = &mut self.table {
            push(table, item);
        }
        Ok(())
    }

    fn rule(&mut self, attrs: &[u8]) -> Result<(), Foreign> {
        let rule = expr::decode_rule(attrs).ok_or(Foreign("a rule"))?;
        let chain = Attr::find_text(attrs, abi::rule::CHAIN);
        let chains = self.table.iter_mut().flat_map(|table| &mut table.chains);
        let chain = chains.into_iter().find(|one| Some(&*one.name) == chain).ok_or(Foreign("a chain"))?;
        chain.rules.push(rule);
        Ok(())
    }

    fn elements(&mut self, attrs: &[u8]) -> Result<(), Foreign> {
        let set = Attr::find_text(attrs, abi::elements::SET);
        let sets = self.table.iter_mut().flat_map(|table| &mut table.sets);
        let set = sets.into_iter().find(|one| Some(&*one.name) == set).ok_or(Foreign("a set"))?;
        for item in Attr::all(Attr::find(attrs, abi::elements::LIST).unwrap_or_default()) {
            set.elements.push(element(item.value).ok_or(Foreign("an element"))?);
        }
        Ok(())
    }
}

fn set(attrs: &[u8]) -> Result<Set, Foreign> {
    let number = |kind| Attr::find_be32(attrs, kind);
    let flags = number(abi::set::FLAGS).unwrap_or(0);
    let read = || {
        let value = match number(abi::set::DATA_LEN) {
            Some(len) => Some(DataType { id: number(abi::set::DATA_TYPE)?, len }),
            None => None,
        };
        let set = Set {
            name: Attr::find_text(attrs, abi::set::NAME)?.to_owned().into(),
            key: DataType { id: number(abi::set::KEY_TYPE)?, len: number(abi::set::KEY_LEN)? },
            value,
            interval: flags & abi::set::FLAG_INTERVAL != 0,
            counted: match Attr::find(attrs, abi::set::EXPRESSION) {
                Some(expr) => expr::decode_counter(expr).map(|_| true)?,
                None => false,
            },
            elements: Vec::new(),
        };
        // More than one expression comes as a list.
        let one = Attr::find(attrs, abi::set::EXPRESSIONS).is_none();
        (one && set.flags() == flags).then_some(set)
    };
    read().ok_or(Foreign("a set"))
}

fn chain(attrs: &[u8]) -> Result<Chain, Foreign> {
    let read = || {
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
    read().ok_or(Foreign("a chain"))
}

fn element(item: &[u8]) -> Option<Element> {
    let datum = |kind| expr::find_value(item, kind).map(Value::read);
    let flags = Attr::find_be32(item, abi::element::FLAGS).unwrap_or(0);
    Some(Element {
        key: datum(abi::element::KEY)??,
        end: match flags {
            0 => false,
            abi::element::FLAG_END => true,
            _ => return None,
        },
        value: match datum(abi::element::DATA) {
            Some(value) => Some(value?),
            None => None,
        },
        count: match Attr::find(item, abi::element::EXPRESSION) {
            Some(expr) => expr::decode_counter(expr)?,
            None => Count::default(),
        },
    })
}
