//! The life of a process: what is set up before packets flow, by whatever path, and what ends it.

use akrobateo_core::{DataPath, ProxyArgs};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use crate::forwarding_config::{ConfigError, ForwardingConfig};
use crate::ip_forwarding::ForwardingError;
use crate::userspace::UserspaceError;
use crate::{kernel, probe, userspace};
use netfilter::netlink::NetlinkError;
use netfilter::nft::client::NftError;

/// Why a proxy can't do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The arguments contradict each other.
    #[error(transparent)]
    ForwardingConfig(#[from] ConfigError),
    /// Packets would not be passed on.
    #[error(transparent)]
    Forwarding(#[from] ForwardingError),
    /// The rules are not in the kernel.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// Changes of forwarding would go unnoticed.
    #[error("cannot watch the network's interfaces: {0}")]
    Watch(NetlinkError),
    /// The process itself can't forward.
    #[error(transparent)]
    Userspace(#[from] UserspaceError),
    /// The probe's port is taken, or not allowed.
    #[error("--probe-port {0}: cannot listen: {1}")]
    Probe(u16, std::io::Error),
    /// The process itself could not be set up.
    #[error("cannot start: {0}")]
    Start(#[from] std::io::Error),
}

/// Does nothing until SIGTERM or SIGINT.
pub fn reserve() -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let told = told_to_stop()?;
        tracing::info!("keeping the pod's ports from others; kube-proxy answers");
        told.await;
        Ok(())
    })
}

/// Forwards as `args` say until SIGTERM or SIGINT.
pub fn run(args: ProxyArgs) -> Result<(), Error> {
    let (probe_port, data_path) = (args.probe_port, args.data_path);
    let plan = ForwardingConfig::new(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        // Before anything takes time: as a container's first process, it would miss signals without a handler.
        let told = told_to_stop()?;
        match data_path {
            DataPath::Kernel => kernel::live(plan, probe_port, told).await,
            DataPath::Userspace => userspace::run(plan, probe_port, told).await,
        }
    })
}

/// The listener for [`probe::answer`].
pub(crate) fn listen(probe_port: u16) -> Result<TcpListener, Error> {
    let listener = probe::listener(probe_port).and_then(TcpListener::from_std);
    listener.map_err(|error| Error::Probe(probe_port, error))
}

fn told_to_stop() -> Result<impl Future<Output = ()>, Error> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
