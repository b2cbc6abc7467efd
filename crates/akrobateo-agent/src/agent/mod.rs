//! The agent of a node as a thread: applies configurations, uses the results of the probe, and restores objects that
//! other programs delete. Does I/O.

mod mailbox;
mod modes;
mod schedule;
mod worker;

use std::thread::JoinHandle;

pub use mailbox::Observer;
pub use modes::Modes;

use crate::config::NodeConfig;
use crate::data_path::DataPathError;
use mailbox::{AgentCommand, Mailbox};
use worker::AgentWorker;

/// The thread that changes the data path of one node. The thread works in the network namespace of the thread that
/// started the agent.
///
/// The agent's rules remain in the kernel when the agent stops.
#[derive(Debug)]
pub struct Agent {
    mailbox: Mailbox,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    /// Starts the agent in the network namespace of the calling thread.
    ///
    /// The observer receives the `id` of each configuration that the agent has applied.
    pub fn start(id: u64, config: NodeConfig, observer: impl Observer) -> Result<Self, DataPathError> {
        let (mailbox, inbox) = mailbox::open().map_err(DataPathError::Thread)?;
        let worker = AgentWorker::open(id, config, mailbox.clone())?;
        let thread = std::thread::Builder::new().name("agent".to_owned());
        let thread = thread.spawn(move || worker.run(&inbox, observer)).map_err(DataPathError::Thread)?;
        Ok(Self { mailbox, thread: Some(thread) })
    }

    /// Replaces the configuration. The paths in the configuration are ignored, because the probe finds the paths.
    pub fn set_config(&self, id: u64, config: NodeConfig) {
        self.mailbox.send(AgentCommand::SetConfig(id, Box::new(config)));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.mailbox.send(AgentCommand::Stop);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the agent's thread has panicked");
        }
    }
}
