//! The numbers of the kernel's conntrack interface (`linux/netfilter/nfnetlink_conntrack.h`). Pure.

/// `NFNL_SUBSYS_CTNETLINK` (`linux/netfilter/nfnetlink.h`), as the high byte of message types.
const SUBSYSTEM: u16 = 1 << 8;
/// `IPCTNL_MSG_CT_GET`.
pub(super) const GET_ENTRIES: u16 = SUBSYSTEM | 1;
/// `IPCTNL_MSG_CT_DELETE`.
pub(super) const DELETE_ENTRY: u16 = SUBSYSTEM | 2;
/// `IPCTNL_MSG_CT_GET_STATS_CPU`.
pub(super) const GET_CPU_STATISTICS: u16 = SUBSYSTEM | 4;
/// `IPCTNL_MSG_CT_GET_STATS`.
pub(super) const GET_STATISTICS: u16 = SUBSYSTEM | 5;
/// The length of struct `nfgenmsg` (`linux/netfilter/nfnetlink.h`).
pub(super) const HEADER_LEN: usize = 4;

/// `CTA_TUPLE_ORIG`.
pub(super) const TUPLE_ORIGINAL: u16 = 1;
/// `CTA_TUPLE_REPLY`.
pub(super) const TUPLE_REPLY: u16 = 2;
/// `CTA_STATUS`.
pub(super) const STATUS: u16 = 3;
/// `CTA_MARK`.
pub(super) const MARK: u16 = 8;
/// `CTA_ID`.
pub(super) const ID: u16 = 12;
/// `CTA_ZONE`.
pub(super) const ZONE: u16 = 18;
/// `CTA_MARK_MASK`.
pub(super) const MARK_MASK: u16 = 21;
/// `CTA_FILTER` (Linux 5.8).
pub(super) const FILTER: u16 = 25;

/// `IPS_SEEN_REPLY` (`linux/netfilter/nf_conntrack_common.h`).
pub(super) const STATUS_SEEN_REPLY: u32 = 1 << 1;

/// `CTA_TUPLE_IP`.
pub(super) const TUPLE_IP: u16 = 1;
/// `CTA_TUPLE_PROTO`.
pub(super) const TUPLE_PROTO: u16 = 2;
/// `CTA_TUPLE_ZONE`.
pub(super) const TUPLE_ZONE: u16 = 3;

/// `CTA_IP_V4_SRC`.
pub(super) const IP_V4_SOURCE: u16 = 1;
/// `CTA_IP_V4_DST`.
pub(super) const IP_V4_DESTINATION: u16 = 2;
/// `CTA_IP_V6_SRC`.
pub(super) const IP_V6_SOURCE: u16 = 3;
/// `CTA_IP_V6_DST`.
pub(super) const IP_V6_DESTINATION: u16 = 4;

/// `CTA_PROTO_NUM`.
pub(super) const PROTO_NUMBER: u16 = 1;
/// `CTA_PROTO_SRC_PORT`.
pub(super) const PROTO_SOURCE_PORT: u16 = 2;
/// `CTA_PROTO_DST_PORT`.
pub(super) const PROTO_DESTINATION_PORT: u16 = 3;

/// `CTA_FILTER_ORIG_FLAGS` (`net/netfilter/nf_conntrack_netlink.c`), a number in the byte order of the machine.
pub(super) const FILTER_ORIGINAL_FLAGS: u16 = 1;
/// `CTA_FILTER_F_CTA_IP_DST` (`net/netfilter/nf_internals.h`).
pub(super) const FILTER_FLAG_IP_DESTINATION: u32 = 1 << 1;
/// `CTA_FILTER_F_CTA_PROTO_NUM`.
pub(super) const FILTER_FLAG_PROTO_NUMBER: u32 = 1 << 3;
/// `CTA_FILTER_F_CTA_PROTO_DST_PORT`.
pub(super) const FILTER_FLAG_PROTO_DESTINATION_PORT: u32 = 1 << 5;
