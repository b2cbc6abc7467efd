//! The versions of the programs that the benchmark compares. Does I/O.

use std::process::Command;

use crate::error::{BenchError, run_command};
use crate::proxy::programs::Programs;
use crate::proxy::{haproxy, nginx};

/// The names of the programs and their versions.
pub(crate) type ProgramVersions = Vec<(&'static str, String)>;

/// Reads the versions of the programs.
pub(crate) fn read_program_versions(programs: &Programs) -> Result<ProgramVersions, BenchError> {
    let iptables_version = run_command(Command::new("iptables").arg("--version"))?;
    let akrobateo_lb_version = run_command(Command::new(&programs.lb).arg("--version"))?;
    Ok(vec![
        ("akrobateo-lb", akrobateo_lb_version.rsplit(' ').next().unwrap_or_default().to_owned()),
        (
            "iptables",
            iptables_version.split(' ').nth(1).unwrap_or_default().trim_start_matches('v').to_owned(),
        ),
        ("HAProxy", haproxy::version(programs)?),
        ("nginx", nginx::version(programs)?),
    ])
}
