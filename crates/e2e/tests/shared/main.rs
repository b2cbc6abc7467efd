//! Tests of shared mode: the node agents forward all Services.

#![allow(missing_docs, reason = "tests")]

mod client_address;
mod mode_changes;
mod ports;
mod settings;
