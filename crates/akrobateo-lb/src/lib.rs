//! The data plane of a proxy pod: forwards its ports to a Service, with one table of nftables or in userspace.
//!
//! [`plan`] checks the arguments, [`ruleset`] makes the table from the plan, [`netfilter::nft`] puts it into the
//! kernel, [`keeper`] keeps it there; [`kernel`] is this path's life, [`userspace`] the other path, [`run`] the
//! process' life, and [`probe`] answers for it.

pub mod cli;
pub mod forwarding;
pub mod keeper;
pub mod kernel;
pub mod metrics;
pub mod plan;
pub mod probe;
pub mod ruleset;
pub mod run;
pub mod sources;
mod stale_flows;
pub mod termination;
pub mod userspace;
