//! The numbers of tables, chains, rules and generations (`linux/netfilter/nf_tables.h`). Pure.

/// enum `nft_table_attributes`.
pub mod table {
    /// Attribute: the name.
    pub const NFTA_TABLE_NAME: u16 = 1;
    /// Attribute: the flags.
    pub const NFTA_TABLE_FLAGS: u16 = 2;
}

/// enum `nft_chain_attributes` and `nft_chain_flags`.
pub mod chain {
    /// Attribute: the table.
    pub const NFTA_CHAIN_TABLE: u16 = 1;
    /// Attribute: the name.
    pub const NFTA_CHAIN_NAME: u16 = 3;
    /// Attribute: the hook.
    pub const NFTA_CHAIN_HOOK: u16 = 4;
    /// Attribute: the policy.
    pub const NFTA_CHAIN_POLICY: u16 = 5;
    /// Attribute: the type.
    pub const NFTA_CHAIN_TYPE: u16 = 7;
    /// Attribute: the flags.
    pub const NFTA_CHAIN_FLAGS: u16 = 10;
    /// `NFT_CHAIN_BASE`.
    pub const FLAG_BASE: u32 = 1;
}

/// enum `nft_hook_attributes`, and the numbers of hooks (`linux/netfilter.h`).
pub mod hook {
    /// Attribute: the number of the hook.
    pub const NFTA_HOOK_HOOKNUM: u16 = 1;
    /// Attribute: the priority.
    pub const NFTA_HOOK_PRIORITY: u16 = 2;
    /// Attribute: the device.
    pub const NFTA_HOOK_DEV: u16 = 3;
    /// Attribute: a list of devices.
    pub const NFTA_HOOK_DEVS: u16 = 4;
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
    /// Attribute: the name.
    pub const NFTA_DEVICE_NAME: u16 = 1;
}

/// enum `nft_rule_attributes`, and the types of user data (`include/libnftnl/udata.h` of libnftnl).
pub mod rule {
    /// Attribute: the table.
    pub const NFTA_RULE_TABLE: u16 = 1;
    /// Attribute: the chain.
    pub const NFTA_RULE_CHAIN: u16 = 2;
    /// Attribute: a list of expressions.
    pub const NFTA_RULE_EXPRESSIONS: u16 = 4;
    /// Attribute: the user data.
    pub const NFTA_RULE_USERDATA: u16 = 7;
}

/// enum `nft_gen_attributes`.
pub mod generation {
    /// Attribute: the number.
    pub const NFTA_GEN_ID: u16 = 1;
    /// Attribute: the number of the process.
    pub const NFTA_GEN_PROC_PID: u16 = 2;
    /// Attribute: the name of the process.
    pub const NFTA_GEN_PROC_NAME: u16 = 3;
}
