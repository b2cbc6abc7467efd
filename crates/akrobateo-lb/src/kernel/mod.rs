//! The kernel data path: programs nftables, then keeps the rules in place until the proxy is stopped. Does I/O.

mod conntrack_loss;
mod log_once;
mod metrics;
mod path;
mod watch;

use std::rc::Rc;

use crate::error::Error;
use crate::forwarding_config::ForwardingConfig;
use crate::table_manager::TableManager;
use crate::{ip_forwarding, probe};

pub use metrics::METRICS;
use path::KernelPath;

/// Forwards until the future `shutdown` completes. Leaves the rules in place, so that the kernel keeps forwarding.
pub async fn run(
    config: ForwardingConfig,
    probe_port: u16,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    ip_forwarding::ensure_enabled(&config)?;
    let (ports, has_source_ranges) = (config.frontends().len(), config.sources().is_some());
    let path = Rc::new(KernelPath::new(TableManager::install(config)?));
    tracing::info!(ports, restricted = has_source_ranges, "forwarding in the kernel");
    let rules_watch = watch::open_rules_watch()?;
    let sysctls_watch = watch::open_sysctls_watch()?;
    let listener = probe::listen(probe_port)?;
    tokio::select! {
        // The process ends without a drain, because the kernel keeps forwarding until the pod's network namespace is
        // deleted. A drain would delay the deletion of the pod, and another pod would have to wait for the hostPorts.
        () = shutdown => {}
        () = probe::serve(listener, Rc::clone(&path)) => {}
        () = watch::reconcile_rules(&path, &rules_watch) => {}
        () = watch::reconcile_sysctls(&path, &sysctls_watch) => {}
        () = watch::report_conntrack_losses(&path) => {}
    }
    tracing::info!("stopping; the rules stay in the kernel");
    Ok(())
}
