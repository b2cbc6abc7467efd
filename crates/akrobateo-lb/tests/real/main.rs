//! Tests with real packets. Each test runs in its own network namespaces, as root or as an ordinary user.

// The harness panics if it cannot set up a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

mod capacity;
mod forwarding;
mod harness;
mod invalid_packets;
mod ip_forwarding;
mod lifecycle;
mod metrics;
mod packets;
mod preflight;
mod probe;
mod source_ranges;
mod stale_flows;
mod table_encoding;
mod userspace;
