//! The error type of the userspace path. Pure.

use std::io;

use akrobateo_core::Forward;

/// An error that prevents the userspace path from forwarding.
#[derive(Debug, thiserror::Error)]
pub enum UserspaceError {
    /// This user may not bind the port.
    #[error(
        "--forward {0}: not allowed to listen on port {port}: expected a port that is not below the sysctl \
         net.ipv4.ip_unprivileged_port_start; set this sysctl to at most {port}, or add the capability \
         NET_BIND_SERVICE",
        port = .0.port
    )]
    PortNotAllowed(Forward),
    /// Another error prevents the proxy from binding the port.
    #[error("--forward {0}: cannot listen on port {port}: {1}", port = .0.port)]
    Bind(Forward, io::Error),
    /// A worker cannot be set up.
    #[error("cannot start a worker thread: {0}")]
    StartWorker(io::Error),
    /// A worker cannot wait for socket events any more.
    #[error("a worker thread failed: {0}")]
    WorkerFailed(io::Error),
}
