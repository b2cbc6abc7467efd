//! Netfilter over netlink, without linked C code: nftables tables as values, and conntrack entries.
//!
//! [`netlink`] has attributes, messages and sockets. [`nft`] has tables, their encoding and a client. [`conntrack`] has
//! entries, statistics and a client.

pub mod conntrack;
pub mod netlink;
pub mod nft;
