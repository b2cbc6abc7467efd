//! Runs the program in network, mount and process namespaces of its own, where all that it starts ends with it.

use std::io::Read;
use std::process::{Command, ExitCode, Stdio};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::failure::{Failure, Tried, printed};

/// Set in the inner process.
const INSIDE: &str = "AKROBATEO_BENCH_ISOLATED";
/// The machine's own /proc, from inside, where /proc shows the benchmark's processes only.
pub(crate) const MACHINE_PROC: &str = "/run/machine-proc";
/// Descriptors for 10,000 connections through a process, and some to spare.
const DESCRIPTORS: u64 = 27_000;

/// Whether this is the inner process, which is to do the work.
pub(crate) fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs this program again, inside; returns as it ended.
pub(crate) fn enter() -> Result<ExitCode, Failure> {
    let program = std::env::current_exe().tried("the benchmark's own path")?;
    // The pipe is how the inner process, deaf to signals as the first of its namespace, learns of this one's end.
    let mut child = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--"])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .stdin(Stdio::piped())
        .spawn()
        .tried("unshare (Debian's package util-linux)")?;
    let alive = child.stdin.take();
    let status = child.wait().tried("waiting for the benchmark")?;
    drop(alive);
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Makes the inner process at home: a /run and a /proc of its own, and as many descriptors as it may have.
pub(crate) fn settle() -> Result<(), Failure> {
    std::thread::spawn(|| {
        // Whatever comes, end of file or an error: nobody waits any more.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(1);
    });
    for mount in [
        ["-t", "tmpfs", "tmpfs", "/run"],
        ["--mkdir", "--bind", "/proc", MACHINE_PROC],
        ["-t", "proc", "proc", "/proc"],
    ] {
        printed(Command::new("mount").args(mount))?;
    }
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(DESCRIPTORS, |most| most.max(DESCRIPTORS));
    let raised = |most| setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: Some(most) });
    raised(wanted).or_else(|_| raised(limit.maximum.unwrap_or(wanted))).tried("the limit of descriptors")
}
