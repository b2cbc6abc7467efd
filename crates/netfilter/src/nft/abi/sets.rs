//! The numbers of sets, elements and data (`linux/netfilter/nf_tables.h`). Pure.

/// enum `nft_set_attributes` and `nft_set_flags`.
pub mod set {
    /// Attribute: the table.
    pub const NFTA_SET_TABLE: u16 = 1;
    /// Attribute: the name.
    pub const NFTA_SET_NAME: u16 = 2;
    /// Attribute: the flags.
    pub const NFTA_SET_FLAGS: u16 = 3;
    /// Attribute: the type of the keys.
    pub const NFTA_SET_KEY_TYPE: u16 = 4;
    /// Attribute: the length of a key in bytes.
    pub const NFTA_SET_KEY_LEN: u16 = 5;
    /// Attribute: the type of the values.
    pub const NFTA_SET_DATA_TYPE: u16 = 6;
    /// Attribute: the length of a value in bytes.
    pub const NFTA_SET_DATA_LEN: u16 = 7;
    /// Attribute: the description of the set.
    pub const NFTA_SET_DESC: u16 = 9;
    /// Attribute: the number.
    pub const NFTA_SET_ID: u16 = 10;
    /// Attribute: the timeout.
    pub const NFTA_SET_TIMEOUT: u16 = 11;
    /// Attribute: the user data.
    pub const NFTA_SET_USERDATA: u16 = 13;
    /// `NFTNL_UDATA_SET_KEYBYTEORDER` (`include/libnftnl/udata.h` of libnftnl).
    pub const USER_DATA_KEY_ORDER: u8 = 0;
    /// `NFTNL_UDATA_SET_DATABYTEORDER`.
    pub const USER_DATA_VALUE_ORDER: u8 = 1;
    /// `BYTEORDER_HOST_ENDIAN` (`include/datatype.h` of nft).
    pub const MACHINE_ORDER: u32 = 1;
    /// Attribute: one expression.
    pub const NFTA_SET_EXPR: u16 = 17;
    /// Attribute: a list of expressions.
    pub const NFTA_SET_EXPRESSIONS: u16 = 18;
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
    /// Attribute: the size.
    pub const NFTA_SET_DESC_SIZE: u16 = 1;
    /// Attribute: the lengths of the concatenated parts.
    pub const NFTA_SET_DESC_CONCAT: u16 = 2;
}

/// enum `nft_set_field_attributes`.
pub mod field {
    /// Attribute: the length in bytes.
    pub const NFTA_SET_FIELD_LEN: u16 = 1;
}

/// enum `nft_set_elem_list_attributes`.
pub mod elements {
    /// Attribute: the table.
    pub const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
    /// Attribute: the set.
    pub const NFTA_SET_ELEM_LIST_SET: u16 = 2;
    /// Attribute: the list of elements.
    pub const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
}

/// enum `nft_set_elem_attributes` and `nft_set_elem_flags`.
pub mod element {
    /// Attribute: the key.
    pub const NFTA_SET_ELEM_KEY: u16 = 1;
    /// Attribute: the data.
    pub const NFTA_SET_ELEM_DATA: u16 = 2;
    /// Attribute: the flags.
    pub const NFTA_SET_ELEM_FLAGS: u16 = 3;
    /// Attribute: the timeout.
    pub const NFTA_SET_ELEM_TIMEOUT: u16 = 4;
    /// Attribute: the remaining lifetime.
    pub const NFTA_SET_ELEM_EXPIRATION: u16 = 5;
    /// Attribute: data that the kernel only stores.
    pub const NFTA_SET_ELEM_USERDATA: u16 = 6;
    /// Attribute: one expression.
    pub const NFTA_SET_ELEM_EXPR: u16 = 7;
    /// Attribute: the last key of the interval.
    pub const NFTA_SET_ELEM_KEY_END: u16 = 10;
    /// Attribute: a list of expressions.
    pub const NFTA_SET_ELEM_EXPRESSIONS: u16 = 11;
    /// `NFT_SET_ELEM_INTERVAL_END`.
    pub const FLAG_INTERVAL_END: u32 = 0x1;
}

/// enum `nft_data_attributes`, `nft_data_types` and `nft_verdict_attributes`.
pub mod data {
    /// Attribute: the value.
    pub const NFTA_DATA_VALUE: u16 = 1;
    /// Attribute: the verdict.
    pub const NFTA_DATA_VERDICT: u16 = 2;
    /// `NFT_DATA_VERDICT`.
    pub const TYPE_VERDICT: u32 = 0xffff_ff00;
    /// Attribute: the code of the verdict.
    pub const NFTA_VERDICT_CODE: u16 = 1;
    /// Attribute: the chain of the verdict.
    pub const NFTA_VERDICT_CHAIN: u16 = 2;
}

/// The user data of rules and elements, which the kernel only stores (`libnftnl/udata.h`).
pub mod user_data {
    /// `NFTNL_UDATA_RULE_COMMENT` and `NFTNL_UDATA_SET_ELEM_COMMENT`.
    pub const TYPE_COMMENT: u8 = 0;
}
