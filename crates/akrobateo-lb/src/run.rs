//! Runs one proxy process until SIGTERM: chooses the data path and handles signals. Does I/O.

use akrobateo_core::{DataPath, ProxyArgs};
use rustix::system::uname;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use crate::error::Error;
use crate::forwarding_config::ForwardingConfig;
use crate::kernel_version::{KernelVersion, MissingFeature};
use crate::{kernel, userspace};

/// Forwards according to `args` until SIGTERM or SIGINT.
pub fn run(args: ProxyArgs) -> Result<(), Error> {
    let (probe_port, data_path) = (args.probe_port, args.data_path);
    let config = ForwardingConfig::new(args)?;
    let missing_feature = report_missing_features(data_path);
    let result = LocalSet::new().block_on(&create_runtime()?, async {
        // The signal handlers are installed first, because the first process of a container ignores each signal that
        // has no handler.
        let shutdown = install_shutdown_handlers()?;
        match data_path {
            DataPath::Kernel => kernel::run(config, probe_port, shutdown).await,
            DataPath::Userspace => userspace::run(config, probe_port, shutdown).await,
        }
    });
    result.map_err(|error: Error| error.with_missing_feature(missing_feature))
}

/// Logs the features that this node's kernel lacks. Returns the missing feature that the data path requires, or `None`
/// if the kernel has all required features.
///
/// The proxy starts in any case, because a distribution may have added the feature to an older kernel.
fn report_missing_features(data_path: DataPath) -> Option<MissingFeature> {
    let version = KernelVersion::parse(&uname().release().to_string_lossy())?;
    let missing_features: Vec<_> = version.find_missing_features(data_path).collect();
    for feature in &missing_features {
        tracing::warn!("{feature}");
    }
    missing_features.into_iter().find(MissingFeature::is_mandatory)
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
