//! The work queue: one reconciliation at a time for each Service, and retries with a backoff. No I/O.
//!
//! kube's `Controller` skips objects that are no longer in its store. Without a finalizer, `Controller` would never
//! remove the proxies of a deleted Service. The queue of `Controller` is the private type `Runner`, so this file uses
//! kube's `Scheduler`.

use std::collections::{HashMap, HashSet};
use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use akrobateo_services::key::ServiceKey;
use futures::StreamExt;
use futures::channel::mpsc;
use futures::stream::FuturesUnordered;
use kube::runtime::scheduler::{ScheduleRequest, Scheduler, debounced_scheduler};
use tokio::time::Instant;

/// The debounce delay: all changes of a Service within this time, for example in a rollout, cause one reconciliation.
/// Each change restarts this time.
const DEBOUNCE_DELAY: Duration = Duration::from_millis(50);
/// The maximum time by which further changes delay a reconciliation. An object may change more often than the debounce
/// delay. Without a limit, such changes would delay the reconciliation for ever.
const MAX_DEBOUNCE_DELAY: Duration = Duration::from_millis(500);
/// The maximum number of reconciliations at the same time. A higher limit would be faster after a restart, but would
/// load the API server.
const MAX_CONCURRENT_RECONCILIATIONS: usize = 16;
/// The delay after the first failure. Each additional failure doubles the delay.
const MIN_BACKOFF: Duration = Duration::from_millis(500);
/// The longest delay after a failure.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

type Reconciliation = Pin<Box<dyn Future<Output = (ServiceKey, Outcome)> + Send>>;

/// The outcome of a reconciliation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The reconciliation succeeded.
    Done,
    /// The reconciliation succeeded, and the Service needs the next reconciliation after this delay.
    RequeueAfter(Duration),
    /// The reconciliation failed; the queue repeats the reconciliation with a backoff.
    Failed,
}

/// The Services that wait for a reconciliation, and the running reconciliations.
pub(crate) struct Queue {
    requests: mpsc::UnboundedSender<ScheduleRequest<ServiceKey>>,
    waiting_services: Scheduler<ServiceKey, mpsc::UnboundedReceiver<ScheduleRequest<ServiceKey>>>,
    running_reconciliations: FuturesUnordered<Reconciliation>,
    /// The Services whose reconciliations are running.
    services_in_reconciliation: HashSet<ServiceKey>,
    /// For each Service that waits for an immediate reconciliation, the time of the first request.
    first_request_times: HashMap<ServiceKey, Instant>,
    /// The number of consecutive failures of each Service.
    failure_counts: HashMap<ServiceKey, u32>,
}

impl Queue {
    /// Returns an empty queue.
    pub(crate) fn new() -> Self {
        let (requests, receiver) = mpsc::unbounded();
        Self {
            requests,
            waiting_services: debounced_scheduler(receiver, DEBOUNCE_DELAY),
            running_reconciliations: FuturesUnordered::new(),
            services_in_reconciliation: HashSet::new(),
            first_request_times: HashMap::new(),
            failure_counts: HashMap::new(),
        }
    }

    /// Requests a reconciliation as soon as possible.
    pub(crate) fn add(&mut self, key: ServiceKey) {
        let now = Instant::now();
        let first_requested_at = *self.first_request_times.entry(key.clone()).or_insert(now);
        // Later requests are not sent to the scheduler, because each of them would delay the reconciliation again.
        if now + DEBOUNCE_DELAY <= first_requested_at + MAX_DEBOUNCE_DELAY {
            self.add_at(key, now);
        }
    }

    /// Waits until the next reconciliation may start, and returns the Service to reconcile. The running reconciliations
    /// make progress during the wait.
    pub(crate) async fn next(&mut self) -> ServiceKey {
        loop {
            let has_capacity = self.running_reconciliations.len() < MAX_CONCURRENT_RECONCILIATIONS;
            let services_in_reconciliation = &self.services_in_reconciliation;
            let mut ready_services = Pin::new(&mut self.waiting_services)
                .hold_unless(|key| has_capacity && !services_in_reconciliation.contains(key));
            tokio::select! {
                Some((key, outcome)) = self.running_reconciliations.next() => self.on_finished(key, outcome),
                Some(key) = ready_services.next() => {
                    self.first_request_times.remove(&key);
                    return key;
                }
                // The program never reaches this code, because the queue holds a sender, so the scheduler never ends.
                else => pending().await,
            }
        }
    }

    /// Starts a reconciliation. The reconciliation makes progress only during [`Self::next`] and [`Self::drain`].
    pub(crate) fn start(
        &mut self,
        key: ServiceKey,
        reconciliation: impl Future<Output = Outcome> + Send + 'static,
    ) {
        self.services_in_reconciliation.insert(key.clone());
        self.running_reconciliations.push(Box::pin(async move {
            let outcome = reconciliation.await;
            (key, outcome)
        }));
    }

    /// Waits until the running reconciliations end. Does not start further reconciliations.
    pub(crate) async fn drain(mut self) {
        while self.running_reconciliations.next().await.is_some() {}
    }

    fn on_finished(&mut self, key: ServiceKey, outcome: Outcome) {
        self.services_in_reconciliation.remove(&key);
        match outcome {
            Outcome::Done => {
                self.failure_counts.remove(&key);
            }
            Outcome::RequeueAfter(delay) => {
                self.failure_counts.remove(&key);
                self.add_at(key, Instant::now() + delay);
            }
            Outcome::Failed => {
                let failure_count = self.failure_counts.entry(key.clone()).or_default();
                let backoff = MIN_BACKOFF.saturating_mul(1 << (*failure_count).min(16)).min(MAX_BACKOFF);
                *failure_count += 1;
                self.add_at(key, Instant::now() + backoff);
            }
        }
    }

    fn add_at(&self, key: ServiceKey, run_at: Instant) {
        // The send cannot fail, because the queue owns the receiver.
        let _ = self.requests.unbounded_send(ScheduleRequest { message: key, run_at });
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{sleep, timeout};

    use super::*;

    fn key(name: &str) -> ServiceKey {
        ServiceKey { namespace: "default".to_owned(), name: name.to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn changes_of_one_service_cause_one_reconciliation() {
        let mut queue = Queue::new();
        for _ in 0..10 {
            queue.add(key("web"));
        }
        assert_eq!(queue.next().await, key("web"));
        assert!(timeout(Duration::from_mins(1), queue.next()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn frequent_changes_do_not_prevent_a_reconciliation() {
        let mut queue = Queue::new();
        let start = Instant::now();
        let mut reconciliations = 0;
        while start.elapsed() < Duration::from_secs(10) {
            queue.add(key("web"));
            if timeout(DEBOUNCE_DELAY / 5, queue.next()).await.is_ok() {
                reconciliations += 1;
            }
        }
        assert!((15..=20).contains(&reconciliations), "{reconciliations}");
        // The queue does not lose the last change.
        queue.add(key("web"));
        assert_eq!(timeout(MAX_DEBOUNCE_DELAY, queue.next()).await, Ok(key("web")));
    }

    #[tokio::test(start_paused = true)]
    async fn running_reconciliation_delays_only_its_own_service() {
        let mut queue = Queue::new();
        queue.start(key("slow"), async {
            sleep(Duration::from_secs(5)).await;
            Outcome::Done
        });
        queue.add(key("slow"));
        queue.add(key("other"));
        let start = Instant::now();
        assert_eq!(queue.next().await, key("other"));
        assert!(start.elapsed() < Duration::from_secs(1));
        assert_eq!(queue.next().await, key("slow"));
        assert!(start.elapsed() >= Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn backoff_doubles_up_to_the_maximum() {
        let mut queue = Queue::new();
        let mut backoffs = Vec::new();
        for _ in 0..12 {
            queue.start(key("web"), async { Outcome::Failed });
            let start = Instant::now();
            assert_eq!(queue.next().await, key("web"));
            backoffs.push(start.elapsed());
        }
        assert!(backoffs.is_sorted(), "{backoffs:?}");
        assert!(backoffs[0] >= MIN_BACKOFF && backoffs[0] < MIN_BACKOFF * 2);
        assert!(backoffs[11] < MAX_BACKOFF + Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn change_of_a_failed_service_does_not_wait_for_the_backoff() {
        let mut queue = Queue::new();
        for _ in 0..8 {
            queue.start(key("web"), async { Outcome::Failed });
            queue.next().await;
        }
        queue.start(key("web"), async { Outcome::Failed });
        queue.add(key("web"));
        let start = Instant::now();
        assert_eq!(queue.next().await, key("web"));
        assert!(start.elapsed() < Duration::from_secs(1));
    }
}
