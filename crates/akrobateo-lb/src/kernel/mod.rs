//! The kernel path: rules in, then watch over them and answer probes until told to stop.

mod metrics;
mod path;
mod watch;

use std::rc::Rc;

use crate::table_manager::TableManager;
use akrobateo_core::Family;

use crate::forwarding_config::ForwardingConfig;
use crate::run::{Error, listen};
use crate::{ip_forwarding, probe};
use path::KernelPath;

/// Forwards until `told`; leaves the rules in place, so that flows live on.
pub async fn live(
    plan: ForwardingConfig,
    probe_port: u16,
    told: impl Future<Output = ()>,
) -> Result<(), Error> {
    ip_forwarding::ensure(&plan)?;
    let ports = Family::ALL.map(|family| plan.forwards(family).count()).iter().sum::<usize>();
    let restricted = plan.sources().is_some();
    let path = Rc::new(KernelPath::new(TableManager::install(plan)?));
    tracing::info!(ports, restricted, "forwarding");
    let rules = watch::rules()?;
    let switches = watch::switches()?;
    let listener = listen(probe_port)?;
    // Exiting at once is best. The kernel forwards for as long as the pod's network lives, new connections too:
    // staying would only put off when it cuts them, and when the pod's successor can have its ports.
    tokio::select! {
        () = told => {}
        () = probe::answer(listener, Rc::clone(&path)) => {}
        () = watch::reconcile_rules(&path, &rules) => {}
        () = watch::reconcile_sysctls(&path, &switches) => {}
        () = watch::report_conntrack_pressure(&path) => {}
    }
    tracing::info!("stopping; the rules stay");
    Ok(())
}
