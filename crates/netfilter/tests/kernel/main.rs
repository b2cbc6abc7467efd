//! Tests of this crate against the real kernel, in private network namespaces.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "these functions are used only by tests"
)]

mod conntrack;
mod corrupted_messages;
mod foreign_changes;
mod host_path;
mod lifetimes;
mod random_rules;
mod random_sets;
mod random_tables;
mod round_trip;
