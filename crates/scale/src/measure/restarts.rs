//! Measures restarts of the operator and of the agents, and the loss of a node. Does I/O.

use std::time::{Duration, Instant, SystemTime};

use tokio::time::sleep;

use super::progress::say;
use crate::audit::{read_writes, writes_since};
use crate::cluster::node_address;
use crate::error::ScaleError;
use crate::operator::read_progress;
use crate::results::{SizeResults, Unit, to_f64};
use crate::testbed::{TIME_LIMIT, Testbed, check_deadline};

const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The time for which late writes are counted too.
const OBSERVATION_TIME: Duration = Duration::from_secs(10);
const TARGET_SETTLE_SECONDS: f64 = 5.0;

/// Restarts the operator, and waits until it has reconciled all Services.
pub(super) async fn measure_operator(
    testbed: &mut Testbed,
    results: &mut SizeResults,
) -> Result<(), ScaleError> {
    say("restarting the operator");
    sleep(OBSERVATION_TIME).await;
    let writes = read_writes(&testbed.control_plane.audit_log())?;
    let started_at = testbed.restart_operator()?;
    let deadline = Instant::now() + TIME_LIMIT;
    let count = testbed.size.services as u64;
    loop {
        let progress = read_progress();
        if progress.is_leader && progress.reconciliations >= count {
            break;
        }
        testbed.check()?;
        check_deadline(deadline, &format!("{count} reconciliations"), || format!("{progress:?}"))?;
        sleep(POLL_INTERVAL).await;
    }
    let seconds = started_at.elapsed().as_secs_f64();
    let cpu_seconds = testbed.operator.usage()?.cpu_seconds;
    sleep(OBSERVATION_TIME).await;
    let new_writes = writes_since(&read_writes(&testbed.control_plane.audit_log())?, &writes);
    if !new_writes.is_empty() {
        say(&format!("writes after the restart of the operator: {new_writes:?}"));
    }
    let write_count = to_f64(new_writes.values().sum());
    results.add_with_target(
        "restart of the operator: time until all Services are reconciled",
        seconds,
        Unit::Seconds,
        Some(TARGET_SETTLE_SECONDS),
    );
    results.add_with_target(
        "restart of the operator: writes, except its Lease",
        write_count,
        Unit::Count,
        Some(0.0),
    );
    results.add(
        "restart of the operator: CPU time until all Services are reconciled",
        cpu_seconds,
        Unit::Seconds,
    );
    Ok(())
}

/// Restarts all hollow agents at the same time, and waits until their reports are current.
pub(super) async fn measure_agents(
    testbed: &mut Testbed,
    results: &mut SizeResults,
) -> Result<(), ScaleError> {
    say("restarting the agents");
    let writes = read_writes(&testbed.control_plane.audit_log())?;
    let events = testbed.watch.lock().event_count();
    let stopped_at = Instant::now();
    let started_at = testbed.restart_hollow_agents()?;
    let stop_seconds = stopped_at.elapsed().as_secs_f64();
    let start = Instant::now();
    testbed.wait_for_agents(started_at).await?;
    let seconds = start.elapsed().as_secs_f64();
    sleep(OBSERVATION_TIME).await;
    let new_writes = writes_since(&read_writes(&testbed.control_plane.audit_log())?, &writes);
    if !new_writes.is_empty() {
        say(&format!("writes after the restart of the agents: {new_writes:?}"));
    }
    let changes = testbed.watch.lock().event_count() - events;
    results.add("restart of all agents: time until all have stopped", stop_seconds, Unit::Seconds);
    results.add("restart of all agents: time until all reports are current", seconds, Unit::Seconds);
    results.add(
        "restart of all agents: writes of the operator",
        to_f64(new_writes.values().sum()),
        Unit::Count,
    );
    results.add("restart of all agents: changes of Services", to_f64(changes), Unit::Count);
    Ok(())
}

/// Kills the agent of the last node, and waits until no status has the address of the node.
pub(super) async fn measure_lost_node(
    testbed: &mut Testbed,
    results: &mut SizeResults,
) -> Result<(), ScaleError> {
    say("losing a node");
    let address = node_address(testbed.size.nodes - 1);
    // All agents are alive before the loss, and no change is pending.
    testbed.wait_for_agents(SystemTime::UNIX_EPOCH).await?;
    let published_count = testbed.watch.lock().count_with_address(address);
    let lost_at = Instant::now();
    testbed.kill_real_agent();
    let expected = format!("no status with the address {address} of the lost node");
    let watch = &testbed.watch;
    watch.wait_until(&expected, TIME_LIMIT, |it| it.count_with_address(address) < published_count).await?;
    let first_seconds = lost_at.elapsed().as_secs_f64();
    watch.wait_until(&expected, TIME_LIMIT, |it| it.count_with_address(address) == 0).await?;
    results.add("lost node: time until the first status changes", first_seconds, Unit::Seconds);
    results.add(
        "lost node: time until no status has its address",
        lost_at.elapsed().as_secs_f64(),
        Unit::Seconds,
    );
    Ok(())
}
