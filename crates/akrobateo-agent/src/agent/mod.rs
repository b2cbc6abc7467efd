//! The agent of a node as a thread: applies configurations, follows the probe, and puts back what other programs delete.
//! Does I/O.

mod mailbox;
mod modes;
mod worker;

use std::thread::JoinHandle;

pub use mailbox::Observer;
pub use modes::Modes;

use crate::config::NodeConfig;
use crate::data_path::DataPathError;
use mailbox::{Command, Mailbox};
use worker::Worker;

/// The agent of the node in whose network namespace it was started.
///
/// Its rules remain when it stops.
#[derive(Debug)]
pub struct Agent {
    mailbox: Mailbox,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    /// Starts the agent in the network namespace of the calling thread.
    pub fn start(config: NodeConfig, observer: impl Observer) -> Result<Self, DataPathError> {
        let (mailbox, inbox) = mailbox::open().map_err(DataPathError::Thread)?;
        let worker = Worker::open(config, mailbox.clone())?;
        let thread = std::thread::Builder::new().name("agent".to_owned());
        let thread = thread.spawn(move || worker.run(&inbox, observer)).map_err(DataPathError::Thread)?;
        Ok(Self { mailbox, thread: Some(thread) })
    }

    /// Replaces the configuration. The ways in it do not count, because the probe finds them.
    pub fn set_config(&self, config: NodeConfig) {
        self.mailbox.send(Command::SetConfig(Box::new(config)));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.mailbox.send(Command::Stop);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the agent's thread has panicked");
        }
    }
}
