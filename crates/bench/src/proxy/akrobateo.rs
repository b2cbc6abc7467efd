//! akrobateo-lb, with the arguments that the operator would write.

use std::path::Path;
use std::process::Command;

use super::Protocol;
use super::process::Process;
use crate::failure::Failure;
use crate::namespace::Namespace;
use crate::network::at;

/// Where it answers probes.
pub(crate) const PROBE_PORT: u16 = 10_290;

/// The arguments for kernel mode.
pub(crate) fn kernel(protocol: Protocol, ports: u16) -> Vec<String> {
    let forward = |port| format!("--forward={}/{port}={}:{port}", protocol.name(), at::CLUSTER_IP);
    let forwards = (0..ports).map(|number| forward(at::FIRST_PORT + number));
    forwards.chain([format!("--probe-port={PROBE_PORT}")]).collect()
}

/// The arguments for userspace mode with a PROXY header of version 2.
pub(crate) fn userspace() -> Vec<String> {
    let mut args = kernel(Protocol::Tcp, 1);
    args.extend(["--data-path=userspace", "--proxy-protocol=v2"].map(str::to_owned));
    args
}

/// Starts it.
pub(crate) fn start(pod: &Namespace, program: &Path, args: &[String]) -> Result<Process, Failure> {
    Process::start(pod, Command::new(program).args(args))
}
