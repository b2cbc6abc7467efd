//! The data plane of a proxy pod: forwards the pod's ports to a Service, with nftables or in userspace.
//!
//! [`run`] starts one of two data paths: [`kernel`] programs nftables, [`userspace`] forwards in this process.
//! [`forwarding_config`] checks the arguments for both data paths. For the kernel path, [`ruleset`] builds the table,
//! [`netfilter::nft`] encodes the table, and [`table_manager`] keeps the table in the kernel. [`probe`] answers
//! readiness probes and serves metrics.

pub mod cli;
pub mod error;
pub mod forwarding_config;
pub mod ip_forwarding;
pub mod kernel;
pub mod kernel_version;
pub mod metrics;
pub mod probe;
pub mod ruleset;
pub mod run;
pub mod source_ranges;
mod stale_flows;
pub mod table_manager;
pub mod termination;
pub mod userspace;
