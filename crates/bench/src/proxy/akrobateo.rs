//! Starts akrobateo-lb with the arguments that the operator uses. Does I/O.

use std::path::Path;
use std::process::Command;

use akrobateo_core::Protocol;
use netns_testkit::Namespace;

use super::process::Process;
use crate::error::BenchError;
use crate::network::addr;

/// The port of the readiness probe.
pub(crate) const PROBE_PORT: u16 = 10_290;

/// Returns the arguments for kernel mode.
pub(crate) fn kernel_args(protocol: Protocol, ports: u16) -> Vec<String> {
    let forward = |port| format!("--forward={protocol}/{port}={}:{port}", addr::CLUSTER_IP);
    let forwards = (addr::FIRST_SERVICE_PORT..addr::FIRST_SERVICE_PORT + ports).map(forward);
    forwards.chain([format!("--probe-port={PROBE_PORT}")]).collect()
}

/// Returns the arguments for userspace mode with a PROXY header of version 2.
pub(crate) fn userspace_args() -> Vec<String> {
    let mut args = kernel_args(Protocol::Tcp, 1);
    args.extend(["--data-path=userspace", "--proxy-protocol=v2"].map(str::to_owned));
    args
}

/// Starts akrobateo-lb.
pub(crate) fn start(pod: &Namespace, program: &Path, args: &[String]) -> Result<Process, BenchError> {
    Process::start(pod, Command::new(program).args(args))
}
