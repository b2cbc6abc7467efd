//! The processes of the node agents: one process with the agents of all nodes except one, and the real program for the
//! last node. Does I/O.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{ChildStdout, Command};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::cluster::{agent_kubeconfig, node_name};
use crate::error::{Context, ScaleError};
use crate::hollow::AppliedChange;
use crate::program::Program;

/// The process with many agents.
pub(crate) struct HollowAgents {
    pub(crate) program: Program,
    /// The changes that the tables of all agents of the process contain.
    pub(crate) changes: UnboundedReceiver<AppliedChange>,
}

impl HollowAgents {
    /// Starts the agents of the nodes with the indexes 0 to `count` - 1. `directory` has their kubeconfigs.
    pub(crate) fn start(directory: &Path, count: usize) -> Result<Self, ScaleError> {
        let program = std::env::current_exe().context("the path of this program")?;
        let mut command = Command::new(program);
        command.args(["hollow-agents", "--nodes", "0", &count.to_string(), "--kubeconfigs"]).arg(directory);
        command.env("RUST_LOG", "warn");
        let (program, output) = Program::start_with_output("hollow-agents", &mut command, directory)?;
        let (sender, changes) = unbounded_channel();
        if let Some(output) = output {
            std::thread::spawn(move || send_changes(output, &sender));
        }
        Ok(Self { program, changes })
    }
}

/// Sends each line of the output until the process ends.
fn send_changes(output: ChildStdout, sender: &UnboundedSender<AppliedChange>) {
    let lines = BufReader::new(output).lines().map_while(Result::ok);
    for change in lines.filter_map(|line| line.parse().ok()) {
        // An error means that the measurement has ended.
        let _ = sender.send(change);
    }
}

/// Starts the real program of the agent of one node.
pub(crate) fn start_real_agent(binary: &Path, directory: &Path, node: usize) -> Result<Program, ScaleError> {
    let mut command = Command::new(binary);
    command
        .args(["run", "--node-name", &node_name(node), "--kubeconfig"])
        .arg(agent_kubeconfig(directory, node))
        .arg("--state-file")
        .arg(directory.join("agent-state.json"));
    Program::start("akrobateo-agent", &mut command, directory)
}
