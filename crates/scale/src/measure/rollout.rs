//! Measures the restart of 100 Deployments at the same time. Does I/O.

use std::time::Instant;

use super::progress::say;
use crate::endpoint_changes::wait_for_changes;
use crate::error::ScaleError;
use crate::percentile::percentile;
use crate::results::{SizeResults, Unit, to_f64};
use crate::testbed::{TIME_LIMIT, Testbed};

const SERVICE_COUNT: usize = 100;

/// Changes all endpoints of the Services, and waits until the tables of all agents contain the changes.
pub(super) async fn measure(testbed: &mut Testbed, results: &mut SizeResults) -> Result<(), ScaleError> {
    say("restarting Deployments");
    let start = Instant::now();
    let times = testbed.changer.restart_all(SERVICE_COUNT).await?;
    let request_seconds = start.elapsed().as_secs_f64();
    let latencies = wait_for_changes(&mut testbed.hollow_agents.changes, times, TIME_LIMIT).await?;
    let seconds = start.elapsed().as_secs_f64();
    results.add("rolling restart: endpoint changes", to_f64(latencies.len()), Unit::Count);
    results.add(
        "rolling restart: time of the requests that change the endpoints",
        request_seconds,
        Unit::Seconds,
    );
    results.add("rolling restart: time until all tables contain all changes", seconds, Unit::Seconds);
    results.add_latency("rolling restart: change to all tables, p50", percentile(&latencies, 50), None);
    results.add_latency("rolling restart: change to all tables, p99", percentile(&latencies, 99), None);
    Ok(())
}
