//! Puts a load on a testbed, and measures rate, CPU time and latencies. Does I/O.

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

/// The time from the start of a load to the start of the measurement. During this time, clients connect and fill their
/// TCP windows.
const WARM_UP_DURATION: Duration = Duration::from_millis(30);
/// The pause after a load. During this pause, the connections of the load end.
const PAUSE_AFTER_LOAD: Duration = Duration::from_millis(10);

struct CounterReading {
    time: Instant,
    completed_count: u64,
    cpu: CpuTime,
}

/// Puts a load on the testbed, and measures it for the duration `length`.
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
        let completed_count =
            if load == Load::Upload { testbed.backend.received_bytes() } else { progress.completed_count() };
        cpu_meter.read(&proxy).map(|cpu| CounterReading { time: Instant::now(), completed_count, cpu })
    };
    let (start_reading, end_reading) = run_under_load(testbed, load, &progress, || {
        thread::sleep(WARM_UP_DURATION);
        progress.set_recording(true);
        let start_reading = read()?;
        thread::sleep(length);
        let end_reading = read()?;
        progress.set_recording(false);
        Ok((start_reading, end_reading))
    })?;
    thread::sleep(PAUSE_AFTER_LOAD);
    let completed_count = to_f64(end_reading.completed_count - start_reading.completed_count);
    let seconds = (end_reading.time - start_reading.time).as_secs_f64();
    let benchmark_cpu_time = end_reading.cpu.benchmark_cpu_seconds - start_reading.cpu.benchmark_cpu_seconds;
    let other_cpu_time =
        end_reading.cpu.machine_cpu_seconds - start_reading.cpu.machine_cpu_seconds - benchmark_cpu_time;
    let processor_count = thread::available_parallelism().context("the number of processors")?.get();
    Ok(Sample {
        load,
        variant: testbed.variant.name,
        round,
        rate_per_second: completed_count / seconds,
        cpu_seconds_per_unit: benchmark_cpu_time / completed_count,
        failure_count: progress.failure_count(),
        latency_percentiles: latency_percentiles(progress.into_latencies()),
        cpu_share_of_other_programs: (other_cpu_time / (seconds * to_f64(processor_count as u64))).max(0.0),
    })
}

/// Runs `action` while clients put the load on the testbed.
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
        // The clients must stop even after an error, because the scope waits for them.
        progress.stop();
        result
    })
}
