//! Tests with real packets, each in network namespaces of its own; as root or as an ordinary user.

// What the tests assert about the harness itself has no better answer than to fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

mod forwarding;
mod harness;
