//! The data plane of a proxy pod: forwards its ports to a Service, with one table of nftables or in userspace.
//!
//! [`forwarding_config`] checks the arguments, [`ruleset`] makes the table from the plan, [`netfilter::nft`] puts it into the
//! kernel, [`table_manager`] keeps it there; [`kernel`] is this path's life, [`userspace`] the other path, [`run`] the
//! process' life, and [`probe`] answers for it.

pub mod cli;
pub mod forwarding_config;
pub mod ip_forwarding;
pub mod kernel;
pub mod metrics;
pub mod probe;
pub mod ruleset;
pub mod run;
pub mod sources;
mod stale_flows;
pub mod table_manager;
pub mod termination;
pub mod userspace;
