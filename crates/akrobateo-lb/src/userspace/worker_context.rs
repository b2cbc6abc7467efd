//! The state that the acceptor, the TCP sessions and the UDP sessions of one worker share. The only I/O is writing log
//! lines.

use std::collections::VecDeque;
use std::sync::Arc;

use rustix::io::Errno;

use super::drain::Phase;
use super::inbox::Inbox;
use super::io_context::IoContext;
use super::poller::{Poller, Token};
use super::rate_limit::RateLimit;
use super::shared_state::SharedState;
use super::stats::{DialFailure, WorkerStats};

/// Shortest time between two sweeps, in milliseconds. Each sweep visits all connections of the worker.
pub(super) const MIN_SWEEP_INTERVAL_MS: u64 = 250;

/// The state that the acceptor, the TCP sessions and the UDP sessions of one worker share.
#[derive(Debug)]
pub(super) struct WorkerContext {
    pub(super) shared_state: Arc<SharedState>,
    pub(super) stats: Arc<WorkerStats>,
    pub(super) poller: Poller,
    pub(super) io: IoContext,
    /// The phase that the worker has entered. The proxy may already be in a later phase. Until the worker enters the
    /// draining phase, new clients of this worker count as clients from before the drain.
    pub(super) phase: Phase,
    /// The worker's index in [`SharedState::inboxes`] and [`SharedState::wakers`].
    index: usize,
    /// The run queue: connections and sockets that can continue now. The worker serves one after the other, so that no
    /// connection and no socket blocks the worker.
    run_queue: VecDeque<Token>,
    /// The time of the next sweep, which closes expired connections, expired UDP sessions and idle pipes; `None` if
    /// nothing can expire.
    next_sweep_at_ms: Option<u64>,
    /// The earliest time of the next sweep: [`MIN_SWEEP_INTERVAL_MS`] after the last sweep.
    earliest_sweep_at_ms: u64,
    /// One rate limit per port.
    dial_failure_log_limits: Box<[RateLimit]>,
}

impl WorkerContext {
    pub(super) fn new(
        shared_state: Arc<SharedState>,
        stats: Arc<WorkerStats>,
        index: usize,
    ) -> Result<Self, Errno> {
        let poller = Poller::new()?;
        poller.add(&shared_state.wakers[index], Token::Waker)?;
        let dial_failure_log_limits = vec![RateLimit::default(); shared_state.ports.len()].into();
        Ok(Self {
            shared_state,
            stats,
            poller,
            io: IoContext::new(),
            phase: Phase::Forwarding,
            index,
            run_queue: VecDeque::new(),
            next_sweep_at_ms: None,
            earliest_sweep_at_ms: 0,
            dial_failure_log_limits,
        })
    }

    /// Returns the time of the last wake-up, in milliseconds since the worker's start.
    pub(super) const fn now_ms(&self) -> u64 {
        self.io.now_ms
    }

    /// Returns the worker's index.
    pub(super) const fn index(&self) -> usize {
        self.index
    }

    /// Returns the worker's inbox.
    pub(super) fn inbox(&self) -> &Inbox {
        &self.shared_state.inboxes[self.index]
    }

    /// Appends an object to the run queue.
    pub(super) fn enqueue(&mut self, token: Token) {
        self.run_queue.push_back(token);
    }

    /// Removes and returns the first object of the run queue.
    pub(super) fn dequeue(&mut self) -> Option<Token> {
        self.run_queue.pop_front()
    }

    /// Returns the number of objects in the run queue.
    pub(super) fn queue_length(&self) -> usize {
        self.run_queue.len()
    }

    /// Schedules a sweep at `time_ms`, or [`MIN_SWEEP_INTERVAL_MS`] after the last sweep if that time is later. Does
    /// nothing if an earlier sweep is scheduled.
    pub(super) fn schedule_sweep(&mut self, time_ms: u64) {
        let time_ms = time_ms.max(self.earliest_sweep_at_ms);
        self.next_sweep_at_ms =
            Some(self.next_sweep_at_ms.map_or(time_ms, |earlier_time_ms| earlier_time_ms.min(time_ms)));
    }

    /// Returns the time of the next sweep.
    pub(super) const fn next_sweep_at_ms(&self) -> Option<u64> {
        self.next_sweep_at_ms
    }

    /// Records that a sweep ends now, and schedules the next sweep. `next_expiry_ms` is the time of the next expiry;
    /// `None` if nothing can expire.
    pub(super) fn on_sweep_end(&mut self, next_expiry_ms: Option<u64>) {
        self.next_sweep_at_ms = None;
        self.earliest_sweep_at_ms = self.io.now_ms + MIN_SWEEP_INTERVAL_MS;
        if let Some(time) = next_expiry_ms {
            self.schedule_sweep(time);
        }
    }

    /// Counts a failed attempt to reach a target. Logs the failure if the port's rate limit permits.
    pub(super) fn record_dial_failure(&mut self, port_index: usize, failure: DialFailure) {
        self.stats.port(port_index).count_dial_failure(failure);
        if let Some(times) = self.dial_failure_log_limits[port_index].permit_line(self.io.now_ms) {
            let (target, reason) = (self.shared_state.ports[port_index].target, failure.as_str());
            tracing::warn!(%target, reason, times, "cannot reach the target");
        }
    }
}
