//! Private network namespaces for tests and benchmarks. Does I/O.
//!
//! A test calls [`isolated`], creates a [`Namespace`] for each node, pod and client, and connects them with
//! [`link::connect`] or a [`Bridge`]. A [`laboratory`] has the network of a whole cluster. Tests need iproute2,
//! iptables, nftables and util-linux, and root or user namespaces.
//!
//! Tests need no cleanup. The kernel deletes a network namespace when its last process has ended and its last
//! descriptor is closed. The isolated process is the first process of its process namespace. When the isolated process
//! exits, the kernel kills all programs that this process started.
//!
//! Functions panic if the network cannot be set up, because a test or a benchmark is useless without its network. The
//! message of the panic has the failed command and its output.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    reason = "only tests and benchmarks use this crate, and they end if their network cannot be set up"
)]

mod bridge;
pub mod http;
pub mod isolation;
pub mod laboratory;
pub mod link;
pub mod machine;
mod namespace;
pub mod privileges;
pub mod process;
pub mod tcp;
mod wait;

pub use bridge::Bridge;
pub use isolation::{isolated, isolated_as_nobody};
pub use namespace::Namespace;
pub use wait::{DEADLINE, eventually};
