//! Measures the steady state: 10 endpoint changes and 1 Service change in each second. Does I/O.

use std::time::{Duration, Instant};

use tokio::time::interval;

use super::api_load::ApiLoad;
use super::progress::say;
use crate::audit::{read_writes, writes_since};
use crate::endpoint_changes::wait_for_changes;
use crate::error::ScaleError;
use crate::percentile::percentile;
use crate::program::Usage;
use crate::results::{SizeResults, Unit, to_f64};
use crate::service_client::ServiceClient;
use crate::service_watch::ServiceWatch;
use crate::testbed::{TIME_LIMIT, Testbed};

/// The time between two changes of Services.
const SERVICE_CHANGE_INTERVAL: Duration = Duration::from_secs(1);
/// The time in which the programs settle before and after the steady state.
const SETTLE_TIME: Duration = Duration::from_secs(2);
const TARGET_STATUS_MILLISECONDS: f64 = 2000.0;
const TARGET_OPERATOR_PERCENT: f64 = 5.0;
const TARGET_OPERATOR_MEGABYTES: f64 = 60.0;
const TARGET_AGENT_PERCENT: f64 = 1.0;
const TARGET_AGENT_MEGABYTES: f64 = 25.0;

/// Changes endpoints and Services for some time.
pub(super) async fn measure(
    testbed: &mut Testbed,
    seconds: u64,
    results: &mut SizeResults,
) -> Result<(), ScaleError> {
    say(&format!("steady state for {seconds} s"));
    tokio::time::sleep(SETTLE_TIME).await;
    let duration = Duration::from_secs(seconds);
    let writes = read_writes(&testbed.control_plane.audit_log())?;
    let (start, usages, metrics) = (Instant::now(), usages(testbed)?, testbed.api_metrics().await?);
    let first_index = testbed.size.services;
    let Testbed { changer, services, watch, .. } = testbed;
    let (times, durations) = tokio::try_join!(
        changer.change_steadily(duration),
        change_services(services, watch, first_index, duration),
    )?;
    let change_count = times.len();
    let latencies = wait_for_changes(&mut testbed.hollow_agents.changes, times, TIME_LIMIT).await?;
    let elapsed = start.elapsed().as_secs_f64();
    let load = ApiLoad::between(&metrics, &testbed.api_metrics().await?, elapsed);
    for (name, percent) in [("p50", 50), ("p99", 99)] {
        let target = (percent == 99).then_some(TARGET_STATUS_MILLISECONDS);
        results.add_latency(
            &format!("Service created to complete status, {name}"),
            percentile(&durations, percent),
            target,
        );
    }
    results.add("Services created", to_f64(durations.len()), Unit::Count);
    for (name, percent) in [("p50", 50), ("p99", 99)] {
        results.add_latency(
            &format!("time from an endpoint change to the change of all tables, {name}"),
            percentile(&latencies, percent),
            None,
        );
    }
    results.add("endpoint changes", to_f64(change_count) / elapsed, Unit::PerSecond);
    add_usages(testbed, &usages, elapsed, results)?;
    let new_writes = writes_since(&read_writes(&testbed.control_plane.audit_log())?, &writes);
    results.add(
        "writes of the operator, except its Lease",
        to_f64(new_writes.values().sum()) / elapsed,
        Unit::PerSecond,
    );
    load.add_to(results);
    Ok(())
}

/// Creates a Service, waits until its status is complete, deletes it, and so on. Returns the time from each creation to
/// the complete status.
async fn change_services(
    services: &ServiceClient,
    watch: &ServiceWatch,
    first_index: usize,
    duration: Duration,
) -> Result<Vec<Duration>, ScaleError> {
    let end = tokio::time::Instant::now() + duration;
    let mut ticks = interval(SERVICE_CHANGE_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut durations = Vec::new();
    for index in first_index.. {
        if ticks.tick().await >= end {
            break;
        }
        let created_at = Instant::now();
        services.create(index).await?;
        let is_complete =
            |statuses: &crate::service_watch::Statuses| statuses.complete_since(index).is_some();
        watch.wait_until(&format!("the complete status of Service {index}"), TIME_LIMIT, is_complete).await?;
        durations.push(watch.lock().complete_since(index).unwrap_or_else(Instant::now) - created_at);
        ticks.tick().await;
        services.delete(index).await?;
    }
    Ok(durations)
}

/// Returns the CPU time and the memory of the operator, the hollow agents, the real agent, the API server and etcd.
fn usages(testbed: &Testbed) -> Result<[Usage; 5], ScaleError> {
    let [api_server, etcd] = testbed.control_plane.usage()?;
    let (operator, hollow) = (testbed.operator.usage()?, testbed.hollow_agents.program.usage()?);
    Ok([operator, hollow, testbed.real_agent.usage()?, api_server, etcd])
}

fn add_usages(
    testbed: &Testbed,
    before: &[Usage; 5],
    seconds: f64,
    results: &mut SizeResults,
) -> Result<(), ScaleError> {
    let after = usages(testbed)?;
    let hollow_count = to_f64(testbed.size.nodes - 1);
    let programs = [
        ("operator", 1.0, Some((TARGET_OPERATOR_PERCENT, TARGET_OPERATOR_MEGABYTES))),
        ("hollow agent (average)", hollow_count, None),
        ("real agent", 1.0, Some((TARGET_AGENT_PERCENT, TARGET_AGENT_MEGABYTES))),
        ("API server", 1.0, None),
        ("etcd", 1.0, None),
    ];
    for ((name, count, targets), (before, after)) in programs.into_iter().zip(before.iter().zip(&after)) {
        let percent = (after.cpu_seconds - before.cpu_seconds) / seconds / count * 100.0;
        let megabytes = bytes_to_megabytes(after.resident_bytes) / count;
        let (cpu, memory) = (format!("CPU of the {name}"), format!("memory of the {name}"));
        let (percent_target, megabytes_target) = targets.unzip();
        results.add_with_target(&cpu, percent, Unit::PercentOfCore, percent_target);
        results.add_with_target(&memory, megabytes, Unit::Megabytes, megabytes_target);
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "the memory of a process is far below 2^52 bytes")]
fn bytes_to_megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
