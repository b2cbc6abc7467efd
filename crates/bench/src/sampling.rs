//! Loads a testbed, and measures rate, CPU time and latencies. Does I/O.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::cpu_time::{CpuMeter, CpuTime};
use crate::error::{BenchError, Context};
use crate::load::Load;
use crate::load_generator::{Frontends, Progress, run_client};
use crate::proxy::process::Process;
use crate::quartiles::to_f64;
use crate::sample::{Sample, latency_percentiles};
use crate::testbed::Testbed;

/// The time before a load is measured, in which clients connect and fill their windows.
const WARM_UP: Duration = Duration::from_millis(30);
/// The pause after a load, in which its connections end.
const PAUSE: Duration = Duration::from_millis(10);

struct Reading {
    time: Instant,
    units: u64,
    cpu: CpuTime,
}

/// Loads the testbed and measures for `length`.
pub(crate) fn take_sample(
    testbed: &Testbed,
    load: Load,
    round: usize,
    length: Duration,
    cpu_meter: &CpuMeter,
) -> Result<Sample, BenchError> {
    let progress = Progress::default();
    let proxy: Vec<Pid> = testbed.proxy.iter().map(Process::pid).collect();
    let read = || {
        let units = if load == Load::Upload { testbed.backend.received() } else { progress.units() };
        cpu_meter.read(&proxy).map(|cpu| Reading { time: Instant::now(), units, cpu })
    };
    let (before, after) = run_under_load(testbed, load, &progress, || {
        thread::sleep(WARM_UP);
        progress.set_recording(true);
        let before = read()?;
        thread::sleep(length);
        let after = read()?;
        progress.set_recording(false);
        Ok((before, after))
    })?;
    thread::sleep(PAUSE);
    let units = to_f64(after.units - before.units);
    let seconds = (after.time - before.time).as_secs_f64();
    let benchmark_cpu = after.cpu.benchmark - before.cpu.benchmark;
    let other_cpu = after.cpu.machine - before.cpu.machine - benchmark_cpu;
    let processors = thread::available_parallelism().context("the number of processors")?.get();
    Ok(Sample {
        load,
        variant: testbed.variant.name,
        round,
        rate: units / seconds,
        cpu: benchmark_cpu / units,
        failed: progress.failed(),
        latency: latency_percentiles(progress.into_latencies()),
        other_cpu_share: (other_cpu / (seconds * to_f64(processors as u64))).max(0.0),
    })
}

/// Runs `action` while clients load the testbed.
pub(crate) fn run_under_load<T>(
    testbed: &Testbed,
    load: Load,
    progress: &Progress,
    action: impl FnOnce() -> Result<T, BenchError>,
) -> Result<T, BenchError> {
    let frontends = Frontends { first: testbed.variant.frontend(), ports: testbed.variant.ports };
    let client = |number| {
        move || {
            testbed.network.client.enter();
            run_client(load, frontends, number, progress);
        }
    };
    thread::scope(|scope| {
        for number in 0..load.clients() {
            scope.spawn(client(number));
        }
        let result = action();
        // Even after an error, because the scope waits for the clients.
        progress.stop();
        result
    })
}
