//! The agent of a node as a thread: applies configurations, follows the probe, and puts back what other programs delete.
//! Does I/O.

mod modes;
mod worker;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

pub use modes::Modes;

use crate::config::NodeConfig;
use crate::data_path::DataPathError;
use worker::Worker;

/// The agent of the node in whose network namespace it was started.
///
/// Its rules remain when it stops.
#[derive(Debug)]
pub struct Agent {
    mailbox: Mailbox,
    thread: Option<JoinHandle<()>>,
}

/// Receives the state of an agent after each change.
pub trait Observer: Send + 'static {
    /// The probe has reported these modes.
    fn on_modes(&mut self, modes: &Modes);
    /// The current configuration is in force, or could not be applied.
    fn on_applied(&mut self, result: Result<(), &DataPathError>);
}

#[derive(Debug)]
enum Command {
    SetConfig(Box<NodeConfig>),
    SetModes(Modes),
    Stop,
}

/// Sends commands to the thread, and wakes the thread.
#[derive(Clone, Debug)]
struct Mailbox {
    commands: Sender<Command>,
    wake: Arc<OwnedFd>,
}

/// The other end of a [`Mailbox`].
#[derive(Debug)]
struct Inbox {
    commands: Receiver<Command>,
    woken: OwnedFd,
}

impl Agent {
    /// Starts the agent in the network namespace of the calling thread.
    pub fn start(config: NodeConfig, observer: impl Observer) -> Result<Self, DataPathError> {
        let (mailbox, inbox) = open_mailbox().map_err(DataPathError::Thread)?;
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

impl Mailbox {
    fn send(&self, command: Command) {
        // Both fail only if the thread has ended.
        if self.commands.send(command).is_ok() {
            let _ = rustix::io::write(&self.wake, &[0]);
        }
    }
}

fn open_mailbox() -> io::Result<(Mailbox, Inbox)> {
    let (woken, wake) = rustix::pipe::pipe()?;
    let (sender, receiver) = channel();
    Ok((Mailbox { commands: sender, wake: Arc::new(wake) }, Inbox { commands: receiver, woken }))
}
