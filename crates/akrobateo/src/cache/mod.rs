//! The cluster as the watches last saw it: one reflector store for each kind of object. Does I/O.

mod list;
mod reflector;
mod stores;

pub(crate) use list::ListError;
pub(crate) use reflector::{Changes, Trigger};
pub(crate) use stores::Stores;

/// A watch's task is gone, which only a panic or the end of the runtime brings about.
#[derive(Debug, thiserror::Error)]
#[error("a watch has ended")]
pub struct WatchEnded;
