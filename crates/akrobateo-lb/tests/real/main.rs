//! Tests with real packets, each in network namespaces of its own; as root or as an ordinary user.

// A harness has no better answer to what it can't do than to fail the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

mod capacity;
mod flows;
mod forwarding;
mod harness;
mod invalid_packets;
mod ip_forwarding;
mod kernel;
mod lifecycle;
mod metrics;
mod packets;
mod preflight;
mod sources;
mod userspace;
