//! The numbers of expressions (`linux/netfilter/nf_tables.h`). Pure.

/// enum `nft_expr_attributes`.
pub mod expr {
    /// Attribute: the name.
    pub const NFTA_EXPR_NAME: u16 = 1;
    /// Attribute: the data.
    pub const NFTA_EXPR_DATA: u16 = 2;
}

/// enum `nft_registers`.
pub mod reg {
    /// `NFT_REG_VERDICT`.
    pub const VERDICT: u32 = 0;
    /// `NFT_REG_1`.
    pub const FIRST_16_BYTE_REGISTER: u32 = 1;
    /// `NFT_REG32_00`.
    pub const FIRST_4_BYTE_REGISTER: u32 = 8;
}

/// enum `nft_verdicts`, and the verdicts of `linux/netfilter.h`.
pub mod verdict {
    /// `NF_DROP`.
    pub const DROP: i32 = 0;
    /// `NF_ACCEPT`.
    pub const ACCEPT: i32 = 1;
    /// `NFT_CONTINUE`.
    pub const CONTINUE: i32 = -1;
    /// `NFT_JUMP`.
    pub const JUMP: i32 = -3;
    /// `NFT_GOTO`.
    pub const GOTO: i32 = -4;
    /// `NFT_RETURN`.
    pub const RETURN: i32 = -5;
}

/// enum `nft_meta_attributes` and `nft_meta_keys`.
pub mod meta {
    /// Attribute: the destination register.
    pub const NFTA_META_DREG: u16 = 1;
    /// Attribute: the key.
    pub const NFTA_META_KEY: u16 = 2;
    /// Attribute: the source register.
    pub const NFTA_META_SREG: u16 = 3;
    /// `NFT_META_PROTOCOL`: the type of the frame, in network byte order.
    pub const KEY_PROTOCOL: u32 = 1;
    /// `NFT_META_MARK`.
    pub const KEY_MARK: u32 = 3;
    /// `NFT_META_IIF`: the index of the input interface.
    pub const KEY_INPUT_INTERFACE: u32 = 4;
    /// `NFT_META_OIF`: the index of the output interface.
    pub const KEY_OUTPUT_INTERFACE: u32 = 5;
    /// `NFT_META_IIFNAME`.
    pub const KEY_INPUT_INTERFACE_NAME: u32 = 6;
    /// `NFT_META_OIFNAME`.
    pub const KEY_OUTPUT_INTERFACE_NAME: u32 = 7;
    /// `NFT_META_NFPROTO`.
    pub const KEY_NFPROTO: u32 = 15;
    /// `NFT_META_L4PROTO`.
    pub const KEY_L4PROTO: u32 = 16;
}

/// enum `nft_ct_attributes` and `nft_ct_keys`, and `linux/netfilter/nf_conntrack_common.h`.
pub mod ct {
    /// Attribute: the destination register.
    pub const NFTA_CT_DREG: u16 = 1;
    /// Attribute: the key.
    pub const NFTA_CT_KEY: u16 = 2;
    /// Attribute: the direction.
    pub const NFTA_CT_DIRECTION: u16 = 3;
    /// Attribute: the source register.
    pub const NFTA_CT_SREG: u16 = 4;
    /// `NFT_CT_STATE`.
    pub const KEY_STATE: u32 = 0;
    /// `NFT_CT_DIRECTION`: one byte, see `DIRECTION_ORIGINAL`.
    pub const KEY_DIRECTION: u32 = 1;
    /// `NFT_CT_STATUS`.
    pub const KEY_STATUS: u32 = 2;
    /// `NFT_CT_MARK`.
    pub const KEY_MARK: u32 = 3;
    /// `NFT_CT_PROTO_SRC`: the source port of a direction, in network byte order.
    pub const KEY_SOURCE_PORT: u32 = 11;
    /// `NFT_CT_PROTO_DST`: the destination port of a direction, in network byte order.
    pub const KEY_DESTINATION_PORT: u32 = 12;
    /// `NFT_CT_ZONE`: two bytes in the byte order of the machine.
    pub const KEY_ZONE: u32 = 17;
    /// `IP_CT_DIR_ORIGINAL`.
    pub const DIRECTION_ORIGINAL: u8 = 0;
    /// `IP_CT_DIR_REPLY`.
    pub const DIRECTION_REPLY: u8 = 1;
    /// `NF_CT_STATE_INVALID_BIT`.
    pub const STATE_INVALID: u32 = 1;
    /// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED)`.
    pub const STATE_ESTABLISHED: u32 = 1 << 1;
    /// `NF_CT_STATE_BIT(IP_CT_RELATED)`.
    pub const STATE_RELATED: u32 = 1 << 2;
    /// `NF_CT_STATE_BIT(IP_CT_NEW)`.
    pub const STATE_NEW: u32 = 1 << 3;
    /// `IPS_SRC_NAT`.
    pub const STATUS_SNAT: u32 = 1 << 4;
    /// `IPS_DST_NAT`.
    pub const STATUS_DNAT: u32 = 1 << 5;
}

/// enum `nft_counter_attributes`.
pub mod counter {
    /// Attribute: the number of bytes.
    pub const NFTA_COUNTER_BYTES: u16 = 1;
    /// Attribute: the number of packets.
    pub const NFTA_COUNTER_PACKETS: u16 = 2;
}

/// enum `nft_payload_attributes`, `nft_payload_bases` and `nft_payload_csum_types`.
pub mod payload {
    /// Attribute: the destination register.
    pub const NFTA_PAYLOAD_DREG: u16 = 1;
    /// Attribute: the base.
    pub const NFTA_PAYLOAD_BASE: u16 = 2;
    /// Attribute: the offset.
    pub const NFTA_PAYLOAD_OFFSET: u16 = 3;
    /// Attribute: the length in bytes.
    pub const NFTA_PAYLOAD_LEN: u16 = 4;
    /// Attribute: the source register.
    pub const NFTA_PAYLOAD_SREG: u16 = 5;
    /// Attribute: the type of the checksum.
    pub const NFTA_PAYLOAD_CSUM_TYPE: u16 = 6;
    /// Attribute: the offset of the checksum.
    pub const NFTA_PAYLOAD_CSUM_OFFSET: u16 = 7;
    /// Attribute: the flags of the checksum.
    pub const NFTA_PAYLOAD_CSUM_FLAGS: u16 = 8;
    /// `NFT_PAYLOAD_LL_HEADER`.
    pub const BASE_LINK: u32 = 0;
    /// `NFT_PAYLOAD_NETWORK_HEADER`.
    pub const BASE_NETWORK: u32 = 1;
    /// `NFT_PAYLOAD_TRANSPORT_HEADER`.
    pub const BASE_TRANSPORT: u32 = 2;
    /// `NFT_PAYLOAD_CSUM_NONE`.
    pub const CHECKSUM_NONE: u32 = 0;
}

/// enum `nft_cmp_attributes` and `nft_cmp_ops`.
pub mod cmp {
    /// Attribute: the source register.
    pub const NFTA_CMP_SREG: u16 = 1;
    /// Attribute: the operation.
    pub const NFTA_CMP_OP: u16 = 2;
    /// Attribute: the data.
    pub const NFTA_CMP_DATA: u16 = 3;
    /// `NFT_CMP_EQ`.
    pub const OP_EQUAL: u32 = 0;
    /// `NFT_CMP_NEQ`.
    pub const OP_NOT_EQUAL: u32 = 1;
    /// `NFT_CMP_LT`.
    pub const OP_LESS: u32 = 2;
    /// `NFT_CMP_LTE`.
    pub const OP_LESS_OR_EQUAL: u32 = 3;
    /// `NFT_CMP_GT`.
    pub const OP_GREATER: u32 = 4;
    /// `NFT_CMP_GTE`.
    pub const OP_GREATER_OR_EQUAL: u32 = 5;
}

/// enum `nft_range_attributes` and `nft_range_ops`.
pub mod range {
    /// Attribute: the source register.
    pub const NFTA_RANGE_SREG: u16 = 1;
    /// Attribute: the operation.
    pub const NFTA_RANGE_OP: u16 = 2;
    /// Attribute: the first value of the range.
    pub const NFTA_RANGE_FROM_DATA: u16 = 3;
    /// Attribute: the last value of the range.
    pub const NFTA_RANGE_TO_DATA: u16 = 4;
    /// `NFT_RANGE_EQ`.
    pub const OP_INSIDE: u32 = 0;
    /// `NFT_RANGE_NEQ`.
    pub const OP_OUTSIDE: u32 = 1;
}

/// enum `nft_bitwise_attributes` and `nft_bitwise_ops`.
pub mod bitwise {
    /// Attribute: the source register.
    pub const NFTA_BITWISE_SREG: u16 = 1;
    /// Attribute: the destination register.
    pub const NFTA_BITWISE_DREG: u16 = 2;
    /// Attribute: the length in bytes.
    pub const NFTA_BITWISE_LEN: u16 = 3;
    /// Attribute: the mask for AND.
    pub const NFTA_BITWISE_MASK: u16 = 4;
    /// Attribute: the value for XOR.
    pub const NFTA_BITWISE_XOR: u16 = 5;
    /// Attribute: the operation.
    pub const NFTA_BITWISE_OP: u16 = 6;
    /// `NFT_BITWISE_MASK_XOR`.
    pub const OP_MASK_XOR: u32 = 0;
}

/// enum `nft_byteorder_attributes` and `nft_byteorder_ops`.
pub mod byteorder {
    /// Attribute: the source register.
    pub const NFTA_BYTEORDER_SREG: u16 = 1;
    /// Attribute: the destination register.
    pub const NFTA_BYTEORDER_DREG: u16 = 2;
    /// Attribute: the operation.
    pub const NFTA_BYTEORDER_OP: u16 = 3;
    /// Attribute: the length in bytes.
    pub const NFTA_BYTEORDER_LEN: u16 = 4;
    /// Attribute: the size.
    pub const NFTA_BYTEORDER_SIZE: u16 = 5;
    /// `NFT_BYTEORDER_HTON`.
    pub const OP_TO_NETWORK: u32 = 1;
}

/// enum `nft_lookup_attributes` and `nft_lookup_flags`.
pub mod lookup {
    /// Attribute: the set.
    pub const NFTA_LOOKUP_SET: u16 = 1;
    /// Attribute: the source register.
    pub const NFTA_LOOKUP_SREG: u16 = 2;
    /// Attribute: the destination register.
    pub const NFTA_LOOKUP_DREG: u16 = 3;
    /// Attribute: the flags.
    pub const NFTA_LOOKUP_FLAGS: u16 = 5;
    /// `NFT_LOOKUP_F_INV`.
    pub const FLAG_INVERT: u32 = 1;
}

/// enum `nft_dynset_attributes`, `nft_dynset_ops` and `nft_dynset_flags`.
pub mod dynset {
    /// Attribute: the set.
    pub const NFTA_DYNSET_SET_NAME: u16 = 1;
    /// Attribute: the operation.
    pub const NFTA_DYNSET_OP: u16 = 3;
    /// Attribute: the source register of the key.
    pub const NFTA_DYNSET_SREG_KEY: u16 = 4;
    /// Attribute: the source register of the value.
    pub const NFTA_DYNSET_SREG_DATA: u16 = 5;
    /// Attribute: the timeout.
    pub const NFTA_DYNSET_TIMEOUT: u16 = 6;
    /// Attribute: one expression.
    pub const NFTA_DYNSET_EXPR: u16 = 7;
    /// Attribute: the flags.
    pub const NFTA_DYNSET_FLAGS: u16 = 9;
    /// Attribute: a list of expressions.
    pub const NFTA_DYNSET_EXPRESSIONS: u16 = 10;
    /// `NFT_DYNSET_OP_ADD`.
    pub const OP_ADD: u32 = 0;
    /// `NFT_DYNSET_OP_UPDATE`.
    pub const OP_UPDATE: u32 = 1;
    /// `NFT_DYNSET_OP_DELETE`.
    pub const OP_DELETE: u32 = 2;
}

/// enum `nft_immediate_attributes`.
pub mod immediate {
    /// Attribute: the destination register.
    pub const NFTA_IMMEDIATE_DREG: u16 = 1;
    /// Attribute: the data.
    pub const NFTA_IMMEDIATE_DATA: u16 = 2;
}

/// enum `nft_nat_attributes` and `nft_nat_types`, and `linux/netfilter/nf_nat.h`.
pub mod nat {
    /// Attribute: the type.
    pub const NFTA_NAT_TYPE: u16 = 1;
    /// Attribute: the family.
    pub const NFTA_NAT_FAMILY: u16 = 2;
    /// Attribute: the register of the first address.
    pub const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
    /// Attribute: the register of the last address.
    pub const NFTA_NAT_REG_ADDR_MAX: u16 = 4;
    /// Attribute: the register of the first port.
    pub const NFTA_NAT_REG_PROTO_MIN: u16 = 5;
    /// Attribute: the register of the last port.
    pub const NFTA_NAT_REG_PROTO_MAX: u16 = 6;
    /// Attribute: the flags.
    pub const NFTA_NAT_FLAGS: u16 = 7;
    /// `NFT_NAT_SNAT`.
    pub const TYPE_SNAT: u32 = 0;
    /// `NFT_NAT_DNAT`.
    pub const TYPE_DNAT: u32 = 1;
    /// `NF_NAT_RANGE_MAP_IPS`: set by the kernel.
    pub const FLAG_MAP_IPS: u32 = 1 << 0;
    /// `NF_NAT_RANGE_PROTO_SPECIFIED`: set by the kernel.
    pub const FLAG_PROTO_SPECIFIED: u32 = 1 << 1;
    /// `NF_NAT_RANGE_PERSISTENT`.
    pub const FLAG_PERSISTENT: u32 = 1 << 3;
    /// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`.
    pub const FLAG_FULLY_RANDOM: u32 = 1 << 4;
}

/// enum `nft_masq_attributes`.
pub mod masq {
    /// Attribute: the flags.
    pub const NFTA_MASQ_FLAGS: u16 = 1;
    /// Attribute: the register of the first port.
    pub const NFTA_MASQ_REG_PROTO_MIN: u16 = 2;
}

/// enum `nft_ng_attributes` and `nft_ng_types`.
pub mod numgen {
    /// Attribute: the destination register.
    pub const NFTA_NG_DREG: u16 = 1;
    /// Attribute: the number of possible values.
    pub const NFTA_NG_MODULUS: u16 = 2;
    /// Attribute: the type.
    pub const NFTA_NG_TYPE: u16 = 3;
    /// Attribute: the offset.
    pub const NFTA_NG_OFFSET: u16 = 4;
    /// `NFT_NG_RANDOM`.
    pub const TYPE_RANDOM: u32 = 1;
}

/// enum `nft_reject_attributes`, `nft_reject_types` and `nft_reject_inet_code`, and `linux/icmp.h` and
/// `linux/icmpv6.h`.
pub mod reject {
    /// Attribute: the type.
    pub const NFTA_REJECT_TYPE: u16 = 1;
    /// Attribute: the ICMP code.
    pub const NFTA_REJECT_ICMP_CODE: u16 = 2;
    /// `NFT_REJECT_ICMP_UNREACH`.
    pub const TYPE_ICMP: u32 = 0;
    /// `NFT_REJECT_TCP_RST`.
    pub const TYPE_TCP_RESET: u32 = 1;
    /// `NFT_REJECT_ICMPX_UNREACH`.
    pub const TYPE_ICMPX: u32 = 2;
    /// `NFT_REJECT_ICMPX_PORT_UNREACH`.
    pub const ICMPX_PORT_UNREACHABLE: u8 = 1;
    /// `NFT_REJECT_ICMPX_ADMIN_PROHIBITED`.
    pub const ICMPX_ADMIN_PROHIBITED: u8 = 3;
    /// `ICMP_PORT_UNREACH`.
    pub const ICMP_PORT_UNREACHABLE: u8 = 3;
    /// `ICMPV6_PORT_UNREACH`.
    pub const ICMPV6_PORT_UNREACHABLE: u8 = 4;
}

/// enum `nft_fib_attributes`, `nft_fib_result` and `nft_fib_flags`, and `linux/rtnetlink.h`.
pub mod fib {
    /// Attribute: the destination register.
    pub const NFTA_FIB_DREG: u16 = 1;
    /// Attribute: the result.
    pub const NFTA_FIB_RESULT: u16 = 2;
    /// Attribute: the flags.
    pub const NFTA_FIB_FLAGS: u16 = 3;
    /// `NFT_FIB_RESULT_OIF`: the index of the interface.
    pub const RESULT_INTERFACE: u32 = 1;
    /// `NFT_FIB_RESULT_ADDRTYPE`: for example `TYPE_LOCAL`, in the byte order of the machine.
    pub const RESULT_ADDRESS_TYPE: u32 = 3;
    /// Flag of the lookup: compare the source address.
    pub const NFTA_FIB_F_SADDR: u32 = 1 << 0;
    /// Flag of the lookup: compare the destination address.
    pub const NFTA_FIB_F_DADDR: u32 = 1 << 1;
    /// Flag of the lookup: also compare the mark of the packet.
    pub const NFTA_FIB_F_MARK: u32 = 1 << 2;
    /// Flag of the lookup: also compare the input interface.
    pub const NFTA_FIB_F_IIF: u32 = 1 << 3;
    /// `RTN_LOCAL`.
    pub const TYPE_LOCAL: u32 = 2;
}

/// enum `nft_exthdr_attributes` and `nft_exthdr_op`, and `linux/tcp.h`.
pub mod exthdr {
    /// Attribute: the destination register.
    pub const NFTA_EXTHDR_DREG: u16 = 1;
    /// Attribute: the type.
    pub const NFTA_EXTHDR_TYPE: u16 = 2;
    /// Attribute: the offset.
    pub const NFTA_EXTHDR_OFFSET: u16 = 3;
    /// Attribute: the length in bytes.
    pub const NFTA_EXTHDR_LEN: u16 = 4;
    /// Attribute: the flags.
    pub const NFTA_EXTHDR_FLAGS: u16 = 5;
    /// Attribute: the operation.
    pub const NFTA_EXTHDR_OP: u16 = 6;
    /// Attribute: the source register.
    pub const NFTA_EXTHDR_SREG: u16 = 7;
    /// `NFT_EXTHDR_OP_TCPOPT`.
    pub const OP_TCP_OPTION: u32 = 1;
    /// `TCPOPT_MAXSEG`.
    pub const TCP_OPTION_MAXSEG: u8 = 2;
}

/// enum `nft_rt_attributes` and `nft_rt_keys`.
pub mod rt {
    /// Attribute: the destination register.
    pub const NFTA_RT_DREG: u16 = 1;
    /// Attribute: the key.
    pub const NFTA_RT_KEY: u16 = 2;
    /// `NFT_RT_TCPMSS`: the maximum segment size that fits into the path MTU, two bytes in the byte order of the
    /// machine.
    pub const KEY_TCP_MSS: u32 = 3;
}
