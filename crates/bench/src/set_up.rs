//! Prepares the private process of the benchmark: the host's `/proc` and the limit of descriptors. Does I/O.

use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::{BenchError, Context, run_command};

/// The host's `/proc`. The private `/proc` has only the benchmark's processes.
pub(crate) const HOST_PROC: &str = "/run/host-proc";
/// Enough descriptors for 10,000 connections through one proxy.
const DESCRIPTORS: u64 = 27_000;

/// Mounts the host's `/proc` and a private one, and raises the limit of descriptors as far as it can.
pub(crate) fn set_up() -> Result<(), BenchError> {
    for mount in [["--mkdir", "--bind", "/proc", HOST_PROC], ["-t", "proc", "proc", "/proc"]] {
        run_command(Command::new("mount").args(mount))?;
    }
    let hard_limit = getrlimit(Resource::Nofile).maximum;
    let raised = hard_limit.map_or(DESCRIPTORS, |limit| limit.max(DESCRIPTORS));
    let set_limit =
        |limit| setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum: Some(limit) });
    // Without CAP_SYS_RESOURCE the hard limit cannot be raised.
    set_limit(raised).or_else(|_| set_limit(hard_limit.unwrap_or(raised))).context("the limit of descriptors")
}
