//! Tests of shared mode: the node agents forward all Services.

#![allow(missing_docs, reason = "tests")]

mod client_address;
mod modes;
mod ports;
mod settings;
