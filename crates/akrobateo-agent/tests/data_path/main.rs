//! Tests of the data path with real packets, in the laboratory.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod client_address;
mod cluster;
mod established_flows;
mod hitless;
mod kernel_state;
mod load;
mod lost_peer;
mod random;
mod random_config;
mod random_sequences;
mod services;
mod stages;
