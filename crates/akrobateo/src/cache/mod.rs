//! The cache of the cluster: one reflector store for each kind of object. Does I/O.

mod list;
mod reflector;
mod stores;
mod watch_spec;

pub(crate) use list::ListError;
pub(crate) use reflector::{TriggerSender, WatchEnded};
pub(crate) use stores::Stores;
pub(crate) use watch_spec::Trigger;
