//! Puts a load on a path, and measures rate, CPU time and latencies. Does I/O.

use std::thread;
use std::time::{Duration, Instant};

use netns_testkit::Namespace;
use rustix::process::Pid;

use crate::backend::Backend;
use crate::cpu_pin::CpuPin;
use crate::cpu_time::{CpuMeter, CpuTime};
use crate::error::{BenchError, Context};
use crate::load::Load;
use crate::load_generator::{Frontends, Progress, run_client};
use crate::quartiles::to_f64;
use crate::sample::{LatencyPercentiles, Sample};

/// The time from the start of a load to the start of the measurement. During this time, clients connect and fill their
/// TCP windows.
const WARM_UP_DURATION: Duration = Duration::from_millis(30);
/// The pause after a load. During this pause, the connections of the load end.
const PAUSE_AFTER_LOAD: Duration = Duration::from_millis(10);

/// The processor of the clients, if the clients and the backend have different processors.
const CLIENT_PROCESSOR: usize = 0;
/// The processor of the backend, if the clients and the backend have different processors.
pub(crate) const BACKEND_PROCESSOR: usize = 1;

/// The path of packets between clients and a backend.
#[derive(Clone, Debug)]
pub(crate) struct LoadPath<'a> {
    /// The name of the variant.
    pub(crate) variant: &'static str,
    /// The namespace of the clients.
    pub(crate) client: &'a Namespace,
    /// The addresses that the clients connect to.
    pub(crate) frontends: Frontends,
    /// The backend.
    pub(crate) backend: &'a Backend,
    /// The processes that forward the packets.
    pub(crate) proxies: Vec<Pid>,
    /// True if all clients run on one processor.
    pub(crate) has_pinned_clients: bool,
}

struct CounterReading {
    time: Instant,
    completed_count: u64,
    cpu: CpuTime,
}

/// Puts a load on the path, and measures it for the duration `length`.
pub(crate) fn take_sample(
    path: &LoadPath<'_>,
    load: Load,
    round: usize,
    length: Duration,
    cpu_meter: &CpuMeter,
) -> Result<Sample, BenchError> {
    let progress = Progress::default();
    let read = || {
        let completed_count =
            if load == Load::Upload { path.backend.received_bytes() } else { progress.completed_count() };
        cpu_meter.read(&path.proxies).map(|cpu| CounterReading { time: Instant::now(), completed_count, cpu })
    };
    let (start_reading, end_reading) = run_under_load(path, load, &progress, || {
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
        variant: path.variant,
        round,
        rate_per_second: completed_count / seconds,
        cpu_seconds_per_unit: benchmark_cpu_time / completed_count,
        failure_count: progress.failure_count(),
        latencies: LatencyPercentiles::new(progress.into_latencies()),
        cpu_share_of_other_programs: (other_cpu_time / (seconds * to_f64(processor_count as u64))).max(0.0),
    })
}

/// Runs `action` while clients put the load on the path.
pub(crate) fn run_under_load<T>(
    path: &LoadPath<'_>,
    load: Load,
    progress: &Progress,
    action: impl FnOnce() -> Result<T, BenchError>,
) -> Result<T, BenchError> {
    let processor = if load.uses_one_processor() { BACKEND_PROCESSOR } else { CLIENT_PROCESSOR };
    let client = |number| {
        move || {
            path.client.enter();
            // The processor exists, so the call does not fail.
            let _cpu_pin = path.has_pinned_clients.then(|| CpuPin::from_thread_number(processor));
            run_client(load, path.frontends, number, progress);
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
