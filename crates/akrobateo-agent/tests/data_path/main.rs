//! Tests of the data path with real packets, in the laboratory.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod adoption;
mod agent;
mod client_address;
mod client_address_changes;
mod cluster;
mod command_line;
mod established_flows;
mod hitless;
mod kernel_state;
mod listing;
mod load;
mod lost_peer;
mod marks;
mod packets;
mod partial_failures;
mod port_counters;
mod random;
mod random_config;
mod random_sequences;
mod reduced_changes;
mod rights;
mod selection;
mod services;
mod stages;
