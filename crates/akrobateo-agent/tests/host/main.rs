//! Tests of the facts that the agent reads about its node, in private network namespaces.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod listeners;
mod network;
