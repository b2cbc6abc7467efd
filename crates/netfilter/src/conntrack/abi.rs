//! The numbers of the kernel's conntrack interface (`linux/netfilter/nfnetlink_conntrack.h`). Pure.

/// `NFNL_SUBSYS_CTNETLINK` (`linux/netfilter/nfnetlink.h`), as the high byte of message types.
const CTNETLINK_SUBSYSTEM: u16 = 1 << 8;
/// `IPCTNL_MSG_CT_GET`.
pub(super) const GET_ENTRIES: u16 = CTNETLINK_SUBSYSTEM | 1;
/// `IPCTNL_MSG_CT_DELETE`.
pub(super) const DELETE_ENTRY: u16 = CTNETLINK_SUBSYSTEM | 2;
/// `IPCTNL_MSG_CT_GET_STATS_CPU`.
pub(super) const GET_CPU_STATISTICS: u16 = CTNETLINK_SUBSYSTEM | 4;
/// `IPCTNL_MSG_CT_GET_STATS`.
pub(super) const GET_STATISTICS: u16 = CTNETLINK_SUBSYSTEM | 5;
/// The length of struct `nfgenmsg` (`linux/netfilter/nfnetlink.h`).
pub(super) const HEADER_LENGTH: usize = 4;

// The attributes of a conntrack entry.
pub(super) const CTA_TUPLE_ORIG: u16 = 1;
pub(super) const CTA_TUPLE_REPLY: u16 = 2;
pub(super) const CTA_STATUS: u16 = 3;
pub(super) const CTA_MARK: u16 = 8;
pub(super) const CTA_ID: u16 = 12;
pub(super) const CTA_ZONE: u16 = 18;
pub(super) const CTA_MARK_MASK: u16 = 21;
/// Exists since Linux 5.8.
pub(super) const CTA_FILTER: u16 = 25;

/// `IPS_SEEN_REPLY` (`linux/netfilter/nf_conntrack_common.h`).
pub(super) const STATUS_SEEN_REPLY: u32 = 1 << 1;

// The attributes inside `CTA_TUPLE_ORIG` and `CTA_TUPLE_REPLY`.
pub(super) const CTA_TUPLE_IP: u16 = 1;
pub(super) const CTA_TUPLE_PROTO: u16 = 2;
pub(super) const CTA_TUPLE_ZONE: u16 = 3;

// The attributes inside `CTA_TUPLE_IP`.
pub(super) const CTA_IP_V4_SRC: u16 = 1;
pub(super) const CTA_IP_V4_DST: u16 = 2;
pub(super) const CTA_IP_V6_SRC: u16 = 3;
pub(super) const CTA_IP_V6_DST: u16 = 4;

// The attributes inside `CTA_TUPLE_PROTO`.
pub(super) const CTA_PROTO_NUM: u16 = 1;
pub(super) const CTA_PROTO_SRC_PORT: u16 = 2;
pub(super) const CTA_PROTO_DST_PORT: u16 = 3;

/// An attribute inside `CTA_FILTER` (`net/netfilter/nf_conntrack_netlink.c`): a number in the byte order of the
/// machine.
pub(super) const CTA_FILTER_ORIG_FLAGS: u16 = 1;
// The bits of `CTA_FILTER_ORIG_FLAGS` (`net/netfilter/nf_internals.h`).
pub(super) const CTA_FILTER_F_CTA_IP_DST: u32 = 1 << 1;
pub(super) const CTA_FILTER_F_CTA_PROTO_NUM: u32 = 1 << 3;
pub(super) const CTA_FILTER_F_CTA_PROTO_DST_PORT: u32 = 1 << 5;
