//! Prepares the benchmark's private process: mounts `/proc` twice, and raises the descriptor limit. Does I/O.

use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::{BenchError, Context, run_command};

/// The mount point of the host's `/proc`. The private `/proc` has only the benchmark's processes.
pub(crate) const HOST_PROC_PATH: &str = "/run/host-proc";
/// The number of descriptors that 10,000 connections through one proxy need.
const REQUIRED_DESCRIPTORS: u64 = 27_000;

/// Mounts the host's `/proc` and a private `/proc`. Raises the soft limit of descriptors to the hard limit. Also raises
/// a hard limit below [`REQUIRED_DESCRIPTORS`] if the process has the right to do so.
pub(crate) fn set_up() -> Result<(), BenchError> {
    for mount in [["--mkdir", "--bind", "/proc", HOST_PROC_PATH], ["-t", "proc", "proc", "/proc"]] {
        run_command(Command::new("mount").args(mount))?;
    }
    let hard_limit = getrlimit(Resource::Nofile).maximum;
    let raised_limit = hard_limit.map_or(REQUIRED_DESCRIPTORS, |limit| limit.max(REQUIRED_DESCRIPTORS));
    // Without CAP_SYS_RESOURCE the hard limit cannot be raised.
    set_descriptor_limit(raised_limit)
        .or_else(|_| set_descriptor_limit(hard_limit.unwrap_or(raised_limit)))
        .context("the limit of descriptors")
}

fn set_descriptor_limit(limit: u64) -> rustix::io::Result<()> {
    setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum: Some(limit) })
}
