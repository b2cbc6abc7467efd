//! The time that proxies need to start. Does I/O.

use std::net::Ipv4Addr;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use akrobateo_core::Protocol;
use netns_testkit::{Namespace, http};

use crate::client::request_once;
use crate::error::{BenchError, Context};
use crate::proxy::process::Process;
use crate::proxy::programs::Programs;
use crate::proxy::{self, akrobateo, klipper};
use crate::ruleset_watch::RulesetWatch;
use crate::testbed::Testbed;
use crate::variant::{DataPath, Variant};

/// The timeout of one attempt to connect. After the timeout the client tries again.
const CLIENT_TIMEOUT: Duration = Duration::from_millis(2500);
/// The timeout of a readiness probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// The time between two polls. This time is short compared with the measured times.
const POLL_INTERVAL: Duration = Duration::from_micros(100);
/// The deadline for a start. If a start takes longer, the measurement fails.
pub(crate) const START_DEADLINE: Duration = Duration::from_mins(2);
/// The maximum number of rounds for slow starts, which take seconds.
const MAX_ROUNDS_FOR_SLOW_STARTS: usize = 3;

/// The event that ends the measurement of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartEvent {
    /// All rules are in the kernel.
    RulesActive,
    /// The readiness probe succeeds. Only Akrobateo has a readiness probe.
    Ready,
    /// A client receives its first reply. The client starts to connect before the proxy starts.
    FirstReply,
}

/// The duration of one start, measured from the start of the program (execve).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Start {
    /// The variant's name.
    pub(crate) variant: &'static str,
    /// The number of the round.
    pub(crate) round: usize,
    /// The event that ended the measurement.
    pub(crate) event: StartEvent,
    /// The time in seconds.
    pub(crate) seconds: f64,
}

/// Returns true if the start is measured in this round. Starts that take seconds are measured in the first rounds only.
pub(crate) fn is_measured(variant: Variant, event: StartEvent, round: usize) -> bool {
    let uses_kernel_mode = variant.data_path == DataPath::Kernel;
    match event {
        StartEvent::RulesActive => variant.ports == 1 || round < MAX_ROUNDS_FOR_SLOW_STARTS,
        StartEvent::Ready => uses_kernel_mode,
        StartEvent::FirstReply => {
            variant.ports == 1 && (uses_kernel_mode || round < MAX_ROUNDS_FOR_SLOW_STARTS)
        }
    }
}

/// Starts the variant's proxy in a new testbed, and measures the time until `event`.
pub(crate) fn measure(
    variant: Variant,
    event: StartEvent,
    round: usize,
    programs: &Programs,
) -> Result<Start, BenchError> {
    let testbed = Testbed::new_without_proxy(variant)?;
    let pod = &testbed.network.pod;
    let time = match (event, variant.data_path) {
        (StartEvent::FirstReply, _) => measure_first_reply(&testbed, programs)?,
        (StartEvent::RulesActive, DataPath::Klipper(iptables)) => {
            klipper::set_rules(pod, iptables, Protocol::Tcp, variant.ports)
        }
        (StartEvent::RulesActive | StartEvent::Ready, _) => {
            let args = akrobateo::kernel_args(Protocol::Tcp, variant.ports);
            let watch = RulesetWatch::new(pod)?;
            let start = Instant::now();
            let mut process = akrobateo::start(pod, &programs.lb, &args)?;
            match event {
                StartEvent::Ready => wait_until_ready(pod, &mut process)?,
                _ => watch.wait_for_change(START_DEADLINE)?,
            }
            start.elapsed()
        }
    };
    Ok(Start { variant: variant.name, round, event, seconds: time.as_secs_f64() })
}

/// Waits until the readiness probe in `pod` succeeds.
fn wait_until_ready(pod: &Namespace, process: &mut Process) -> Result<(), BenchError> {
    let start = Instant::now();
    let probe = (Ipv4Addr::LOCALHOST, akrobateo::PROBE_PORT);
    pod.run(|| {
        while http::status(probe, "/readyz", PROBE_TIMEOUT) != Some(200) {
            process.check_running()?;
            if start.elapsed() > START_DEADLINE {
                return Err(BenchError::Timeout("akrobateo-lb becomes ready".to_owned(), START_DEADLINE));
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    })
}

/// Starts the proxy while a client tries to connect. Returns the time until the client receives its first reply.
fn measure_first_reply(testbed: &Testbed, programs: &Programs) -> Result<Duration, BenchError> {
    let barrier = Barrier::new(2);
    let frontend = testbed.variant.frontend();
    let client = || {
        testbed.network.client.enter();
        barrier.wait();
        let start = Instant::now();
        loop {
            match request_once(frontend, CLIENT_TIMEOUT) {
                Ok(_) => return Ok(start.elapsed()),
                Err(error) if start.elapsed() > START_DEADLINE => {
                    return Err(error).context("the first connection");
                }
                Err(_) => thread::sleep(POLL_INTERVAL),
            }
        }
    };
    thread::scope(|scope| {
        let client = scope.spawn(client);
        barrier.wait();
        // The process must run until the client has its reply.
        let proxy = proxy::start(testbed.variant, Protocol::Tcp, &testbed.network.pod, programs);
        let time = client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        proxy.and(time)
    })
}
