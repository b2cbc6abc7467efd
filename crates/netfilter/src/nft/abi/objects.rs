//! The numbers of tables, chains, rules and generations (`linux/netfilter/nf_tables.h`). Pure.

/// enum `nft_table_attributes`.
pub mod table {
    /// `NFTA_TABLE_NAME`.
    pub const NAME: u16 = 1;
    /// `NFTA_TABLE_FLAGS`.
    pub const FLAGS: u16 = 2;
}

/// enum `nft_chain_attributes` and `nft_chain_flags`.
pub mod chain {
    /// `NFTA_CHAIN_TABLE`.
    pub const TABLE: u16 = 1;
    /// `NFTA_CHAIN_NAME`.
    pub const NAME: u16 = 3;
    /// `NFTA_CHAIN_HOOK`.
    pub const HOOK: u16 = 4;
    /// `NFTA_CHAIN_POLICY`.
    pub const POLICY: u16 = 5;
    /// `NFTA_CHAIN_TYPE`.
    pub const TYPE: u16 = 7;
    /// `NFTA_CHAIN_FLAGS`.
    pub const FLAGS: u16 = 10;
    /// `NFT_CHAIN_BASE`.
    pub const FLAG_BASE: u32 = 1;
}

/// enum `nft_hook_attributes`, and the numbers of hooks (`linux/netfilter.h`).
pub mod hook {
    /// `NFTA_HOOK_HOOKNUM`.
    pub const NUMBER: u16 = 1;
    /// `NFTA_HOOK_PRIORITY`.
    pub const PRIORITY: u16 = 2;
    /// `NFTA_HOOK_DEV`.
    pub const DEVICE: u16 = 3;
    /// `NFTA_HOOK_DEVS`.
    pub const DEVICES: u16 = 4;
    /// `NF_INET_PRE_ROUTING`.
    pub const PREROUTING: u32 = 0;
    /// `NF_INET_LOCAL_IN`.
    pub const INPUT: u32 = 1;
    /// `NF_INET_FORWARD`.
    pub const FORWARD: u32 = 2;
    /// `NF_INET_LOCAL_OUT`.
    pub const OUTPUT: u32 = 3;
    /// `NF_INET_POST_ROUTING`.
    pub const POSTROUTING: u32 = 4;
    /// `NF_NETDEV_INGRESS`.
    pub const NETDEV_INGRESS: u32 = 0;
    /// `NF_NETDEV_EGRESS`.
    pub const NETDEV_EGRESS: u32 = 1;
}

/// enum `nft_devices_attributes`.
pub mod device {
    /// `NFTA_DEVICE_NAME`.
    pub const NAME: u16 = 1;
}

/// enum `nft_rule_attributes`, and the types of user data (`include/libnftnl/udata.h` of libnftnl).
pub mod rule {
    /// `NFTA_RULE_TABLE`.
    pub const TABLE: u16 = 1;
    /// `NFTA_RULE_CHAIN`.
    pub const CHAIN: u16 = 2;
    /// `NFTA_RULE_EXPRESSIONS`.
    pub const EXPRESSIONS: u16 = 4;
    /// `NFTA_RULE_USERDATA`.
    pub const USER_DATA: u16 = 7;
    /// `NFTNL_UDATA_RULE_COMMENT`.
    pub const USER_DATA_COMMENT: u8 = 0;
}

/// enum `nft_gen_attributes`.
pub mod generation {
    /// `NFTA_GEN_ID`.
    pub const ID: u16 = 1;
    /// `NFTA_GEN_PROC_PID`.
    pub const PROCESS_ID: u16 = 2;
    /// `NFTA_GEN_PROC_NAME`.
    pub const PROCESS_NAME: u16 = 3;
}
