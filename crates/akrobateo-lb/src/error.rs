//! The reasons why a proxy cannot start, or must end. Pure.

use netfilter::netlink::NetlinkError;
use netfilter::nft::client::NftError;

use crate::forwarding_config::ConfigError;
use crate::ip_forwarding::ForwardingError;
use crate::probe::ProbeError;
use crate::userspace::error::UserspaceError;

/// The reason why a proxy cannot start, or must end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The arguments contradict each other.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// IP forwarding is off, or its state is unknown.
    #[error(transparent)]
    Forwarding(#[from] ForwardingError),
    /// The nftables rules cannot be installed.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// The kernel cannot report changes of network interfaces and of their forwarding sysctls.
    #[error("cannot watch the pod's network interfaces over netlink: {0}")]
    WatchInterfaces(NetlinkError),
    /// The userspace data path cannot forward.
    #[error(transparent)]
    Userspace(#[from] UserspaceError),
    /// The probe's port cannot be opened.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The runtime or its signal handlers cannot be set up.
    #[error("cannot start the process's runtime: {0}")]
    StartRuntime(#[from] std::io::Error),
}
