//! The errors that end the agent.

use api_client::{ConnectError, WatchEnded};

use crate::data_path::DataPathError;
use crate::host::HostError;

/// The reason why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The client of the API server cannot be created.
    #[error("cannot connect to the API server")]
    Connect(#[from] ConnectError),
    /// The HTTP server cannot listen on its address.
    #[error("cannot listen on {address} (--http-address)")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// The error of the kernel.
        source: std::io::Error,
    },
    /// A signal handler cannot be installed.
    #[error("cannot wait for signals")]
    Signal(#[source] std::io::Error),
    /// The task of a watch has ended.
    #[error(transparent)]
    WatchEnded(#[from] WatchEnded),
    /// The agent cannot read or change its rules.
    #[error(transparent)]
    DataPath(#[from] DataPathError),
    /// The network of the node cannot be watched.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A thread cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
    /// The thread of the data path has ended.
    #[error("the thread of the data path has ended; report this fault")]
    DataPathThreadEnded,
}
