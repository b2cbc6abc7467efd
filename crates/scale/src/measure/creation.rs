//! Measures the time from nothing to the complete status of all Services. Does I/O.

use std::time::{Instant, SystemTime};

use futures::{StreamExt, TryStreamExt, stream};

use super::progress::say;
use crate::error::ScaleError;
use crate::results::{SizeResults, Unit};
use crate::testbed::{TIME_LIMIT, Testbed};

const PARALLEL_REQUESTS: usize = 50;
const TARGET_SECONDS: f64 = 60.0;

/// Creates all Services, and waits until each status has all addresses.
pub(super) async fn measure(testbed: &mut Testbed, results: &mut SizeResults) -> Result<(), ScaleError> {
    let count = testbed.size.services;
    say(&format!("creating {count} Services on {} nodes", testbed.size.nodes));
    let (start, started_at) = (Instant::now(), SystemTime::now());
    let usage = testbed.operator.usage()?;
    let services = &testbed.services;
    let requests =
        stream::iter(0..count).map(|index| services.create(index)).buffer_unordered(PARALLEL_REQUESTS);
    requests.try_collect::<()>().await?;
    let created_after = start.elapsed();
    let expected = format!("the complete status of {count} Services");
    testbed.watch.wait_until(&expected, TIME_LIMIT, |statuses| statuses.complete_count() == count).await?;
    let seconds = start.elapsed().as_secs_f64();
    testbed.wait_for_agents(started_at).await?;
    results.add_with_target(
        "from nothing: time until all statuses are complete",
        seconds,
        Unit::Seconds,
        Some(TARGET_SECONDS),
    );
    results.add(
        "from nothing: time of the requests that create all Services",
        created_after.as_secs_f64(),
        Unit::Seconds,
    );
    let cpu_seconds = testbed.operator.usage()?.cpu_seconds - usage.cpu_seconds;
    results.add("from nothing: CPU time of the operator", cpu_seconds, Unit::Seconds);
    Ok(())
}
