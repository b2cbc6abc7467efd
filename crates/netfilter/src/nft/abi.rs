//! The numbers of the kernel's nftables interface. Pure.
//!
//! All numbers are from the kernel's headers linux/netfilter/nfnetlink.h and `linux/netfilter/nf_tables.h`. Each module
//! names its enums. A constant has the name in the header without the common prefix: `set::KEY_LEN` is
//! `NFTA_SET_KEY_LEN`.

/// `NFNL_SUBSYS_NFTABLES`.
pub const NFTABLES_SUBSYSTEM: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN`.
pub const BATCH_BEGIN: u16 = 0x10;
/// `NFNL_MSG_BATCH_END`.
pub const BATCH_END: u16 = 0x11;
/// The multicast group for changes of nftables (`NFNLGRP_NFTABLES`), as a bit.
pub const MULTICAST_GROUP: u32 = 1 << (7 - 1);
/// `NFPROTO_INET`.
pub const NFPROTO_INET: u8 = 1;
/// The length of struct `nfgenmsg`.
pub const HEADER_LEN: usize = 4;

/// Returns struct `nfgenmsg`, the fixed header of netfilter's messages: family, version 0, and a resource id. Only the
/// first and the last message of a batch have a resource id, which is the number of the subsystem.
#[must_use]
pub const fn header(family: u8, resource_id: u16) -> [u8; HEADER_LEN] {
    let [high, low] = resource_id.to_be_bytes();
    [family, 0, high, low]
}

/// Returns the netlink message type of an nftables message.
#[must_use]
pub const fn message_type(message: u16) -> u16 {
    NFTABLES_SUBSYSTEM << 8 | message
}

/// enum `nf_tables_msg_types`.
pub mod msg {
    pub const NEW_TABLE: u16 = 0;
    pub const GET_TABLE: u16 = 1;
    pub const DEL_TABLE: u16 = 2;
    pub const NEW_CHAIN: u16 = 3;
    pub const GET_CHAIN: u16 = 4;
    pub const NEW_RULE: u16 = 6;
    pub const GET_RULE: u16 = 7;
    pub const NEW_SET: u16 = 9;
    pub const GET_SET: u16 = 10;
    pub const NEW_ELEMENTS: u16 = 12;
    pub const GET_ELEMENTS: u16 = 13;
    pub const NEW_GENERATION: u16 = 15;
    pub const GET_GENERATION: u16 = 16;
}

/// enum `nft_table_attributes`.
pub mod table {
    pub const NAME: u16 = 1;
    pub const FLAGS: u16 = 2;
}

/// enum `nft_chain_attributes`.
pub mod chain {
    pub const TABLE: u16 = 1;
    pub const NAME: u16 = 3;
    pub const HOOK: u16 = 4;
    pub const POLICY: u16 = 5;
    pub const TYPE: u16 = 7;
}

/// enum `nft_hook_attributes`.
pub mod hook {
    pub const NUMBER: u16 = 1;
    pub const PRIORITY: u16 = 2;
}

/// enum `nft_rule_attributes`.
pub mod rule {
    pub const TABLE: u16 = 1;
    pub const CHAIN: u16 = 2;
    pub const EXPRESSIONS: u16 = 4;
}

/// enum `nft_set_attributes`, `nft_set_desc_attributes` and `nft_set_flags`.
pub mod set {
    pub const TABLE: u16 = 1;
    pub const NAME: u16 = 2;
    pub const FLAGS: u16 = 3;
    pub const KEY_TYPE: u16 = 4;
    pub const KEY_LEN: u16 = 5;
    pub const DATA_TYPE: u16 = 6;
    pub const DATA_LEN: u16 = 7;
    pub const DESCRIPTION: u16 = 9;
    pub const ID: u16 = 10;
    pub const EXPRESSION: u16 = 17;
    pub const EXPRESSIONS: u16 = 18;
    pub const SET_DESC_SIZE: u16 = 1;
    pub const FLAG_INTERVAL: u32 = 0x4;
    pub const FLAG_MAP: u32 = 0x8;
}

/// enum `nft_set_elem_list_attributes`.
pub mod elements {
    pub const TABLE: u16 = 1;
    pub const SET: u16 = 2;
    pub const ELEMENTS: u16 = 3;
}

/// enum `nft_set_elem_attributes` and `nft_set_elem_flags`.
pub mod element {
    pub const KEY: u16 = 1;
    pub const DATA: u16 = 2;
    pub const FLAGS: u16 = 3;
    pub const EXPRESSION: u16 = 7;
    pub const FLAG_END: u32 = 0x1;
}

/// enum `nft_list_attributes`: the attribute type of each item of a list.
pub const LIST_ITEM: u16 = 1;

/// enum `nft_data_attributes` and `nft_verdict_attributes`.
pub mod data {
    pub const VALUE: u16 = 1;
    pub const VERDICT: u16 = 2;
    pub const VERDICT_CODE: u16 = 1;
}

/// enum `nft_expr_attributes`.
pub mod expr {
    pub const NAME: u16 = 1;
    pub const DATA: u16 = 2;
}

/// enum `nft_meta_attributes` and `nft_meta_keys`.
pub mod meta {
    pub const DREG: u16 = 1;
    pub const KEY: u16 = 2;
    pub const KEY_NFPROTO: u32 = 15;
    pub const KEY_L4PROTO: u32 = 16;
}

/// enum `nft_ct_attributes`, `nft_ct_keys` and `ip_conntrack_dir`.
pub mod ct {
    pub const DREG: u16 = 1;
    pub const KEY: u16 = 2;
    pub const SREG: u16 = 4;
    pub const KEY_STATE: u32 = 0;
    pub const KEY_DIRECTION: u32 = 1;
    pub const KEY_STATUS: u32 = 2;
    pub const KEY_MARK: u32 = 3;
    pub const DIRECTION_ORIGINAL: u8 = 0;
}

/// enum `nft_counter_attributes`.
pub mod counter {
    pub const BYTES: u16 = 1;
    pub const PACKETS: u16 = 2;
}

/// enum `nft_payload_attributes` and `nft_payload_bases`.
pub mod payload {
    pub const DREG: u16 = 1;
    pub const BASE: u16 = 2;
    pub const OFFSET: u16 = 3;
    pub const LEN: u16 = 4;
    pub const BASE_NETWORK: u32 = 1;
    pub const BASE_TRANSPORT: u32 = 2;
}

/// enum `nft_cmp_attributes` and `nft_cmp_ops`.
pub mod cmp {
    pub const SREG: u16 = 1;
    pub const OP: u16 = 2;
    pub const DATA: u16 = 3;
    pub const OP_EQUAL: u32 = 0;
    pub const OP_NOT_EQUAL: u32 = 1;
}

/// enum `nft_bitwise_attributes`.
pub mod bitwise {
    pub const SREG: u16 = 1;
    pub const DREG: u16 = 2;
    pub const LEN: u16 = 3;
    pub const MASK: u16 = 4;
    pub const XOR: u16 = 5;
    pub const OP: u16 = 6;
}

/// enum `nft_lookup_attributes` and `nft_lookup_flags`.
pub mod lookup {
    pub const SET: u16 = 1;
    pub const SREG: u16 = 2;
    pub const DREG: u16 = 3;
    pub const FLAGS: u16 = 5;
    pub const FLAG_INVERT: u32 = 1;
}

/// enum `nft_immediate_attributes`.
pub mod immediate {
    pub const DREG: u16 = 1;
    pub const DATA: u16 = 2;
}

/// enum `nft_nat_attributes` and `nft_nat_types`.
pub mod nat {
    pub const TYPE: u16 = 1;
    pub const FAMILY: u16 = 2;
    pub const ADDRESS: u16 = 3;
    pub const PORT: u16 = 5;
    pub const FLAGS: u16 = 7;
    pub const TYPE_DNAT: u32 = 1;
}

/// enum `nft_gen_attributes`.
pub mod generation {
    pub const ID: u16 = 1;
}

/// `NFT_REG_VERDICT`, `NFT_REG_1` and `NFT_REG32_00`.
pub mod reg {
    pub const VERDICT: u32 = 0;
    pub const FIRST_16_BYTE_REGISTER: u32 = 1;
    pub const FIRST_4_BYTE_REGISTER: u32 = 8;
}
