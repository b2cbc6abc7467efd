//! Which Service's turn it is: one turn at a time for each, many Services at once, failures again later.

use std::collections::{HashMap, HashSet};
use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc;
use futures::stream::FuturesUnordered;
use kube::runtime::scheduler::{ScheduleRequest, Scheduler, debounced_scheduler};
use tokio::time::Instant;

use crate::key::ServiceKey;

/// Changes that come together, as those of a rollout do, are one turn.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// Turns at once: enough to be quick after a restart, few enough to be polite to the API server.
const MAX_RUNNING: usize = 16;
/// Wait after the first failure; doubled after each further one.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(30);

type Turn = Pin<Box<dyn Future<Output = (ServiceKey, Outcome)> + Send>>;

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// Done for now, and to be looked at again after a while.
    Again(Duration),
    Failed,
}

/// The Services that are waiting for their turn, and those that have it.
pub(crate) struct Queue {
    requests: mpsc::UnboundedSender<ScheduleRequest<ServiceKey>>,
    waiting: Scheduler<ServiceKey, mpsc::UnboundedReceiver<ScheduleRequest<ServiceKey>>>,
    running: FuturesUnordered<Turn>,
    busy: HashSet<ServiceKey>,
    failures: HashMap<ServiceKey, u32>,
}

impl Queue {
    pub(crate) fn new() -> Self {
        let (requests, receiver) = mpsc::unbounded();
        Self {
            requests,
            waiting: debounced_scheduler(receiver, DEBOUNCE),
            running: FuturesUnordered::new(),
            busy: HashSet::new(),
            failures: HashMap::new(),
        }
    }

    /// Asks for a turn as soon as possible.
    pub(crate) fn add(&self, key: ServiceKey) {
        self.add_at(key, Instant::now());
    }

    /// Lets turns run until the next one may start, and says whose it is.
    pub(crate) async fn next(&mut self) -> ServiceKey {
        loop {
            let free = self.running.len() < MAX_RUNNING;
            let busy = &self.busy;
            let mut waiting = Pin::new(&mut self.waiting).hold_unless(|key| free && !busy.contains(key));
            tokio::select! {
                Some((key, outcome)) = self.running.next() => self.finish(key, outcome),
                Some(key) = waiting.next() => return key,
                // Neither: the queue holds a sender, so it is never closed.
                else => pending().await,
            }
        }
    }

    /// Starts a turn.
    pub(crate) fn start(&mut self, key: ServiceKey, turn: impl Future<Output = Outcome> + Send + 'static) {
        self.busy.insert(key.clone());
        self.running.push(Box::pin(async move {
            let outcome = turn.await;
            (key, outcome)
        }));
    }

    /// Lets the turns that have begun come to their end.
    pub(crate) async fn drain(mut self) {
        while self.running.next().await.is_some() {}
    }

    fn finish(&mut self, key: ServiceKey, outcome: Outcome) {
        self.busy.remove(&key);
        match outcome {
            Outcome::Done => {
                self.failures.remove(&key);
            }
            Outcome::Again(wait) => {
                self.failures.remove(&key);
                self.add_at(key, Instant::now() + wait);
            }
            Outcome::Failed => {
                let failures = self.failures.entry(key.clone()).or_default();
                let wait = FIRST_RETRY.saturating_mul(1 << (*failures).min(16)).min(LAST_RETRY);
                *failures += 1;
                self.add_at(key, Instant::now() + wait);
            }
        }
    }

    fn add_at(&self, message: ServiceKey, run_at: Instant) {
        // The receiver is this queue's own, so sending cannot fail.
        let _ = self.requests.unbounded_send(ScheduleRequest { message, run_at });
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{pause, timeout};

    use super::*;

    fn key(name: &str) -> ServiceKey {
        ServiceKey { namespace: "default".to_owned(), name: name.to_owned() }
    }

    #[tokio::test]
    async fn many_changes_of_one_service_are_one_turn() {
        pause();
        let mut queue = Queue::new();
        for _ in 0..10 {
            queue.add(key("web"));
        }
        assert_eq!(queue.next().await, key("web"));
        assert!(timeout(Duration::from_mins(1), queue.next()).await.is_err());
    }

    #[tokio::test]
    async fn a_service_whose_turn_is_running_waits_and_others_do_not() {
        pause();
        let mut queue = Queue::new();
        queue.start(key("slow"), tokio::time::sleep(Duration::from_secs(5)).map_done());
        queue.add(key("slow"));
        queue.add(key("other"));
        let begin = Instant::now();
        assert_eq!(queue.next().await, key("other"));
        assert!(begin.elapsed() < Duration::from_secs(1));
        assert_eq!(queue.next().await, key("slow"));
        assert!(begin.elapsed() >= Duration::from_secs(5));
    }

    #[tokio::test]
    async fn a_failed_turn_comes_again_later_each_time_and_no_later_than_the_limit() {
        pause();
        let mut queue = Queue::new();
        let mut waits = Vec::new();
        for _ in 0..12 {
            queue.start(key("web"), async { Outcome::Failed });
            let begin = Instant::now();
            assert_eq!(queue.next().await, key("web"));
            waits.push(begin.elapsed());
        }
        assert!(waits.is_sorted(), "{waits:?}");
        assert!(waits[0] >= FIRST_RETRY && waits[0] < FIRST_RETRY * 2);
        assert!(waits[11] < LAST_RETRY + Duration::from_secs(1));
    }

    #[tokio::test]
    async fn a_change_brings_a_failing_service_forward() {
        pause();
        let mut queue = Queue::new();
        for _ in 0..8 {
            queue.start(key("web"), async { Outcome::Failed });
            queue.next().await;
        }
        queue.start(key("web"), async { Outcome::Failed });
        queue.add(key("web"));
        let begin = Instant::now();
        assert_eq!(queue.next().await, key("web"));
        assert!(begin.elapsed() < Duration::from_secs(1));
    }

    trait MapDone: Future + Sized {
        async fn map_done(self) -> Outcome {
            self.await;
            Outcome::Done
        }
    }
    impl<F: Future> MapDone for F {}
}
