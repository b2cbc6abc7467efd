//! Whether connections fail while the proxy is replaced, again and again, under full load. I/O only.

use crate::failure::Failure;
use crate::load::Progress;
use crate::measure::Measure;
use crate::proxy::Programs;
use crate::proxy::{Protocol, akrobateo};
use crate::route::Route;
use crate::sampling::loaded;
use crate::start::DEADLINE;
use crate::variant::Variant;
use crate::watch::Watch;

/// How often it is replaced.
pub(crate) const TIMES: usize = 100;

/// What clients saw of the replacements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Replaced {
    /// The variant's name.
    pub(crate) variant: &'static str,
    /// Connections that were served meanwhile.
    pub(crate) served: u64,
    /// Connections that failed.
    pub(crate) failed: u64,
    /// Connections that took as long as TCP takes to send a lost packet again.
    pub(crate) late: u64,
}

/// Kills the proxy and starts it again with a port more or less, which replaces its table, [`TIMES`] times.
pub(crate) fn replace(variant: Variant, programs: &Programs) -> Result<Replaced, Failure> {
    let route = Route::without_proxy(variant)?;
    let pod = &route.network.pod;
    let started = |more| {
        let args = akrobateo::kernel(Protocol::Tcp, variant.ports + more);
        let watch = Watch::new(pod)?;
        let process = akrobateo::start(pod, &programs.lb, &args)?;
        watch.changed(DEADLINE)?;
        Ok(process)
    };
    let mut process = started(0)?;
    let progress = Progress::default();
    loaded(&route, Measure::Connections, &progress, || {
        for more in [1, 0].into_iter().cycle().take(TIMES) {
            // Else both would want the probe's port.
            drop(process);
            process = started(more)?;
        }
        Ok(())
    })?;
    Ok(Replaced {
        variant: variant.name,
        served: progress.done(),
        failed: progress.failed(),
        late: progress.late(),
    })
}
