//! Netfilter over netlink, without linked C code: nftables tables as values, and conntrack entries.
//!
//! [`netlink`] has attributes, messages and sockets; [`nft`] has tables, their encoding and the client;
//! [`conntrack`] has entries, statistics and the client.

pub mod conntrack;
pub mod netlink;
pub mod nft;
