//! Changes endpoints, and measures the time until the tables of all agents contain the changes. Does I/O.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, interval, timeout_at};

use crate::error::{Context, ScaleError};
use crate::hollow::AppliedChange;
use crate::objects::{ENDPOINT_COUNT, Endpoints, NAMESPACE};
use crate::size::Size;

/// The time between two changes in the steady state.
const CHANGE_INTERVAL: Duration = Duration::from_millis(100);
/// A prime number, so that consecutive changes hit different Services.
const SERVICE_STEP: usize = 7919;
const PARALLEL_REQUESTS: usize = 50;

/// The times of changes since 1970, by their numbers.
pub(crate) type ChangeTimes = HashMap<u32, Duration>;

/// Changes endpoints of Services.
pub(crate) struct EndpointChanger {
    api: Api<EndpointSlice>,
    endpoints: Vec<Endpoints>,
    change_count: u32,
}

impl EndpointChanger {
    pub(crate) fn new(client: &Client, size: Size) -> Self {
        Self {
            api: Api::namespaced(client.clone(), NAMESPACE),
            endpoints: (0..size.services).map(|index| Endpoints::new(index, size.nodes)).collect(),
            change_count: 0,
        }
    }

    /// Changes endpoints one after another for some time.
    pub(crate) async fn change_steadily(&mut self, duration: Duration) -> Result<ChangeTimes, ScaleError> {
        let end = Instant::now() + duration;
        let mut ticks = interval(CHANGE_INTERVAL);
        let mut times = ChangeTimes::new();
        while ticks.tick().await < end {
            let number = self.next_number();
            let index = number as usize * SERVICE_STEP % self.endpoints.len();
            let Some(endpoints) = self.endpoints.get_mut(index) else { continue };
            endpoints.change(number as usize, number);
            times.insert(number, now());
            replace(&self.api, endpoints).await?;
        }
        Ok(times)
    }

    /// Changes all endpoints of some Services, like a restart of their Deployments at the same time.
    pub(crate) async fn restart_all(&mut self, service_count: usize) -> Result<ChangeTimes, ScaleError> {
        let first_number = self.change_count;
        let count = service_count.min(self.endpoints.len());
        self.change_count += u32::try_from(count * ENDPOINT_COUNT).unwrap_or(u32::MAX);
        let api = &self.api;
        let restart = async |(number, endpoints): (u32, &mut Endpoints)| {
            let mut times = ChangeTimes::new();
            for slot in 0..ENDPOINT_COUNT {
                let number = number + u32::try_from(slot).unwrap_or_default();
                endpoints.change(slot, number);
                times.insert(number, now());
                replace(api, endpoints).await?;
            }
            Ok::<_, ScaleError>(times)
        };
        let numbers = (first_number..).step_by(ENDPOINT_COUNT);
        let restarts = stream::iter(numbers.zip(self.endpoints.iter_mut().take(count)));
        let times: Vec<ChangeTimes> =
            restarts.map(restart).buffer_unordered(PARALLEL_REQUESTS).try_collect().await?;
        Ok(times.into_iter().flatten().collect())
    }

    fn next_number(&mut self) -> u32 {
        self.change_count += 1;
        self.change_count - 1
    }
}

/// Replaces the `EndpointSlice`. The object has no resourceVersion, so the request never conflicts.
async fn replace(api: &Api<EndpointSlice>, endpoints: &Endpoints) -> Result<(), ScaleError> {
    let name = endpoints.name();
    let slice = endpoints.slice().map_err(kube::Error::SerdeError).context(&name)?;
    api.replace(&name, &PostParams::default(), &slice).await.context(&format!("replacing {name}")).map(drop)
}

/// Waits until the tables of all agents of the process contain all changes. Returns the latency of each change.
pub(crate) async fn wait_for_changes(
    applied: &mut UnboundedReceiver<AppliedChange>,
    mut changes: ChangeTimes,
    limit: Duration,
) -> Result<Vec<Duration>, ScaleError> {
    let deadline = Instant::now() + limit;
    let mut latencies = Vec::new();
    while !changes.is_empty() {
        let Some(change) = timeout_at(deadline, applied.recv()).await.ok().flatten() else {
            return Err(ScaleError::Timeout {
                expected: "all endpoint changes in the tables of all agents".to_owned(),
                found: format!("{} changes are missing", changes.len()),
                limit,
            });
        };
        if let Some(sent_at) = changes.remove(&change.number) {
            latencies.push(change.time.saturating_sub(sent_at));
        }
    }
    Ok(latencies)
}

/// Returns the time since 1970, which other processes know too.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
