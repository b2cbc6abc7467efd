//! Tests of the data path with real packets, in the laboratory.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod agent;
mod client_address;
mod cluster;
mod command_line;
mod listing;
mod packets;
mod rights;
mod services;
