//! The expressions of rules. Pure.

use std::num::NonZeroU32;

use akrobateo_core::Family;

use super::value::{Counter, Name, Value};
use super::verdict::Verdict;

/// A register of 4 bytes, from 0 to 15 (`NFT_REG32_00` to `NFT_REG32_15`). Longer data continue in the next registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reg(pub u8);

/// An expression of a rule. The names of fields are from the kernel's header `linux/netfilter/nf_tables.h`: `sreg` is a
/// source register, `dreg` is a destination register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// Loads metadata of the packet.
    Meta {
        /// A value of enum `nft_meta_keys`; see [`abi::meta`](crate::nft::abi::meta).
        key: u32,
        /// The destination register.
        dreg: Reg,
    },
    /// Changes metadata of the packet, for example its mark.
    SetMeta {
        /// A value of enum `nft_meta_keys`; see [`abi::meta`](crate::nft::abi::meta).
        key: u32,
        /// The source register.
        sreg: Reg,
    },
    /// Loads a property of the packet's conntrack entry.
    Ct {
        /// A value of enum `nft_ct_keys`; see [`abi::ct`](crate::nft::abi::ct).
        key: u32,
        /// The direction of the property; `None` if the property is the same in both directions.
        direction: Option<Direction>,
        /// The destination register.
        dreg: Reg,
    },
    /// Changes a property of the packet's conntrack entry: its mark; or its zone, if the chain runs before conntrack.
    SetCt {
        /// A value of enum `nft_ct_keys`; see [`abi::ct`](crate::nft::abi::ct).
        key: u32,
        /// The direction to which a zone applies; `None` for both directions.
        direction: Option<Direction>,
        /// The source register.
        sreg: Reg,
    },
    /// Loads a part of a header.
    Payload(PayloadField, Reg),
    /// Overwrites a part of a header. The kernel does not correct checksums, so this expression is only for link layer
    /// headers.
    SetPayload(PayloadField, Reg),
    /// Overwrites a part of a TCP option, if the packet has this option. The kernel corrects the TCP checksum.
    SetTcpOption {
        /// The kind of the option (IANA, "TCP Option Kind Numbers").
        kind: u8,
        /// The distance from the option's start, in bytes.
        offset: u32,
        /// The length, in bytes: 2 or 4. The kernel never increases a maximum segment size.
        length: u32,
        /// The source register, in network byte order.
        sreg: Reg,
    },
    /// Loads a property of the packet's route.
    Route {
        /// A value of enum `nft_rt_keys`; see [`abi::rt`](crate::nft::abi::rt).
        key: u32,
        /// The destination register.
        dreg: Reg,
    },
    /// Looks up an address of the packet in the routing tables.
    Fib {
        /// A value of enum `nft_fib_result`; see [`abi::fib`](crate::nft::abi::fib).
        result: u32,
        /// Flags of enum `nft_fib_flags`, combined with OR.
        flags: u32,
        /// The destination register.
        dreg: Reg,
    },
    /// Loads a random number from 0 to `modulus - 1`, in the byte order of the machine.
    RandomNumber {
        /// The number of possible results.
        modulus: NonZeroU32,
        /// The destination register.
        dreg: Reg,
    },
    /// Loads a constant.
    Immediate {
        /// The destination register.
        dreg: Reg,
        /// The constant.
        value: Value,
    },
    /// Matches if the comparison of a register with a constant is true.
    Cmp {
        /// The source register.
        sreg: Reg,
        /// The comparison. The comparisons "less" and "greater" compare byte by byte, so numbers must be in network
        /// byte order.
        op: CmpOp,
        /// The constant.
        value: Value,
    },
    /// Matches if the data in a register are in an interval, or outside of the interval if `is_inverted` is true.
    Range {
        /// The source register, in network byte order.
        sreg: Reg,
        /// True if the expression matches data outside of the interval.
        is_inverted: bool,
        /// The lowest data in the interval.
        first: Value,
        /// The highest data in the interval.
        last: Value,
    },
    /// Calculates `(sreg & mask) ^ xor`. [`Expr::and`] and [`Expr::or`] are simpler.
    Bitwise {
        /// The source register.
        sreg: Reg,
        /// The destination register.
        dreg: Reg,
        /// The bits that keep their value.
        mask: Value,
        /// The bits to invert afterwards. This value has as many bytes as `mask`.
        xor: Value,
    },
    /// Converts numbers from the machine's byte order to network byte order.
    ToNetworkOrder {
        /// The source register.
        sreg: Reg,
        /// The destination register.
        dreg: Reg,
        /// The length of all numbers in bytes.
        length: u32,
        /// The length of each number in bytes: 2 or 4.
        size: u32,
    },
    /// Looks up a key in a set or map.
    Lookup {
        /// The set's name.
        set: Name,
        /// The first register of the key.
        sreg: Reg,
        /// The use of the looked-up value.
        result: LookupResult,
    },
    /// Changes an element of a dynamic set.
    ChangeElement {
        /// The set's name.
        set: Name,
        /// The kind of the change.
        change: ElementChange,
        /// The first register of the key.
        key: Reg,
        /// The first register of the value, if the set is a map.
        value: Option<Reg>,
        /// The element's timeout; `None` for the timeout of the set.
        timeout_seconds: Option<NonZeroU32>,
    },
    /// Translates the source or the destination of the flow.
    Nat {
        /// The address to translate.
        kind: NatKind,
        /// The family of the address.
        family: Family,
        /// The first register of the new address; `None` keeps the address.
        address: Option<Reg>,
        /// The register of the new port; `None` keeps the port if possible.
        port: Option<Reg>,
        /// The choice of source ports.
        flags: NatFlags,
    },
    /// Translates the source of the flow to the address of the outgoing interface.
    Masquerade(NatFlags),
    /// Drops the packet and sends an error to its sender.
    Reject(Reject),
    /// Excludes the packet from conntrack. The chain must run before conntrack.
    NoTrack,
    /// Counts packets. If the crate creates the rule, the counter has the initial numbers. If the crate has read the
    /// rule, the counter has the numbers at the time of the read.
    Counter(Counter),
    /// Ends the rule, and applies a verdict to the packet.
    Verdict(Verdict),
}

impl Expr {
    /// Returns the expression that clears all bits of a register except those in `mask`.
    #[must_use]
    pub fn and(reg: Reg, mask: u32) -> Self {
        let [mask, xor] = [mask, 0].map(|bits| Value::from(bits.to_ne_bytes()));
        Self::Bitwise { sreg: reg, dreg: reg, mask, xor }
    }

    /// Returns the expression that sets `bits` in a register.
    #[must_use]
    pub fn or(reg: Reg, bits: u32) -> Self {
        let [mask, xor] = [!bits, bits].map(|bits| Value::from(bits.to_ne_bytes()));
        Self::Bitwise { sreg: reg, dreg: reg, mask, xor }
    }

    /// Returns the expression that matches if a register equals `value`.
    #[must_use]
    pub fn equal(sreg: Reg, value: impl Into<Value>) -> Self {
        Self::Cmp { sreg, op: CmpOp::Equal, value: value.into() }
    }

    /// Returns the expression that matches if a register differs from `value`.
    #[must_use]
    pub fn not_equal(sreg: Reg, value: impl Into<Value>) -> Self {
        Self::Cmp { sreg, op: CmpOp::NotEqual, value: value.into() }
    }

    /// Returns the expression that loads a part of a header.
    #[must_use]
    pub const fn payload(base: PayloadBase, offset: u32, length: u32, dreg: Reg) -> Self {
        Self::Payload(PayloadField { base, offset, length }, dreg)
    }

    /// Returns the expression that matches if the set contains the key.
    #[must_use]
    pub fn is_in(set: impl Into<Name>, sreg: Reg) -> Self {
        Self::Lookup { set: set.into(), sreg, result: LookupResult::Contained }
    }

    /// Returns the expression that matches if the set does not contain the key.
    #[must_use]
    pub fn is_not_in(set: impl Into<Name>, sreg: Reg) -> Self {
        Self::Lookup { set: set.into(), sreg, result: LookupResult::NotContained }
    }

    /// Returns the expression that loads the value of a key. If the map does not contain the key, the expression does
    /// not match.
    #[must_use]
    pub fn map(map: impl Into<Name>, sreg: Reg, dreg: Reg) -> Self {
        Self::Lookup { set: map.into(), sreg, result: LookupResult::Value(dreg) }
    }

    /// Returns the expression that executes the verdict of a key. If the map does not contain the key, the expression
    /// does not match.
    #[must_use]
    pub fn verdict_map(map: impl Into<Name>, sreg: Reg) -> Self {
        Self::Lookup { set: map.into(), sreg, result: LookupResult::Verdict }
    }

    /// Returns the name of the set or map that the expression uses.
    #[must_use]
    pub fn set_name(&self) -> Option<&Name> {
        match self {
            Self::Lookup { set, .. } | Self::ChangeElement { set, .. } => Some(set),
            _ => None,
        }
    }

    /// Returns the chain to which the expression sends packets.
    #[must_use]
    pub fn target_chain(&self) -> Option<&Name> {
        match self {
            Self::Verdict(verdict) => verdict.target_chain(),
            _ => None,
        }
    }
}

/// A part of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadField {
    /// The header.
    pub base: PayloadBase,
    /// The distance from the header's start, in bytes.
    pub offset: u32,
    /// The length, in bytes.
    pub length: u32,
}

/// A header of a packet (enum `nft_payload_bases`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadBase {
    /// The Ethernet header.
    Link,
    /// The IPv4 or IPv6 header.
    Network,
    /// The header of TCP, UDP or another protocol above IP.
    Transport,
}

/// A direction of a flow (enum `ip_conntrack_dir`, `linux/netfilter/nf_conntrack_tuple_common.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The direction of the flow's first packet.
    Original,
    /// The direction of the answers.
    Reply,
}

/// A comparison (enum `nft_cmp_ops`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CmpOp {
    /// The register equals the constant.
    Equal,
    /// The register differs from the constant.
    NotEqual,
    /// The register is less than the constant.
    Less,
    /// The register is less than the constant, or equal.
    LessOrEqual,
    /// The register is greater than the constant.
    Greater,
    /// The register is greater than the constant, or equal.
    GreaterOrEqual,
}

/// The use of a lookup's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupResult {
    /// The expression matches if the set contains the key.
    Contained,
    /// The expression matches if the set does not contain the key.
    NotContained,
    /// The map's value is loaded into this register. If the map does not contain the key, the expression does not
    /// match.
    Value(Reg),
    /// The verdict of the verdict map is executed. If the map does not contain the key, the expression does not match.
    Verdict,
}

/// A change of an element of a dynamic set by a packet (enum `nft_dynset_ops`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementChange {
    /// Adds the element. An existing element keeps its value, and its timeout continues.
    Add,
    /// Adds the element. An existing element keeps its value, and its timeout starts again.
    Update,
    /// Deletes the element (Linux 5.4).
    Delete,
}

/// The address that a NAT expression translates (enum `nft_nat_types`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatKind {
    /// The source.
    Source,
    /// The destination.
    Destination,
}

/// The choice of the source port (`linux/netfilter/nf_nat.h`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatFlags {
    /// Chooses a random port (`NF_NAT_RANGE_PROTO_RANDOM_FULLY`). Without this flag, the kernel keeps the source port
    /// of a flow if the port is free. Two flows that begin at the same time can then get the same port.
    pub is_fully_random: bool,
    /// Chooses the same address for all flows of a client (`NF_NAT_RANGE_PERSISTENT`).
    pub is_persistent: bool,
}

impl NatFlags {
    /// The flag `fully-random`.
    pub const FULLY_RANDOM: Self = Self { is_fully_random: true, is_persistent: false };
}

/// The answer to a rejected packet (enum `nft_reject_types`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// A TCP reset.
    TcpReset,
    /// "Destination unreachable" of ICMP or `ICMPv6` with this code, in chains of one family.
    Icmp(u8),
    /// "Destination unreachable" of ICMP or `ICMPv6`, with a code that exists in both protocols (enum
    /// `nft_reject_inet_code`;
    /// [`abi::reject`](crate::nft::abi::reject) has the numbers).
    Icmpx(u8),
}
