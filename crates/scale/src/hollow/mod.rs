//! The agents of many nodes in one process: the code of the real agents, but with kernels that only record the changes.
//! Does I/O.

mod kernel;
mod recorder;

use std::path::Path;
use std::sync::Arc;
use std::thread;

use akrobateo_agent::run::{RunError, run_on};
use akrobateo_agent::settings::RunOptions;
use clap::Parser;
use futures::future::try_join_all;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::cluster::{agent_kubeconfig, node_name};
use crate::error::{Context, ScaleError};
use kernel::RecordingKernel;
pub(crate) use recorder::AppliedChange;
use recorder::Recorder;

/// The command line of an agent.
#[derive(Parser)]
struct AgentCli {
    #[command(flatten)]
    options: RunOptions,
}

/// Runs the agents of the nodes with these indexes until SIGTERM. Prints each [`AppliedChange`].
pub(crate) fn run_agents(kubeconfigs: &Path, nodes: std::ops::Range<usize>) -> Result<(), ScaleError> {
    let recorder = Arc::new(Recorder::new(nodes.len()));
    let (shutdown_sender, shutdown) = watch::channel(false);
    let thread_count = thread::available_parallelism().context("the number of processors")?.get();
    // An agent runs on one thread, as in the real program.
    let run_group = |first: usize| {
        let agents: Vec<_> = nodes.clone().skip(first).step_by(thread_count).collect();
        let (recorder, shutdown) = (Arc::clone(&recorder), shutdown.clone());
        move || {
            let agents =
                agents.into_iter().map(|node| run_agent(kubeconfigs, node, &recorder, shutdown.clone()));
            new_runtime()?.block_on(try_join_all(agents)).map(drop)
        }
    };
    // The thread is detached, because it also waits if an agent fails.
    thread::spawn(move || wait_for_signal().map(|()| shutdown_sender.send(true)));
    thread::scope(|scope| {
        let threads: Vec<_> = (0..thread_count).map(|first| scope.spawn(run_group(first))).collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err(ScaleError::UnexpectedState("a thread has panicked".to_owned())))
        })
    })
}

fn new_runtime() -> Result<tokio::runtime::Runtime, ScaleError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("the runtime")
}

fn wait_for_signal() -> Result<(), ScaleError> {
    new_runtime()?.block_on(async {
        signal(SignalKind::terminate()).context("SIGTERM")?.recv().await;
        Ok(())
    })
}

async fn run_agent(
    kubeconfigs: &Path,
    node: usize,
    recorder: &Arc<Recorder>,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), ScaleError> {
    let kubeconfig = agent_kubeconfig(kubeconfigs, node);
    let arguments = [
        "agent".into(),
        format!("--node-name={}", node_name(node)),
        format!("--kubeconfig={}", kubeconfig.display()),
        "--http-address=127.0.0.1:0".to_owned(),
    ];
    let cli = AgentCli::try_parse_from(arguments)
        .map_err(|error| ScaleError::UnexpectedState(error.to_string()))?;
    let kernel = Arc::new(RecordingKernel::new(node, Arc::clone(recorder)));
    let shutdown = async move {
        // An error means that the sender has ended, which also ends the agent.
        let _ = shutdown.wait_for(|is_shutdown| *is_shutdown).await;
    };
    let result: Result<(), RunError> = run_on(kernel, cli.options, shutdown).await;
    result.map_err(|error| ScaleError::Agent(node_name(node), error))
}
