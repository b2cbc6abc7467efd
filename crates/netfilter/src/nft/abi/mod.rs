//! The numbers of the kernel's nftables interface. Pure.
//!
//! Attributes have the names of the kernel (`NFTA_…` in `linux/netfilter/nf_tables.h`). The comment of each other item
//! contains the kernel's name of the constant. If the constant is in another header, the comment also contains the path
//! of this header.

mod expressions;
mod objects;
mod sets;

pub use expressions::{
    bitwise, byteorder, cmp, counter, ct, dynset, expr, exthdr, fib, immediate, lookup, masq, meta, nat,
    numgen, payload, range, reg, reject, rt, verdict,
};
pub use objects::{chain, device, generation, hook, rule, table};
pub use sets::{data, element, elements, field, set, set_description, user_data};

/// `NFNL_SUBSYS_NFTABLES` (`linux/netfilter/nfnetlink.h`).
pub const NFTABLES_SUBSYSTEM: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN` (`linux/netfilter/nfnetlink.h`).
pub const BATCH_BEGIN: u16 = 0x10;
/// `NFNL_MSG_BATCH_END` (`linux/netfilter/nfnetlink.h`).
pub const BATCH_END: u16 = 0x11;
/// The multicast group for changes of nftables, as a bit (`NFNLGRP_NFTABLES`, `linux/netfilter/nfnetlink.h`).
pub const MULTICAST_GROUP: u32 = 1 << (7 - 1);
/// The length of struct `nfgenmsg` (`linux/netfilter/nfnetlink.h`).
pub const HEADER_LENGTH: usize = 4;
/// Attribute: one item of a list.
pub const NFTA_LIST_ELEM: u16 = 1;

/// Returns struct `nfgenmsg`, the fixed header of netfilter's messages: family, version 0, and a resource ID. Only the
/// first and the last message of a batch have a resource ID, which is the number of the subsystem.
#[must_use]
pub const fn header(family: u8, resource_id: u16) -> [u8; HEADER_LENGTH] {
    let [high, low] = resource_id.to_be_bytes();
    [family, 0, high, low]
}

/// Returns the netlink message type of an nftables message.
#[must_use]
pub const fn message_type(message: u16) -> u16 {
    NFTABLES_SUBSYSTEM << 8 | message
}

/// Returns the nftables message of a netlink message type; `None` for the message type of another subsystem.
#[must_use]
pub const fn message_of_type(message_type: u16) -> Option<u16> {
    if message_type >> 8 == NFTABLES_SUBSYSTEM { Some(message_type & 0xff) } else { None }
}

/// The error for a property that this crate cannot encode. The object with this property comes from another program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UnsupportedProperty;

/// enum `nf_tables_msg_types`.
pub mod msg {
    /// `NFT_MSG_NEWTABLE`.
    pub const NEW_TABLE: u16 = 0;
    /// `NFT_MSG_GETTABLE`.
    pub const GET_TABLE: u16 = 1;
    /// `NFT_MSG_DELTABLE`.
    pub const DEL_TABLE: u16 = 2;
    /// `NFT_MSG_NEWCHAIN`.
    pub const NEW_CHAIN: u16 = 3;
    /// `NFT_MSG_GETCHAIN`.
    pub const GET_CHAIN: u16 = 4;
    /// `NFT_MSG_DELCHAIN`.
    pub const DEL_CHAIN: u16 = 5;
    /// `NFT_MSG_NEWRULE`.
    pub const NEW_RULE: u16 = 6;
    /// `NFT_MSG_GETRULE`.
    pub const GET_RULE: u16 = 7;
    /// `NFT_MSG_DELRULE`.
    pub const DEL_RULE: u16 = 8;
    /// `NFT_MSG_NEWSET`.
    pub const NEW_SET: u16 = 9;
    /// `NFT_MSG_GETSET`.
    pub const GET_SET: u16 = 10;
    /// `NFT_MSG_DELSET`.
    pub const DEL_SET: u16 = 11;
    /// `NFT_MSG_NEWSETELEM`.
    pub const NEW_ELEMENTS: u16 = 12;
    /// `NFT_MSG_GETSETELEM`.
    pub const GET_ELEMENTS: u16 = 13;
    /// `NFT_MSG_DELSETELEM`.
    pub const DEL_ELEMENTS: u16 = 14;
    /// `NFT_MSG_NEWGEN`.
    pub const NEW_GENERATION: u16 = 15;
    /// `NFT_MSG_GETGEN`.
    pub const GET_GENERATION: u16 = 16;
    /// `NFT_MSG_NEWOBJ`.
    pub const NEW_OBJECT: u16 = 18;
    /// `NFT_MSG_DELOBJ`.
    pub const DEL_OBJECT: u16 = 20;
    /// `NFT_MSG_NEWFLOWTABLE`.
    pub const NEW_FLOWTABLE: u16 = 22;
    /// `NFT_MSG_DELFLOWTABLE`.
    pub const DEL_FLOWTABLE: u16 = 24;
}
