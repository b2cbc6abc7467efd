//! Replaces a proxy repeatedly under load, and counts failed connections. Does I/O.

use akrobateo_core::Protocol;

use crate::error::BenchError;
use crate::load::Load;
use crate::load_generator::Progress;
use crate::proxy::akrobateo;
use crate::proxy::programs::Programs;
use crate::ruleset_watch::RulesetWatch;
use crate::sampling::run_under_load;
use crate::start::START_DEADLINE;
use crate::testbed::Testbed;
use crate::variant::Variant;

/// The number of replacements per variant.
const REPLACEMENT_COUNT: usize = 100;

/// The numbers of connections during the replacements of one variant's proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReplacementResult {
    /// The variant's name.
    pub(crate) variant: &'static str,
    /// The number of successful connections.
    pub(crate) successful_connections: u64,
    /// The number of failed connections.
    pub(crate) failed_connections: u64,
    /// The number of connections that took longer than 0.9 s, probably because a packet was lost.
    pub(crate) slow_connections: u64,
}

/// Kills the proxy and starts it again [`REPLACEMENT_COUNT`] times.
///
/// Each process replaces the nftables table, because each new process has one port more or one port less than the
/// previous process.
pub(crate) fn measure(variant: Variant, programs: &Programs) -> Result<ReplacementResult, BenchError> {
    let testbed = Testbed::new_without_proxy(variant)?;
    let pod = &testbed.network.pod;
    let start = |added_ports| {
        let args = akrobateo::kernel_args(Protocol::Tcp, variant.ports + added_ports);
        let watch = RulesetWatch::new(pod)?;
        let process = akrobateo::start(pod, &programs.lb, &args)?;
        watch.wait_for_change(START_DEADLINE)?;
        Ok(process)
    };
    let mut process = start(0)?;
    let progress = Progress::default();
    run_under_load(&testbed.load_path(), Load::Connections, &progress, || {
        for added_ports in [1, 0].into_iter().cycle().take(REPLACEMENT_COUNT) {
            // The previous process must end first, because two processes cannot listen on the probe port.
            drop(process);
            process = start(added_ports)?;
        }
        Ok(())
    })?;
    Ok(ReplacementResult {
        variant: variant.name,
        successful_connections: progress.completed_count(),
        failed_connections: progress.failure_count(),
        slow_connections: progress.slow_connections(),
    })
}
