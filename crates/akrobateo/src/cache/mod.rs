//! The cache of the cluster: one reflector store for each kind of object. Does I/O.

mod list;
mod proxy_stores;
mod reflector;
mod scope;
mod stores;
mod trust;
mod watch_spec;

pub(crate) use list::ListError;
pub(crate) use reflector::{TriggerSender, WatchEnded};
pub(crate) use stores::Stores;
pub(crate) use watch_spec::Trigger;
