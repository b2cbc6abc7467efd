//! Takes samples: loads a route, and reads what was achieved and what it cost. I/O only.

use std::thread;
use std::time::{Duration, Instant};

use crate::cpu::{Cpu, Meter};
use crate::failure::{Failure, Tried};
use crate::load::{self, Progress, clients};
use crate::measure::{Measure, Sample, percentiles};
use crate::proxy::process::Process;
use crate::route::Route;

/// Load before anything is counted: connections are made, windows open.
const WARM_UP: Duration = Duration::from_millis(30);
/// Rest after a load, in which what it has left behind ends.
const REST: Duration = Duration::from_millis(10);

struct Reading {
    when: Instant,
    done: u64,
    cpu: Cpu,
}

/// Loads the route for `length` and counts.
pub(crate) fn sample(
    route: &Route,
    measure: Measure,
    round: usize,
    length: Duration,
    meter: &Meter,
) -> Result<Sample, Failure> {
    let progress = Progress::default();
    let proxy: Vec<u32> = route.proxy.iter().map(Process::id).collect();
    let read = || {
        let done = if measure == Measure::Up { route.backend.received() } else { progress.done() };
        meter.read(&proxy).map(|cpu| Reading { when: Instant::now(), done, cpu })
    };
    let readings = loaded(route, measure, &progress, || {
        thread::sleep(WARM_UP);
        progress.record(true);
        let before = read()?;
        thread::sleep(length);
        let after = read()?;
        progress.record(false);
        Ok((before, after))
    });
    let (before, after) = readings?;
    thread::sleep(REST);
    let done = precise(after.done - before.done);
    let (seconds, own) = ((after.when - before.when).as_secs_f64(), after.cpu.own - before.cpu.own);
    let processors = thread::available_parallelism().tried("the number of processors")?.get();
    let others = (after.cpu.machine - before.cpu.machine - own) / (seconds * precise(processors as u64));
    Ok(Sample {
        measure,
        variant: route.variant.name,
        round,
        rate: done / seconds,
        cpu: own / done,
        failed: progress.failed(),
        latency: percentiles(progress.latencies()),
        others: others.max(0.0),
    })
}

/// Runs `during` while clients load the route.
pub(crate) fn loaded<T>(
    route: &Route,
    measure: Measure,
    progress: &Progress,
    during: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let client = |number| {
        move || {
            route.network.client.enter()?;
            load::run(measure, route.variant.entry(), route.variant.ports, number, progress);
            Ok::<(), Failure>(())
        }
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..clients(measure)).map(|number| scope.spawn(client(number))).collect();
        let result = during();
        // Also when something went wrong: the scope waits for the clients.
        progress.stop();
        for client in clients {
            match client.join() {
                Ok(entered) => entered?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        result
    })
}

/// A count as a figure to reckon with; exact up to 2^52.
#[expect(clippy::cast_precision_loss, reason = "counts of one sample are far below 2^52")]
pub(crate) fn precise(count: u64) -> f64 {
    count as f64
}
