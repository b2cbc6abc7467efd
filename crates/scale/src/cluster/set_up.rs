//! Prepares the private namespaces of the measurement: `/proc`, the network interfaces, and the limit of descriptors.
//! Does I/O.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::nodes::REAL_NODE_INTERFACE;
use crate::error::{Context, ScaleError};
use crate::program::run_command;

/// The interface of the node with the real agent needs a peer. No packets pass it.
const PEER_INTERFACE: &str = "peer";

/// Prepares the private namespaces.
pub(crate) fn set_up() -> Result<(), ScaleError> {
    run("mount", "-t proc proc /proc")?;
    run("ip", "link set lo up")?;
    run("ip", &format!("link add {REAL_NODE_INTERFACE} type veth peer name {PEER_INTERFACE}"))?;
    run("ip", &format!("link set {REAL_NODE_INTERFACE} up"))?;
    run("ip", &format!("link set {PEER_INTERFACE} up"))?;
    // Each agent has several connections.
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("the limit of descriptors")
}

/// Gives this network namespace the address of the node whose agent is the real program. Removes the rules of an agent
/// that ran before.
pub(crate) fn become_node(agent: &Path, address: Ipv4Addr) -> Result<(), ScaleError> {
    run("ip", &format!("address flush dev {REAL_NODE_INTERFACE}"))?;
    run("ip", &format!("address add {address}/8 dev {REAL_NODE_INTERFACE}"))?;
    run_command(Command::new(agent).arg("cleanup"))
}

fn run(program: &str, arguments: &str) -> Result<(), ScaleError> {
    run_command(Command::new(program).args(arguments.split(' ')))
}
