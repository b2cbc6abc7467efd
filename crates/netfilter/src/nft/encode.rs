//! Encodes a transaction as netlink messages. Pure.

use super::abi::{self, msg};
use super::element::{encode_element, encode_element_key};
use super::expr;
use super::model::{BaseChain, Chain, Counter, Element, Hook, Policy, Set, TableFamily, TableId, ValueType};
use super::set_definition::{encode_byte_order, encode_description, set_flags};
use super::transaction::{Action, Step, Transaction};
use crate::netlink::{Attrs, Messages, message};

/// The size of a list of elements. A longer list continues in the next message. A list has at most 64 KiB. The kernel
/// returns a rejected message as a whole, so the message must also fit into the receive buffer of 32 KiB.
const MAX_LIST_LENGTH: usize = 24 * 1024;
/// The number of messages for which memory is allocated at first.
const MIN_MESSAGE_CAPACITY: usize = 128;
/// The number for a hook that does not exist in the family of its table. The kernel rejects this number.
const NONEXISTENT_HOOK_NUMBER: u32 = u32::MAX;

/// An encoded transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The messages to send.
    pub messages: Messages,
    /// The index of the step that each message executes; `None` for the begin and the end of the transaction.
    steps: Vec<Option<usize>>,
    /// The index of the step to which the next messages belong.
    current_step: Option<usize>,
}

impl Batch {
    /// Encodes a transaction.
    #[must_use]
    pub fn encode(transaction: &Transaction<'_>) -> Self {
        let mut batch = Self::default();
        // For the reason of the capacity, see `Transaction::default`.
        batch.steps.reserve(MIN_MESSAGE_CAPACITY);
        batch.push_boundary(abi::BATCH_BEGIN);
        let mut set_id = 0;
        for (index, step) in transaction.steps.iter().enumerate() {
            batch.current_step = Some(index);
            batch.push_step(step, &mut set_id);
        }
        // The acknowledgement of the last message shows that the transaction was executed. Kernels before 6.10 do not
        // acknowledge the end of a batch.
        batch.messages.request_acknowledgement_of_last();
        batch.current_step = None;
        batch.push_boundary(abi::BATCH_END);
        batch
    }

    /// Returns the index of the step that the message with this sequence number executes.
    #[must_use]
    pub fn step_index(&self, seq: u32) -> Option<usize> {
        let index = usize::try_from(seq).ok()?.checked_sub(1)?;
        self.steps.get(index).copied().flatten()
    }

    fn push_boundary(&mut self, message_type: u16) {
        self.steps.push(None);
        self.messages.push(message_type, 0, &abi::header(0, abi::NFTABLES_SUBSYSTEM), |_| ());
    }

    fn push(&mut self, table: &TableId, message: u16, flags: u16, write_attrs: impl FnOnce(&mut Attrs<'_>)) {
        self.steps.push(self.current_step);
        let header = abi::header(table.family.number(), 0);
        self.messages.push(abi::message_type(message), flags, &header, |attrs| {
            // The attribute with the table's name has the same type in all messages.
            attrs.push_text(abi::table::NFTA_TABLE_NAME, &table.name);
            write_attrs(attrs);
        });
    }

    fn push_step(&mut self, step: &Step<'_>, set_id: &mut u32) {
        let table = step.table;
        match &step.action {
            Action::CreateTable => {
                self.push(table, msg::NEW_TABLE, message::NLM_F_CREATE | message::NLM_F_EXCL, |_| ());
            }
            Action::EnsureTable => self.push(table, msg::NEW_TABLE, message::NLM_F_CREATE, |attrs| {
                attrs.push_be32(abi::table::NFTA_TABLE_FLAGS, 0);
            }),
            Action::DeleteTable => self.push(table, msg::DEL_TABLE, 0, |_| ()),
            Action::CreateSet(set) => {
                *set_id += 1;
                self.push_set(table, set, *set_id);
            }
            Action::DeleteSet(name) => {
                self.push(table, msg::DEL_SET, 0, |attrs| attrs.push_text(abi::set::NFTA_SET_NAME, name));
            }
            Action::FlushSet(name) => {
                self.push(table, msg::DEL_ELEMENTS, 0, |attrs| {
                    attrs.push_text(abi::elements::NFTA_SET_ELEM_LIST_SET, name);
                });
            }
            Action::AddElements(set, elements) => {
                self.push_elements(table, msg::NEW_ELEMENTS, set, elements, encode_element);
            }
            Action::DeleteElements(set, elements) => {
                self.push_elements(table, msg::DEL_ELEMENTS, set, elements, encode_element_key);
            }
            Action::CreateChain(chain) => self.push_chain(table, chain),
            Action::SetPolicy(chain) => self.push(table, msg::NEW_CHAIN, 0, |attrs| {
                attrs.push_text(abi::chain::NFTA_CHAIN_NAME, &chain.name);
                if let Some(base) = &chain.base {
                    attrs.push_be32(abi::chain::NFTA_CHAIN_POLICY, base.policy.number());
                }
            }),
            Action::DeleteChain(name) => {
                self.push(table, msg::DEL_CHAIN, 0, |attrs| {
                    attrs.push_text(abi::chain::NFTA_CHAIN_NAME, name);
                });
            }
            Action::FlushChain(name) => {
                self.push(table, msg::DEL_RULE, 0, |attrs| attrs.push_text(abi::rule::NFTA_RULE_CHAIN, name));
            }
            Action::AddRule(chain, rule) => {
                self.push(table, msg::NEW_RULE, message::NLM_F_CREATE | message::NLM_F_APPEND, |attrs| {
                    attrs.push_text(abi::rule::NFTA_RULE_CHAIN, chain);
                    expr::encode_rule(attrs, rule);
                });
            }
        }
    }

    fn push_set(&mut self, table: &TableId, set: &Set, id: u32) {
        let definition = &set.definition;
        self.push(table, msg::NEW_SET, message::NLM_F_CREATE, |attrs| {
            attrs.push_text(abi::set::NFTA_SET_NAME, &set.name);
            attrs.push_be32(abi::set::NFTA_SET_FLAGS, set_flags(definition));
            attrs.push_be32(abi::set::NFTA_SET_KEY_TYPE, definition.key_type.id);
            attrs.push_be32(abi::set::NFTA_SET_KEY_LEN, definition.key_type.length);
            match definition.value_type {
                Some(ValueType::Data(data_type)) => {
                    attrs.push_be32(abi::set::NFTA_SET_DATA_TYPE, data_type.id);
                    attrs.push_be32(abi::set::NFTA_SET_DATA_LEN, data_type.length);
                }
                Some(ValueType::Verdict) => {
                    attrs.push_be32(abi::set::NFTA_SET_DATA_TYPE, abi::data::TYPE_VERDICT);
                }
                None => {}
            }
            attrs.push_be32(abi::set::NFTA_SET_ID, id);
            if definition.has_counters {
                expr::encode_counter(attrs, abi::set::NFTA_SET_EXPR, Counter::default());
            }
            encode_description(attrs, definition);
            encode_byte_order(attrs, definition);
        });
    }

    /// Appends messages with all elements. Each message has as many elements as fit into [`MAX_LIST_LENGTH`].
    fn push_elements(
        &mut self,
        table: &TableId,
        message: u16,
        set: &Set,
        elements: &[&Element],
        encode: fn(&mut Attrs<'_>, &Set, &Element),
    ) {
        let flags = if message == msg::NEW_ELEMENTS { message::NLM_F_CREATE } else { 0 };
        let mut remaining_elements = elements.iter().peekable();
        while remaining_elements.peek().is_some() {
            self.push(table, message, flags, |attrs| {
                attrs.push_text(abi::elements::NFTA_SET_ELEM_LIST_SET, &set.name);
                attrs.push_nested(abi::elements::NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
                    let start = list.buffer_length();
                    while let Some(element) =
                        remaining_elements.next_if(|_| list.buffer_length() - start < MAX_LIST_LENGTH)
                    {
                        encode(list, set, element);
                    }
                });
            });
        }
    }

    fn push_chain(&mut self, table: &TableId, chain: &Chain) {
        self.push(table, msg::NEW_CHAIN, message::NLM_F_CREATE, |attrs| {
            attrs.push_text(abi::chain::NFTA_CHAIN_NAME, &chain.name);
            if let Some(base) = &chain.base {
                encode_base_chain(attrs, table.family, base);
            }
        });
    }
}

fn encode_base_chain(attrs: &mut Attrs<'_>, family: TableFamily, base: &BaseChain) {
    attrs.push_nested(abi::chain::NFTA_CHAIN_HOOK, |hook| {
        hook.push_be32(abi::hook::NFTA_HOOK_HOOKNUM, hook_number(family, &base.hook));
        hook.push_be32(abi::hook::NFTA_HOOK_PRIORITY, base.priority.cast_unsigned());
        match base.hook.interfaces() {
            [] => {}
            [interface] => hook.push_text(abi::hook::NFTA_HOOK_DEV, interface),
            interfaces => hook.push_nested(abi::hook::NFTA_HOOK_DEVS, |list| {
                for interface in interfaces {
                    list.push_text(abi::device::NFTA_DEVICE_NAME, interface);
                }
            }),
        }
    });
    attrs.push_be32(abi::chain::NFTA_CHAIN_POLICY, base.policy.number());
    attrs.push_text(abi::chain::NFTA_CHAIN_TYPE, base.chain_type.as_str());
}

impl Policy {
    fn number(self) -> u32 {
        match self {
            Self::Accept => abi::verdict::ACCEPT.cast_unsigned(),
            Self::Drop => abi::verdict::DROP.cast_unsigned(),
        }
    }
}

/// Returns the number of the hook. The numbers depend on the family.
fn hook_number(family: TableFamily, hook: &Hook) -> u32 {
    if hook.is_netdev() != (family == TableFamily::Netdev) {
        return NONEXISTENT_HOOK_NUMBER;
    }
    match hook {
        Hook::Prerouting => abi::hook::PREROUTING,
        Hook::Input => abi::hook::INPUT,
        Hook::Forward => abi::hook::FORWARD,
        Hook::Output => abi::hook::OUTPUT,
        Hook::Postrouting => abi::hook::POSTROUTING,
        Hook::Ingress(_) => abi::hook::NETDEV_INGRESS,
        Hook::Egress(_) => abi::hook::NETDEV_EGRESS,
    }
}
