//! Encodes a table as the transaction that installs it. Pure.

use super::abi::{self, msg};
use super::expr;
use super::model::{Chain, Counter, Element, Rule, Set, Table};
use crate::netlink::{Attrs, Messages, message};

/// The number of elements in one message. An element needs at most 160 bytes, and a list has at most 64 KiB. The kernel
/// returns a rejected message as a whole, so the message must also fit into the receive buffer.
const ELEMENTS_PER_MESSAGE: usize = 150;

/// A transaction: the kernel executes all of its messages or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The messages to send.
    pub messages: Messages,
    /// The operation of each message, for the error if the kernel rejects the message.
    operations: Vec<Operation>,
}

/// The operation of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The begin or end of a transaction.
    Transaction,
    /// A read.
    Read,
    /// The creation or deletion of a table.
    Table,
    /// The creation of a set or map, or of its elements.
    Set,
    /// The creation of a base chain of type nat.
    NatChain,
    /// The creation of a base chain of another type.
    Chain,
    /// The creation of a rule.
    Rule,
}

impl Batch {
    /// Creates the transaction that replaces the table of this name.
    #[must_use]
    pub fn new_replacement(table: &Table) -> Self {
        let mut batch = Self::default();
        batch.push_batch_boundary(abi::BATCH_BEGIN);
        // The table is created first, because the deletion of a missing table would fail.
        batch.push_table(table, msg::NEW_TABLE, message::CREATE);
        batch.push_table(table, msg::DEL_TABLE, 0);
        batch.push_table(table, msg::NEW_TABLE, message::CREATE);
        for (id, set) in (1..).zip(&table.sets) {
            batch.push_set(table, set, id);
        }
        for chain in &table.chains {
            batch.push_chain(table, chain);
        }
        for (is_last, chain, rule) in list_rules(table) {
            // The acknowledgement of the last rule shows that the transaction was executed. Kernels before 6.10 do not
            // acknowledge the end of a batch.
            batch.push_rule(table, chain, rule, if is_last { message::ACK } else { 0 });
        }
        batch.push_batch_boundary(abi::BATCH_END);
        batch
    }

    /// Returns the operation of the message with this sequence number.
    #[must_use]
    pub fn operation(&self, seq: u32) -> Operation {
        let index = usize::try_from(seq).unwrap_or(usize::MAX).wrapping_sub(1);
        self.operations.get(index).copied().unwrap_or(Operation::Transaction)
    }

    fn push_batch_boundary(&mut self, message_type: u16) {
        self.operations.push(Operation::Transaction);
        self.messages.push(message_type, 0, &abi::header(0, abi::NFTABLES_SUBSYSTEM), |_| ());
    }

    fn push(
        &mut self,
        operation: Operation,
        message: u16,
        flags: u16,
        write_attrs: impl FnOnce(&mut Attrs<'_>),
    ) {
        self.operations.push(operation);
        self.messages.push(
            abi::message_type(message),
            flags,
            &abi::header(abi::NFPROTO_INET, 0),
            write_attrs,
        );
    }

    fn push_table(&mut self, table: &Table, message: u16, flags: u16) {
        self.push(Operation::Table, message, flags, |attrs| attrs.push_text(abi::table::NAME, &table.name));
    }

    fn push_set(&mut self, table: &Table, set: &Set, id: u32) {
        self.push(Operation::Set, msg::NEW_SET, message::CREATE, |attrs| {
            attrs.push_text(abi::set::TABLE, &table.name);
            attrs.push_text(abi::set::NAME, &set.name);
            attrs.push_be32(abi::set::FLAGS, set.flags());
            attrs.push_be32(abi::set::KEY_TYPE, set.key_type.id);
            attrs.push_be32(abi::set::KEY_LEN, set.key_type.len);
            if let Some(value) = set.value_type {
                attrs.push_be32(abi::set::DATA_TYPE, value.id);
                attrs.push_be32(abi::set::DATA_LEN, value.len);
            }
            attrs.push_be32(abi::set::ID, id);
            if set.has_counters {
                expr::encode_counter(attrs, abi::set::EXPRESSION, Counter::default());
            }
            // With a known size, the kernel chooses a hash table of fixed size, which is its fastest type of set.
            if !set.elements.is_empty() {
                let element_count = u32::try_from(set.elements.len()).unwrap_or(u32::MAX);
                attrs.push_nested(abi::set::DESCRIPTION, |attrs| {
                    attrs.push_be32(abi::set::SET_DESC_SIZE, element_count);
                });
            }
        });
        for chunk in set.elements.chunks(ELEMENTS_PER_MESSAGE) {
            self.push(Operation::Set, msg::NEW_ELEMENTS, message::CREATE, |attrs| {
                attrs.push_text(abi::elements::TABLE, &table.name);
                attrs.push_text(abi::elements::SET, &set.name);
                attrs.push_nested(abi::elements::ELEMENTS, |list| {
                    for element in chunk {
                        encode_element(list, element);
                    }
                });
            });
        }
    }

    fn push_chain(&mut self, table: &Table, chain: &Chain) {
        let operation = if chain.kind == "nat" { Operation::NatChain } else { Operation::Chain };
        self.push(operation, msg::NEW_CHAIN, message::CREATE, |attrs| {
            attrs.push_text(abi::chain::TABLE, &table.name);
            attrs.push_text(abi::chain::NAME, &chain.name);
            attrs.push_nested(abi::chain::HOOK, |hook| {
                hook.push_be32(abi::hook::NUMBER, chain.hook);
                hook.push_be32(abi::hook::PRIORITY, chain.priority.cast_unsigned());
            });
            attrs.push_be32(abi::chain::POLICY, chain.policy);
            attrs.push_text(abi::chain::TYPE, &chain.kind);
        });
    }

    fn push_rule(&mut self, table: &Table, chain: &Chain, rule: &Rule, flags: u16) {
        self.push(Operation::Rule, msg::NEW_RULE, message::CREATE | message::APPEND | flags, |attrs| {
            attrs.push_text(abi::rule::TABLE, &table.name);
            attrs.push_text(abi::rule::CHAIN, &chain.name);
            expr::encode_rule(attrs, rule);
        });
    }
}

impl Set {
    /// Returns the set's flags (enum `nft_set_flags`).
    pub(super) fn flags(&self) -> u32 {
        let interval_flag = if self.has_intervals { abi::set::FLAG_INTERVAL } else { 0 };
        let map_flag = if self.value_type.is_some() { abi::set::FLAG_MAP } else { 0 };
        interval_flag | map_flag
    }
}

/// Returns each rule with its chain. The first value is true for the last rule of the table.
fn list_rules(table: &Table) -> impl Iterator<Item = (bool, &Chain, &Rule)> {
    let total: usize = table.chains.iter().map(|chain| chain.rules.len()).sum();
    let all = table.chains.iter().flat_map(|chain| chain.rules.iter().map(move |rule| (chain, rule)));
    (1..).zip(all).map(move |(number, (chain, rule))| (number == total, chain, rule))
}

fn encode_element(list: &mut Attrs<'_>, element: &Element) {
    list.push_nested(abi::LIST_ITEM, |item| {
        expr::encode_value(item, abi::element::KEY, element.key.bytes());
        if let Some(value) = &element.value {
            expr::encode_value(item, abi::element::DATA, value.bytes());
        }
        if element.is_upper_bound {
            item.push_be32(abi::element::FLAGS, abi::element::FLAG_END);
        }
        // If a set has counters and the message contains no counter for an element, the kernel creates a counter with
        // the value 0.
        if element.counter != Counter::default() {
            expr::encode_counter(item, abi::element::EXPRESSION, element.counter);
        }
    });
}
