//! A table to the bytes of the transaction that puts it in place. Pure.

use super::abi::{self, msg};
use super::expr;
use super::model::{Chain, Count, Element, Rule, Set, Table};
use crate::netlink::{Attrs, Messages, message};

/// An element takes at most 160 bytes. A list of them ends at 64 KiB; and a refused message comes back whole,
/// so that it has to fit into what the socket receives at a time.
const ELEMENTS_PER_MESSAGE: usize = 150;

/// A transaction: it takes effect as a whole or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// What goes to the kernel.
    pub messages: Messages,
    /// What each message is about; by it a refusal is explained.
    steps: Vec<Step>,
}

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Beginning and end of a transaction.
    Transaction,
    /// A question.
    Reading,
    /// The table as such.
    Table,
    /// A set or a map, or its elements.
    Set,
    /// A base chain of type nat.
    NatChain,
    /// A base chain of another type.
    Chain,
    /// A rule.
    Rule,
}

impl Batch {
    /// The transaction that replaces whatever the table of this name holds.
    #[must_use]
    pub fn replace(table: &Table) -> Self {
        let mut batch = Self::default();
        batch.boundary(abi::BATCH_BEGIN);
        // Made first, for deleting what isn't there would fail.
        batch.table(table, msg::NEW_TABLE, message::CREATE);
        batch.table(table, msg::DEL_TABLE, 0);
        batch.table(table, msg::NEW_TABLE, message::CREATE);
        for (id, set) in (1..).zip(&table.sets) {
            batch.set(table, set, id);
        }
        for chain in &table.chains {
            batch.chain(table, chain);
        }
        for (last, chain, rule) in rules(table) {
            // Acknowledged, it says that the transaction was done: kernels before 6.10 don't at its end.
            batch.rule(table, chain, rule, if last { message::ACK } else { 0 });
        }
        batch.boundary(abi::BATCH_END);
        batch
    }

    /// What the message of this number is about.
    #[must_use]
    pub fn step(&self, seq: u32) -> Step {
        let index = usize::try_from(seq).unwrap_or(usize::MAX).wrapping_sub(1);
        self.steps.get(index).copied().unwrap_or(Step::Transaction)
    }

    fn boundary(&mut self, kind: u16) {
        self.steps.push(Step::Transaction);
        self.messages.push(kind, 0, &abi::header(0, abi::SUBSYSTEM), |_| ());
    }

    fn message(&mut self, step: Step, kind: u16, flags: u16, body: impl FnOnce(&mut Attrs<'_>)) {
        self.steps.push(step);
        self.messages.push(abi::kind(kind), flags, &abi::header(abi::INET, 0), body);
    }

    fn table(&mut self, table: &Table, kind: u16, flags: u16) {
        self.message(Step::Table, kind, flags, |attrs| attrs.text(abi::table::NAME, &table.name));
    }

    fn set(&mut self, table: &Table, set: &Set, id: u32) {
        self.message(Step::Set, msg::NEW_SET, message::CREATE, |attrs| {
            attrs.text(abi::set::TABLE, &table.name);
            attrs.text(abi::set::NAME, &set.name);
            attrs.be32(abi::set::FLAGS, set.flags());
            attrs.be32(abi::set::KEY_TYPE, set.key.id);
            attrs.be32(abi::set::KEY_LEN, set.key.len);
            if let Some(value) = set.value {
                attrs.be32(abi::set::DATA_TYPE, value.id);
                attrs.be32(abi::set::DATA_LEN, value.len);
            }
            attrs.be32(abi::set::ID, id);
            if set.counted {
                expr::counter(attrs, abi::set::EXPRESSION, Count::default());
            }
            // Known beforehand, so that the kernel takes a hash table of fixed size, its fastest kind.
            if !set.elements.is_empty() {
                let size = u32::try_from(set.elements.len()).unwrap_or(u32::MAX);
                attrs.nested(abi::set::DESCRIPTION, |attrs| attrs.be32(abi::set::DESCRIPTION_SIZE, size));
            }
        });
        for chunk in set.elements.chunks(ELEMENTS_PER_MESSAGE) {
            self.message(Step::Set, msg::NEW_ELEMENTS, message::CREATE, |attrs| {
                attrs.text(abi::elements::TABLE, &table.name);
                attrs.text(abi::elements::SET, &set.name);
                attrs.nested(abi::elements::LIST, |list| chunk.iter().for_each(|item| element(list, item)));
            });
        }
    }

    fn chain(&mut self, table: &Table, chain: &Chain) {
        let step = if chain.kind == "nat" { Step::NatChain } else { Step::Chain };
        self.message(step, msg::NEW_CHAIN, message::CREATE, |attrs| {
            attrs.text(abi::chain::TABLE, &table.name);
            attrs.text(abi::chain::NAME, &chain.name);
            attrs.nested(abi::chain::HOOK, |hook| {
                hook.be32(abi::hook::NUMBER, chain.hook);
                hook.be32(abi::hook::PRIORITY, chain.priority.cast_unsigned());
            });
            attrs.be32(abi::chain::POLICY, chain.policy);
            attrs.text(abi::chain::TYPE, &chain.kind);
        });
    }

    fn rule(&mut self, table: &Table, chain: &Chain, rule: &Rule, flags: u16) {
        self.message(Step::Rule, msg::NEW_RULE, message::CREATE | message::APPEND | flags, |attrs| {
            attrs.text(abi::rule::TABLE, &table.name);
            attrs.text(abi::rule::CHAIN, &chain.name);
            expr::encode_rule(attrs, rule);
        });
    }
}

impl Set {
    /// enum `nft_set_flags`.
    pub(super) fn flags(&self) -> u32 {
        let interval = if self.interval { abi::set::FLAG_INTERVAL } else { 0 };
        let map = if self.value.is_some() { abi::set::FLAG_MAP } else { 0 };
        interval | map
    }
}

fn rules(table: &Table) -> impl Iterator<Item = (bool, &Chain, &Rule)> {
    let total: usize = table.chains.iter().map(|chain| chain.rules.len()).sum();
    let all = table.chains.iter().flat_map(|chain| chain.rules.iter().map(move |rule| (chain, rule)));
    (1..).zip(all).map(move |(number, (chain, rule))| (number == total, chain, rule))
}

fn element(list: &mut Attrs<'_>, element: &Element) {
    list.nested(abi::LIST_ITEM, |item| {
        expr::value(item, abi::element::KEY, element.key.bytes());
        if let Some(value) = &element.value {
            expr::value(item, abi::element::DATA, value.bytes());
        }
        if element.end {
            item.be32(abi::element::FLAGS, abi::element::FLAG_END);
        }
        // In a set that counts, the kernel gives each element a counter of its own, at zero.
        if element.count != Count::default() {
            expr::counter(item, abi::element::EXPRESSION, element.count);
        }
    });
}
