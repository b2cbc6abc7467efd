//! The steps of a measurement, in their order. Does I/O.

mod api_load;
mod creation;
mod progress;
mod restarts;
mod rollout;
mod steady;

use crate::error::ScaleError;
use crate::results::SizeResults;
use crate::testbed::Testbed;

/// Runs all steps on a cluster without Services.
pub(crate) async fn measure(
    testbed: &mut Testbed,
    steady_seconds: u64,
    results: &mut SizeResults,
) -> Result<(), ScaleError> {
    creation::measure(testbed, results).await?;
    steady::measure(testbed, steady_seconds, results).await?;
    restarts::measure_operator(testbed, results).await?;
    restarts::measure_agents(testbed, results).await?;
    rollout::measure(testbed, results).await?;
    restarts::measure_lost_node(testbed, results).await
}
