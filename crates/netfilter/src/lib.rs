//! Netfilter over netlink: nftables tables as values, and conntrack entries. The crate does not use C libraries.
//!
//! [`netlink`] has attributes, messages and sockets. [`nft`] has tables, their encoding and a client. [`conntrack`] has
//! entries, statistics and a client.

pub mod conntrack;
pub mod netlink;
pub mod nft;
