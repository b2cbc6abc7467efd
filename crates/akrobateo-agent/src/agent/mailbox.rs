//! The commands to the thread of an agent, and the interface that receives the thread's reports. Does I/O.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::modes::Modes;
use crate::config::NodeConfig;
use crate::data_path::DataPathError;

/// Receives the state of an agent after each change.
pub trait Observer: Send + 'static {
    /// Handles the forwarding modes that the probe has reported.
    fn on_modes(&mut self, modes: &Modes);
    /// Handles the end of an attempt to apply the configuration with this ID. `duration` is the time until new flows
    /// followed the configuration.
    fn on_applied(&mut self, id: u64, result: Result<(), &DataPathError>, duration: Duration);
}

impl Observer for Box<dyn Observer> {
    fn on_modes(&mut self, modes: &Modes) {
        (**self).on_modes(modes);
    }

    fn on_applied(&mut self, id: u64, result: Result<(), &DataPathError>, duration: Duration) {
        (**self).on_applied(id, result, duration);
    }
}

/// A command to the thread of an agent.
#[derive(Debug)]
pub(super) enum AgentCommand {
    SetConfig(u64, Box<NodeConfig>),
    SetModes(Modes),
    Stop,
}

/// Sends commands to the thread, and wakes the thread.
#[derive(Clone, Debug)]
pub(super) struct Mailbox {
    commands: Sender<AgentCommand>,
    wake_writer: Arc<OwnedFd>,
}

/// The receiving end of a [`Mailbox`], which the thread reads.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) commands: Receiver<AgentCommand>,
    pub(super) wake_reader: OwnedFd,
}

impl Mailbox {
    pub(super) fn send(&self, command: AgentCommand) {
        // An error means that the thread has ended.
        if self.commands.send(command).is_ok() {
            let _ = rustix::io::write(&self.wake_writer, &[0]);
        }
    }
}

/// Returns both ends of a new mailbox.
pub(super) fn open() -> io::Result<(Mailbox, Inbox)> {
    let (wake_reader, wake_writer) = rustix::pipe::pipe()?;
    let (sender, receiver) = channel();
    Ok((
        Mailbox { commands: sender, wake_writer: Arc::new(wake_writer) },
        Inbox { commands: receiver, wake_reader },
    ))
}
