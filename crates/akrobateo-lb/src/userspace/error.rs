//! The reasons why the userspace data path cannot forward. Pure.

use std::io;

use akrobateo_core::Forward;

/// Why userspace can't forward.
#[derive(Debug, thiserror::Error)]
pub enum UserspaceError {
    /// A port that this user may not have.
    #[error(
        "--forward {0}: not allowed to listen on port {port}: it needs the sysctl net.ipv4.ip_unprivileged_port_start \
         at most {port}, as pods have it, or the capability NET_BIND_SERVICE",
        port = .0.port
    )]
    Privileged(Forward),
    /// A port that can't be listened on.
    #[error("--forward {0}: cannot listen on port {port}: {1}", port = .0.port)]
    Frontend(Forward, io::Error),
    /// A thread can't be set up.
    #[error("cannot start a worker: {0}")]
    Start(io::Error),
    /// A thread can't wait for its sockets any more.
    #[error("a worker failed: {0}")]
    Worker(io::Error),
}
