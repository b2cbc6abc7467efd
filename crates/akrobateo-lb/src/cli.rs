//! The command line.

use clap::{Parser, Subcommand};
use contract::ProxyArgs;

/// Forwards a pod's ports to a Service, in the kernel
#[derive(Parser, Clone, Debug)]
#[command(
    name = "akrobateo-lb",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct Cli {
    /// Something else than forwarding.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// What to forward.
    #[command(flatten)]
    pub proxy: Option<ProxyArgs>,
}

/// Something else than forwarding.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Switch IPv6 forwarding on and exit; in a privileged init container
    #[command(name = contract::proxy_args::ENABLE_IPV6_FORWARDING)]
    EnableIpv6Forwarding,
    /// Do nothing until told to end; for a pod that only keeps its hostPorts from others
    #[command(name = contract::proxy_args::RESERVE)]
    Reserve,
}
