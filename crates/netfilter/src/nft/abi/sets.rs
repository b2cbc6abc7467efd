//! The numbers of sets, elements and data (`linux/netfilter/nf_tables.h`). Pure.

/// enum `nft_set_attributes` and `nft_set_flags`.
pub mod set {
    /// `NFTA_SET_TABLE`.
    pub const TABLE: u16 = 1;
    /// `NFTA_SET_NAME`.
    pub const NAME: u16 = 2;
    /// `NFTA_SET_FLAGS`.
    pub const FLAGS: u16 = 3;
    /// `NFTA_SET_KEY_TYPE`.
    pub const KEY_TYPE: u16 = 4;
    /// `NFTA_SET_KEY_LEN`.
    pub const KEY_LEN: u16 = 5;
    /// `NFTA_SET_DATA_TYPE`.
    pub const DATA_TYPE: u16 = 6;
    /// `NFTA_SET_DATA_LEN`.
    pub const DATA_LEN: u16 = 7;
    /// `NFTA_SET_DESC`.
    pub const DESCRIPTION: u16 = 9;
    /// `NFTA_SET_ID`.
    pub const ID: u16 = 10;
    /// `NFTA_SET_TIMEOUT`.
    pub const TIMEOUT: u16 = 11;
    /// `NFTA_SET_USERDATA`.
    pub const USER_DATA: u16 = 13;
    /// `NFTNL_UDATA_SET_KEYBYTEORDER` (`include/libnftnl/udata.h` of libnftnl).
    pub const USER_DATA_KEY_ORDER: u8 = 0;
    /// `NFTNL_UDATA_SET_DATABYTEORDER`.
    pub const USER_DATA_VALUE_ORDER: u8 = 1;
    /// `BYTEORDER_HOST_ENDIAN` (`include/datatype.h` of nft).
    pub const MACHINE_ORDER: u32 = 1;
    /// `NFTA_SET_EXPR`.
    pub const EXPRESSION: u16 = 17;
    /// `NFTA_SET_EXPRESSIONS`.
    pub const EXPRESSIONS: u16 = 18;
    /// `NFT_SET_ANONYMOUS`.
    pub const FLAG_ANONYMOUS: u32 = 0x1;
    /// `NFT_SET_INTERVAL`.
    pub const FLAG_INTERVAL: u32 = 0x4;
    /// `NFT_SET_MAP`.
    pub const FLAG_MAP: u32 = 0x8;
    /// `NFT_SET_TIMEOUT`.
    pub const FLAG_TIMEOUT: u32 = 0x10;
    /// `NFT_SET_EVAL`.
    pub const FLAG_EVAL: u32 = 0x20;
    /// `NFT_SET_CONCAT`.
    pub const FLAG_CONCAT: u32 = 0x80;
}

/// enum `nft_set_desc_attributes`.
pub mod set_description {
    /// `NFTA_SET_DESC_SIZE`.
    pub const SIZE: u16 = 1;
    /// `NFTA_SET_DESC_CONCAT`.
    pub const CONCAT: u16 = 2;
}

/// enum `nft_set_field_attributes`.
pub mod field {
    /// `NFTA_SET_FIELD_LEN`.
    pub const LEN: u16 = 1;
}

/// enum `nft_set_elem_list_attributes`.
pub mod elements {
    /// `NFTA_SET_ELEM_LIST_TABLE`.
    pub const TABLE: u16 = 1;
    /// `NFTA_SET_ELEM_LIST_SET`.
    pub const SET: u16 = 2;
    /// `NFTA_SET_ELEM_LIST_ELEMENTS`.
    pub const ELEMENTS: u16 = 3;
}

/// enum `nft_set_elem_attributes` and `nft_set_elem_flags`.
pub mod element {
    /// `NFTA_SET_ELEM_KEY`.
    pub const KEY: u16 = 1;
    /// `NFTA_SET_ELEM_DATA`.
    pub const DATA: u16 = 2;
    /// `NFTA_SET_ELEM_FLAGS`.
    pub const FLAGS: u16 = 3;
    /// `NFTA_SET_ELEM_TIMEOUT`.
    pub const TIMEOUT: u16 = 4;
    /// `NFTA_SET_ELEM_EXPIRATION`.
    pub const EXPIRATION: u16 = 5;
    /// `NFTA_SET_ELEM_EXPR`.
    pub const EXPRESSION: u16 = 7;
    /// `NFTA_SET_ELEM_KEY_END`.
    pub const KEY_END: u16 = 10;
    /// `NFTA_SET_ELEM_EXPRESSIONS`.
    pub const EXPRESSIONS: u16 = 11;
    /// `NFT_SET_ELEM_INTERVAL_END`.
    pub const FLAG_INTERVAL_END: u32 = 0x1;
}

/// enum `nft_data_attributes`, `nft_data_types` and `nft_verdict_attributes`.
pub mod data {
    /// `NFTA_DATA_VALUE`.
    pub const VALUE: u16 = 1;
    /// `NFTA_DATA_VERDICT`.
    pub const VERDICT: u16 = 2;
    /// `NFT_DATA_VERDICT`.
    pub const TYPE_VERDICT: u32 = 0xffff_ff00;
    /// `NFTA_VERDICT_CODE`.
    pub const VERDICT_CODE: u16 = 1;
    /// `NFTA_VERDICT_CHAIN`.
    pub const VERDICT_CHAIN: u16 = 2;
}
