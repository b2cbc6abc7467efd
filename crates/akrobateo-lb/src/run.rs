//! Runs one proxy process from its arguments to SIGTERM: chooses the data path and handles signals. Does I/O.

use akrobateo_core::{DataPath, ProxyArgs};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use crate::error::Error;
use crate::forwarding_config::ForwardingConfig;
use crate::{kernel, userspace};

/// Forwards according to `args` until SIGTERM or SIGINT.
pub fn run(args: ProxyArgs) -> Result<(), Error> {
    let (probe_port, data_path) = (args.probe_port, args.data_path);
    let config = ForwardingConfig::new(args)?;
    LocalSet::new().block_on(&create_runtime()?, async {
        // The signal handlers come first, because the first process of a container ignores signals without a handler.
        let shutdown = install_shutdown_handlers()?;
        match data_path {
            DataPath::Kernel => kernel::run(config, probe_port, shutdown).await,
            DataPath::Userspace => userspace::run(config, probe_port, shutdown).await,
        }
    })
}

/// Waits until SIGTERM or SIGINT. The pod's hostPorts stay reserved until the process ends.
pub fn reserve_host_ports() -> Result<(), Error> {
    create_runtime()?.block_on(async {
        let shutdown = install_shutdown_handlers()?;
        tracing::info!("reserving the pod's hostPorts; kube-proxy forwards the traffic");
        shutdown.await;
        Ok(())
    })
}

fn create_runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Installs handlers for SIGTERM and SIGINT, and returns a future that ends with the first of these signals.
fn install_shutdown_handlers() -> std::io::Result<impl Future<Output = ()>> {
    let mut sigterm = signal(SignalKind::terminate())?;
    let mut sigint = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = sigterm.recv() => {}
            _ = sigint.recv() => {}
        }
    })
}
