//! The cache of the cluster: one reflector store for each kind of object. Does I/O.

mod proxy_stores;
mod stores;
mod trust;
mod watch_spec;

pub(crate) use api_client::{ListError, WatchEnded};

pub(crate) use stores::{Stores, WatchScope, resource_version};
pub(crate) use watch_spec::{Trigger, TriggerSender};
